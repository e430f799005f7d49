// What the reader sees at the moment, and how it changes; all that can be sent to somebody stands in the address.

import { act, appended, start } from "./example.js";
import { EntryError } from "./geometry.js";
import { ravel } from "./tensor.js";

/** @typedef {import("./example.js").Action} Action */
/** @typedef {import("./example.js").State} State */
/** @typedef {import("./terms.js").Target} Target */
/** @typedef {import("./combine.js").Mode} Mode */
/** @typedef {{
 *   base: import("./network.js").Example, actions: Action[], state: State, at: string, step: number | null,
 *   pin: Target | null, hover: Target | null, link: number | null, held: number | null, mode: Mode, sort: "place" | "size", sample: number,
 *   playing: boolean, speed: number, covered: Set<string>, told: Map<string, boolean>, zoomed: Set<string>,
 *   pages: Map<string, number>, windows: Map<string, number[]>, open: Set<string>, message: string, problem: string,
 * }} View
 * `at`: the node on show. `step`: so many of its uses have been added (null: all of everything). `pin`, `hover`: the cell that is
 * held or touched; `link`: a touched term of it, `held`: one that is held. `covered`: pictures and cells whose numbers are hidden, `told` those that the
 * reader has answered, and whether rightly. */

/** @param {import("./network.js").Example} example @returns {View} */
export function firstView(example) {
  const state = start(example), names = state.evaluation.calls.map((call) => call.name);
  const weight = example.focus?.weight?.match(/^(.*)\[([\d,\s]*)\]$/);
  const at = names.includes(example.focus?.node) ? example.focus.node : (state.evaluation.calls.find((call) => call.slots.length) ?? state.evaluation.calls[0]).name;
  const slots = state.evaluation.calls.find((call) => call.name === at)?.slots ?? [];
  const slot = weight ? slots.findIndex((entry) => entry.weight.name === weight[1]) : -1;
  /** @type {Target | null} */ let pin = null;
  if (weight && slot >= 0) {
    const { shape } = slots[slot].weight.value;
    pin = { panel: `dw:${slot}`, cell: ravel(weight[2].split(",").map(Number), shape) };
  }
  return {
    base: example, actions: [], state, at, step: null, pin, hover: null, link: null, held: null, mode: "sum", sort: "place", sample: 0,
    playing: false, speed: 3, covered: new Set(), told: new Map(), zoomed: new Set(), pages: new Map(), windows: new Map(),
    open: new Set(), message: "", problem: "",
  };
}

/** @param {View} view */
export function callOf(view) {
  return view.state.evaluation.calls.find((call) => call.name === view.at) ?? view.state.evaluation.calls[0];
}

/** The view after an action of the reader; where it makes no sense, the same with the problem in words.
 *  @param {View} view @param {Action} action @returns {Partial<View>} */
export function acted(view, action) {
  try {
    const state = act(view.state, action), call = state.evaluation.calls.find(({ name }) => name === view.at);
    const geometry = action[0] === "argument";
    return {
      state, actions: appended(view.actions, action), problem: "", told: new Map(), link: null, held: null, hover: null,
      step: view.step === null || geometry ? null : Math.min(view.step, call?.uses.length ?? 0),
      pin: geometry && view.pin && !exists(state, view.at, view.pin) ? null : view.pin,
    };
  } catch (error) {
    if (error instanceof EntryError) return { problem: error.message };
    throw error;
  }
}

/** @param {State} state @param {string} at @param {Target} target */
function exists({ evaluation, example }, at, { panel, cell }) {
  const call = evaluation.calls.find(({ name }) => name === at), [kind, number] = panel.split(":");
  if (!call) return false;
  const arrays = { x: call.sources, dx: call.sources, w: call.slots.map((s) => s.weight.value), dw: call.slots.map((s) => s.weight.value) };
  if (kind === "t") return cell < [example.numbers.loss[Number(number)].target].flat(Infinity).length;
  const array = kind in arrays ? /** @type {any} */ (arrays)[kind][Number(number)] : kind === "delta" ? call.delta : call.y;
  return array !== undefined && cell < array.data.length;
}

// ---- the address

/** @param {View} view */
export function address(view) {
  const found = new URLSearchParams();
  found.set("at", view.at);
  if (view.step !== null) found.set("step", String(view.step));
  if (view.pin) found.set("touch", `${view.pin.panel},${view.pin.cell}`);
  if (view.mode !== "sum") found.set("combine", view.mode);
  if (view.sort !== "place") found.set("sort", view.sort);
  if (view.sample) found.set("sample", String(view.sample));
  if (view.actions.length) found.set("edits", JSON.stringify(view.actions));
  return found.toString();
}

/** The view that an address stands for. What in it does not fit is left out. @param {View} first @param {string} text @returns {View} */
export function addressed(first, text) {
  const given = new URLSearchParams(text);
  let view = { ...first, pin: given.has("at") ? null : first.pin };
  const names = first.state.evaluation.calls.map((call) => call.name), at = given.get("at");
  if (at && names.includes(at)) view.at = at;
  for (const action of edits(given.get("edits"))) {
    try {
      view = { ...view, ...acted(view, action) };
    } catch {
      view.problem = "the address holds an edit that does not fit this network";
    }
  }
  const count = callOf(view).uses.length, step = Number(given.get("step") ?? NaN), sample = Number(given.get("sample") ?? 0);
  if (Number.isInteger(step)) view.step = Math.min(Math.max(step, 0), count);
  if (sample > 0 && sample < view.state.evaluation.batch) view.sample = Math.floor(sample);
  const mode = given.get("combine"), [panel, cell] = (given.get("touch") ?? "").split(",");
  if (mode === "mean" || mode === "last" || mode === "unshared") view.mode = mode;
  if (given.get("sort") === "size") view.sort = "size";
  const target = { panel, cell: Number(cell) };
  if (panel && /^\d+$/.test(cell) && exists(view.state, view.at, target)) view.pin = target;
  return view;
}

/** @param {string | null} text @returns {Action[]} */
function edits(text) {
  try {
    const found = JSON.parse(text ?? "[]");
    return Array.isArray(found) ? /** @type {Action[]} */ (found.filter(Array.isArray)) : [];
  } catch {
    return [];
  }
}
