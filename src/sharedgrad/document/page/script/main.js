// The page: draws the view, and turns what the reader does into changes of it.

import { html, render } from "./vendor.js";
import { Inspector, Player, Strip, Update, editable, guessed } from "./controls.js";
import { EntryError } from "./geometry.js";
import { plain, read, show } from "./format.js";
import { parsePanel } from "./names.js";
import { range } from "./tensor.js";
import { argumentFrom, Stage } from "./stage.js";
import { acted, address, addressed, callOf, firstView } from "./store.js";
import { account, light, linksOf, LIT } from "./terms.js";
import { connect } from "./written.js";

/** @typedef {import("./store.js").View} View */
/** @typedef {import("./terms.js").Target} Target */

const page = /** @type {HTMLElement} */ (document.getElementById("page"));
const first = firstView(JSON.parse(/** @type {HTMLElement} */ (document.getElementById("example")).textContent ?? ""));
/** @type {View} */ let view = addressed(first, location.hash.slice(1));
let waiting = 0, timer = 0;

/** @param {Partial<View>} changes */
function change(changes) {
  view = { ...view, ...changes };
  if (!waiting) waiting = requestAnimationFrame(draw);
}

/** @param {Partial<View>} changes that belong into the address */
function go(changes) {
  change(changes);
  try {
    history.replaceState(null, "", `#${address(view)}`);
  } catch {
    // a frame without an address of its own, as in some notebooks: the page works, the state is not in an address
  }
}

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---- drawing

function draw() {
  waiting = 0;
  const call = callOf(view), target = view.hover ?? view.pin, { evaluation, example } = view.state;
  const found = target ? account(evaluation, call, target, example) : null;
  render(html`<${App} call=${call} target=${target} found=${found} lit=${lighting(call, target)} />`, page);
  document.documentElement.classList.toggle("edited", view.actions.length > 0);
}

/** @param {import("./network.js").Call} call @param {Target | null} target */
function lighting(call, target) {
  const link = view.link ?? (view.hover ? null : view.held);
  if (link !== null) return light(call, [link], LIT.use);
  if (view.step !== null && view.step > 0 && !view.hover) {
    return light(call, range(call.links.start[view.step - 1], call.links.start[view.step]), LIT.use);
  }
  return target ? light(call, linksOf(call, target), LIT[parsePanel(target.panel).kind]) : null;
}

/** @param {any} props */
function App({ call, target, found, lit }) {
  return html`<${Strip} view=${view} dark=${dark()} />
    ${view.problem ? html`<p class="problem" role="alert">${view.problem}</p>` : null}
    <p class="message" role="status">${view.message}</p>
    <div class="bar"><${Player} view=${view} call=${call} /><${Update} view=${view} /></div>
    <div class="bench"><${Stage} view=${view} call=${call} lit=${lit} /><${Inspector} view=${view} call=${call} target=${target} account=${found} dark=${dark()} /></div>`;
}

// ---- playback

/** @param {number | null} step */
function to(step, changes = {}) {
  go({ step, link: null, held: null, hover: null, ...changes });
}

function stop() {
  clearInterval(timer);
  if (view.playing) change({ playing: false });
}

function advance() {
  const call = callOf(view), names = view.state.evaluation.calls.map(({ name }) => name), place = names.indexOf(call.name);
  const step = (view.step ?? 0) + 1;
  if (step <= call.uses.length) to(step);
  else if (place > 0) to(0, { at: names[place - 1], pin: null }); // the layer before is next on the way back
  else stop();
}

function play() {
  if (view.playing) return stop();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    return to(null, { message: "You have asked for no motion, so this is the end at once. The buttons beside Play go through the uses one by one." });
  }
  const call = callOf(view);
  if (view.step === null || view.step >= call.uses.length) to(0);
  change({ playing: true });
  timer = window.setInterval(advance, 1000 / view.speed);
}

/** @param {string} does */
function player(does) {
  const count = callOf(view).uses.length, step = view.step ?? count;
  if (does === "play") return play();
  stop();
  if (does === "first") to(0);
  if (does === "back") to(Math.max(step - 1, 0));
  if (does === "next") advance();
  if (does === "last") to(null);
}

// ---- what the reader does

/** @param {import("./store.js").Action} action */
function edit(action) {
  stop();
  const changes = acted(view, action);
  go({ ...changes, message: changes.problem ? "" : told(action, changes) });
}

/** @param {import("./store.js").Action} action @param {Partial<View>} changes */
function told(action, changes) {
  if (action[0] !== "update") return "";
  const loss = (/** @type {import("./example.js").State | undefined} */ state) => state?.evaluation.losses.reduce((sum, { value }) => sum + value, 0) ?? 0;
  const after = view.state.evaluation.losses.length ? ` Loss ${Number(loss(view.state).toPrecision(5))} → ${Number(loss(changes.state).toPrecision(5))}.` : "";
  const count = Math.max(...Object.values(view.state.evaluation.weights).map(({ uses }) => uses));
  if (action[1] === "unshared") return `Updated: every private copy by its own gradient.${after} Choose another way to combine and update to tie them again: the mean of the copies.`;
  return `Updated: each weight has changed once, and so in all its places${count > 1 ? ` (up to ${count.toLocaleString("en")} uses of one weight)` : ""}.${after}`;
}

/** @param {string} text @param {(value: number) => void} use */
function withNumber(text, use) {
  const value = read(text);
  if (Number.isFinite(value)) use(value);
  else change({ problem: `expected a number, got “${text}”` });
}

/** @param {string} at */
function visit(at) {
  stop();
  go({ at, pin: null, hover: null, link: null, held: null, step: null, problem: "" });
}

/** @param {Element} element @returns {Target | null} */
function targetOf(element) {
  const cell = /** @type {HTMLElement | null} */ (element.closest("[data-cell][data-panel]"));
  return cell ? { panel: String(cell.dataset.panel), cell: Number(cell.dataset.cell) } : null;
}

/** @param {Target | null} a @param {Target | null} b */
const sameTarget = (a, b) => a?.panel === b?.panel && a?.cell === b?.cell;

/** @param {Set<string>} set @param {string} key */
function toggled(set, key) {
  const next = new Set(set);
  if (!next.delete(key)) next.add(key);
  return next;
}

/** @param {string} key of a picture or a cell that is covered or uncovered */
function cover(key) {
  const told = new Map([...view.told].filter(([name]) => name !== key && !name.startsWith(`${key},`)));
  change({ covered: toggled(view.covered, key), told });
}

/** Checks the reader's value; within half a percent it is right. */
function check() {
  if (!view.pin) return;
  const call = callOf(view), { panel, cell } = guessed(view.pin), field = /** @type {HTMLInputElement} */ (document.getElementById("do-guess"));
  const { result } = account(view.state.evaluation, call, view.pin, view.state.example);
  withNumber(field.value, (value) => change({ problem: "", told: new Map([...view.told, [`${panel},${cell}`, Math.abs(value - result) <= Math.max(0.005 * Math.abs(result), 1e-6)]]) }));
}

/** What a click on an element with this data attribute does. @type {Record<string, (data: DOMStringMap, element: HTMLElement) => void>} */
const CLICKS = {
  at: ({ at }) => visit(String(at)),
  play: ({ play: does }) => player(String(does)),
  sample: ({ sample }) => go({ sample: Number(sample), hover: null }),
  cover: ({ cover: key }) => cover(String(key)),
  tell: ({ tell }) => change({ told: new Map([...view.told, [String(tell), false]]) }),
  zoom: ({ zoom }) => change({ zoomed: toggled(view.zoomed, String(zoom)) }),
  open: ({ open }) => change({ open: toggled(view.open, String(open)) }),
  page: ({ page: panel, by }) => {
    const key = String(panel).replace(/^d/, "");
    change({ pages: new Map([...view.pages, [key, (view.pages.get(key) ?? 0) + Number(by)]]) });
  },
  part: ({ part, row, col }) => {
    const near = (/** @type {string | undefined} */ place) => Math.max(Number(place) - 11, 0);
    change({ windows: new Map([...view.windows, [String(part), [near(row), near(col)]], [String(part).split("@")[0], []]]) });
  },
  whole: ({ whole }) => change({ windows: new Map([...view.windows].filter(([key]) => key.split("@")[0] !== whole)) }),
  link: ({ link, node }) => {
    if (node && node !== view.at) visit(node);
    if (node) change({ held: view.held === Number(link) ? null : Number(link) });
  },
};

page.addEventListener("click", (event) => {
  const element = /** @type {HTMLElement} */ (event.target);
  if (element.id === "do-update") return edit(["update", view.mode]);
  if (element.id === "do-undo") return go(restarted(view.actions.slice(0, -1)));
  if (element.id === "do-reset") return go(restarted([]));
  if (element.id === "do-check") return check();
  const target = targetOf(element);
  if (target) return go({ pin: sameTarget(view.pin, target) ? null : target, hover: null, link: null, held: null, problem: "" });
  for (const does of Object.keys(CLICKS)) {
    const found = /** @type {HTMLElement | null} */ (element.closest(`[data-${does}]`));
    if (found) return CLICKS[does](found.dataset, found);
  }
});

/** The view with only some of the actions done. @param {View["actions"]} actions @returns {Partial<View>} */
function restarted(actions) {
  /** @type {View} */ let next = { ...view, state: first.state, actions: [], problem: "", message: "", link: null, held: null, told: new Map() };
  for (const action of actions) next = { ...next, ...acted(next, action) };
  return { ...next, actions };
}

page.addEventListener("change", (event) => {
  const field = /** @type {HTMLInputElement} */ (event.target);
  if (field.name === "mode") return go({ mode: /** @type {any} */ (field.value), message: "" });
  if (field.id === "do-sort") return go({ sort: /** @type {any} */ (field.value) });
  if (field.id === "do-rate") return withNumber(field.value, (value) => edit(["learning_rate", value]));
  if (field.id === "do-speed") {
    const playing = view.playing;
    stop();
    change({ speed: Number(field.value) });
    return playing ? play() : undefined;
  }
  if (field.dataset.argument) return argument(field);
  if (field.id === "do-value" && view.pin) {
    const kept = editable(view, callOf(view), view.pin);
    if (kept) withNumber(field.value, (value) => edit([kept.where, kept.name, kept.index, value]));
  }
});

/** @param {HTMLInputElement} field */
function argument(field) {
  edit(["argument", view.at, String(field.dataset.argument), argumentFrom(field.value)]);
  if (view.problem) requestAnimationFrame(draw);
}

page.addEventListener("input", (event) => {
  const field = /** @type {HTMLInputElement} */ (event.target);
  if (field.id !== "do-step") return;
  stop();
  to(Number(field.value));
});

page.addEventListener("pointerover", (event) => {
  const element = /** @type {HTMLElement} */ (event.target), row = /** @type {HTMLElement | null} */ (element.closest("tr[data-link]"));
  if (event.pointerType === "touch") return; // a finger chooses by tapping
  if (document.activeElement?.closest(".inspector input")) return; // the pointer is not to take away the cell that is being typed in
  if (row) return change({ link: row.dataset.node === view.at ? Number(row.dataset.link) : null });
  const hover = targetOf(element);
  if (hover || element.closest("#pictures")) {
    if (!sameTarget(view.hover, hover) || view.link !== null) change({ hover, link: null });
  } else if (view.hover) change({ hover: null });
  else if (view.link !== null) change({ link: null });
});

page.addEventListener("focusin", (event) => {
  const target = targetOf(/** @type {Element} */ (event.target));
  if (target && !sameTarget(view.pin, target)) change({ hover: target, link: null });
});

page.addEventListener("focusout", (event) => {
  if (targetOf(/** @type {Element} */ (event.target))) change({ hover: null });
});

const ARROWS = /** @type {Record<string, [number, number]>} */ ({ ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] });

/** @param {HTMLTableCellElement} cell @param {[number, number]} by */
function step(cell, [down, right]) {
  const row = /** @type {HTMLTableRowElement} */ (cell.parentElement), table = /** @type {HTMLTableElement} */ (cell.closest("table"));
  const next = table.rows[row.rowIndex + down]?.cells[cell.cellIndex + right];
  if (next?.hasAttribute("tabindex")) next.focus();
}

document.addEventListener("keydown", (event) => {
  const element = /** @type {HTMLElement} */ (event.target), cell = /** @type {HTMLTableCellElement | null} */ (element.closest("td[data-cell],td[data-part]"));
  if (event.key === "Escape") return go({ pin: null, hover: null, link: null, held: null });
  if (event.key === "Enter" && element.id === "do-guess") return check();
  if (cell && ARROWS[event.key]) {
    event.preventDefault();
    return step(cell, ARROWS[event.key]);
  }
  if (cell && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    cell.click();
    if (event.key === "Enter") requestAnimationFrame(() => requestAnimationFrame(() => /** @type {HTMLInputElement | null} */ (document.querySelector("#do-value, #do-guess"))?.select()));
    return;
  }
  if (element.closest("input, select, button, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") player("next");
  if (event.key === "p") player("back");
  if (event.key === "u") edit(["update", view.mode]);
});

// ---- the page's head

document.getElementById("theme")?.addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  change({});
});

document.getElementById("save")?.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(view.state.example, null, 1)], { type: "application/json" }));
  link.download = "example.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

document.getElementById("share")?.addEventListener("click", async () => {
  const link = `${location.href.split("#")[0]}#${address(view)}`;
  try {
    await navigator.clipboard.writeText(link);
    change({ message: "The address of this state is on the clipboard." });
  } catch {
    change({ message: `The address of this state: ${link}` });
  }
});

window.addEventListener("hashchange", () => {
  stop();
  change(addressed({ ...first, speed: view.speed }, location.hash.slice(1)));
});

window.addEventListener("resize", () => change({}));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change({}));
// what the page holds at the moment, for scripts beside it and for tests
Object.defineProperty(page, "view", { get: () => view });
connect((at, panel, cell) => go({ at, pin: { panel, cell }, hover: null, link: null }), (at, panel, cell) => at === view.at && change({ hover: panel ? { panel, cell } : null }), first.state.evaluation);
draw();
