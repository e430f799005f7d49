// The stage: the pictures of one layer, values above their gradients, from the input on the left to the output on the right.

import { html } from "./vendor.js";
import { argumentOf, CHOICES, editableArguments } from "./example.js";
import { useName } from "./format.js";
import { Grid, sizeOf } from "./grid.js";
import { copyOf } from "./network.js";
import { pictures } from "./pictures.js";
import { range } from "./tensor.js";

/** @typedef {import("./store.js").View} View */
/** @typedef {import("./network.js").Call} Call */
/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./terms.js").Lit} Lit */

/** So many slices of an array are drawn; the others are leafed through. @param {Picture["slices"]} slices */
function capacity([{ cols }]) {
  return cols <= 3 ? 6 : cols <= 12 ? 4 : 2;
}

/** The private copy that playback has come to. @param {View} view @param {Call} call @param {string} panel */
function copyNow({ step, mode, hover }, call, panel) {
  if (!/^d?w/.test(panel) || mode !== "unshared" || !step || hover) return null;
  return copyOf(call.slots[Number(panel.split(":")[1])], step - 1);
}

/** Which of them: the page that the reader has turned to, or the one on which something lights up.
 *  @param {Picture} picture @param {number} turned @param {Map<number | string, number> | null} lit @param {number | null} copy */
function pageOf({ slices, cells }, turned, lit, copy) {
  const many = capacity(slices), pages = Math.ceil(slices.length / many), page = Math.min(turned, pages - 1);
  if (copy !== null) return Math.max(Math.floor(slices.findIndex(({ offset }) => Math.floor(offset / cells) === copy) / many), 0);
  if (!lit || pages === 1) return page;
  const lights = slices.map(({ offset, rows, cols }) => range(offset, offset + rows * cols).some((at) => lit.has(at % cells)));
  const here = lights.slice(page * many, (page + 1) * many).some(Boolean), first = lights.indexOf(true);
  return here || first < 0 ? page : Math.floor(first / many);
}

/** The rule of each family of layers, in a line. @type {[RegExp, string][]} */
const RULES = [
  [/^Conv/, "y = Σ x · w + b over the window;  dw = Σ dy · x over all positions;  dx = Σ dy · w over all windows that cover the cell"],
  [/^Locally/, "as a convolution, but with weights of its own at every position: no sum over positions"],
  [/^Linear/, "y = w · x + b;  dw = Σ dy · x over samples and tokens;  dx = Σ dy · w over the outputs"],
  [/^MaxPool/, "the largest cell of each window;  its dy goes back to that cell whole"],
  [/AvgPool/, "the mean of each window;  every cell gets the same part of its dy"],
  [/^RNN/, "h = tanh(W_ih · x + W_hh · h before + b);  δ = dh · (1 − h²);  each dW = Σ over the time steps, from the last to the first"],
  [/^ReLU/, "y = max(x, 0);  dx = dy where y > 0, else 0"],
  [/^Sigmoid/, "y = 1 / (1 + e^−x);  dx = dy · y · (1 − y)"],
  [/^Tanh/, "y = tanh x;  dx = dy · (1 − y²)"],
  [/^Softmax/, "y = e^x / Σ e^x;  dx = y · (dy − Σ dy · y)"],
  [/^Add/, "y = x₁ + x₂ + …;  each dx = dy"],
  [/./, "the numbers move and do not change;  so do their gradients"],
];

/** @param {Call} call */
export function rule(call) {
  return /** @type {[RegExp, string]} */ (RULES.find(([kinds]) => kinds.test(call.kind)))[1];
}

/** @param {{view: View, call: Call, lit: Lit | null}} props */
export function Stage({ view, call, lit }) {
  const shown = pictures(call, view);
  // sums over many uses are beyond all else: they get the full colour, and leave the scale to what they are made of
  const values = [...shown.sources, ...shown.weights, ...shown.output].flat().filter(({ panel }) => !/^(t|dw)/.test(panel));
  let scale = 0;
  for (const { tensor } of values) for (const value of tensor.data) scale = Math.max(scale, Math.abs(value));
  const wide = widthOf(shown.sources) + widthOf(shown.weights) + widthOf(shown.output) > room();
  const column = (/** @type {string} */ name, /** @type {Picture[][]} */ rows) =>
    rows.length ? html`<div class=${`column ${name}`}>${rows.map((row) => html`<div class="pair">${row.map((picture) => panel(picture, view, call, lit, scale))}</div>`)}</div>` : null;
  return html`<section class="stage" aria-label=${`Layer ${call.name}`}>
    <div class="stage-head"><h2>${call.name} <small>${call.kind}</small></h2>${geometryFields(view, call)}</div>
    <p class="rule">${rule(call)}</p>
    ${view.state.evaluation.batch > 1 ? samples(view) : null}
    <div class=${["columns", wide && "wide", lit && (view.step === null || view.hover || view.link !== null || view.held !== null) && "dim"].filter(Boolean).join(" ")} id="pictures">${column("sources", shown.sources)}${column("weights", shown.weights)}${column("output", shown.output)}</div>
    ${legend(scale)}
  </section>`;
}

/** How much room there is for pictures side by side, in rem. */
function room() {
  const window = innerWidth / 16;
  return window > 67.5 ? Math.min(window, 100) - 32.5 : window - 5;
}

/** About how wide a column of pictures is drawn, in rem. @param {Picture[][]} rows */
function widthOf(rows) {
  const cell = (/** @type {number} */ cols, /** @type {number} */ slices) => ({ large: 3.83, middle: 3.1, small: 1.36, tiny: 0.62 })[sizeOf(cols, false, slices > 2)];
  return Math.max(0, ...rows.flat().map(({ slices, ring }) => {
    const cols = slices[0].cols + (ring ? ring.left + ring.right : 0);
    return Math.max(11, (cols * cell(cols, slices.length) + 2) * Math.min(slices.length, 2));
  })) + 1.5;
}

/** @param {View} view */
function samples(view) {
  return html`<div class="samples" role="group" aria-label="sample on show">${Array.from({ length: view.state.evaluation.batch }, (_, n) =>
    html`<button type="button" class="quiet" data-sample=${n} aria-pressed=${view.sample === n}>sample ${n}</button>`)}</div>`;
}

/** @param {Picture} picture @param {View} view @param {Call} call @param {Lit | null} lit @param {number} scale */
function panel(picture, view, call, lit, scale) {
  const { panel, tensor, slices, role, name, note, ring, cells } = picture, { pin, hover } = view;
  const copy = slices.length * slices[0].rows * slices[0].cols > cells ? copyNow(view, call, panel) : null;
  const many = capacity(slices), pages = Math.ceil(slices.length / many), turned = view.pages.get(panel.replace(/^d/, "")) ?? 0;
  const page = pageOf(picture, turned, lit?.get(panel) ?? null, copy);
  const chosen = (hover ?? pin)?.panel.replace(/^d(?=[wxy])/, "") === panel.replace(/^d(?=[wxy])/, "") ? (hover ?? pin)?.cell ?? null : null;
  const whole = view.covered.has(panel), coverable = /^(d|y)/.test(panel) && panel !== "delta";
  const hidden = (/** @type {number} */ cell) => (whole || view.covered.has(`${panel},${cell}`)) && !view.told.has(`${panel},${cell}`);
  const zoomable = slices.length && slices[0].cols > 7, zoomed = view.zoomed.has(panel);
  const current = pin?.panel === panel ? pin.cell : null;
  return html`<figure class=${`picture ${panel.startsWith("d") ? "gradient" : "value"}`} key=${panel}>
    <figcaption><span class="name">${name}</span> <span class="role">${role}${note ? `, ${note}` : ""}</span>
      ${coverable ? html`<button type="button" class="mini" data-cover=${panel} aria-pressed=${whole} title="Hide these numbers and guess them">${whole ? "uncover" : "cover"}</button>` : null}
      ${zoomable ? html`<button type="button" class="mini" data-zoom=${panel} aria-pressed=${zoomed}>${zoomed ? "smaller" : "larger"}</button>` : null}
      ${view.windows.has(panel) ? html`<button type="button" class="mini" data-whole=${panel}>whole</button>` : null}
      ${pages > 1 ? html`<span class="pager"><button type="button" class="mini" data-page=${panel} data-by="-1" aria-label="earlier ones" disabled=${page === 0}>‹</button>
        ${page * many + 1}–${Math.min((page + 1) * many, slices.length)} of ${slices.length.toLocaleString("en")}
        <button type="button" class="mini" data-page=${panel} data-by="1" aria-label="later ones" disabled=${page === pages - 1}>›</button></span>` : null}
    </figcaption>
    <div class="slices">${slices.slice(page * many, (page + 1) * many).map((slice) => html`<div class="slice" key=${slice.offset}>
      <${Grid} panel=${panel} label=${[name, role, slice.label].filter(Boolean).join(", ")} slice=${slice} data=${tensor.data} cells=${cells} copy=${copy} scale=${scale}
        lit=${lit?.get(panel) ?? null} chosen=${chosen} hidden=${whole || view.covered.size ? hidden : null} told=${view.told}
        ring=${ring} zoomed=${zoomed} several=${slices.length > 2} part=${view.windows.get(`${panel}@${slice.offset}`) ?? null} current=${current} />
      ${slice.label ? html`<small class="slice-label">${slice.label}</small>` : null}</div>`)}</div>
  </figure>`;
}

/** @param {View} view @param {Call} call */
function geometryFields(view, call) {
  const names = editableArguments(call.kind);
  if (!names.length) return null;
  return html`<div class="geometry">${names.map((name) => {
    const value = argumentOf(call.config, name), choices = CHOICES[name], label = name.replace(/_/g, " ");
    if (choices) {
      return html`<label>${label} <select data-argument=${name} value=${String(value)}>${choices.map((choice) => html`<option value=${String(choice)} selected=${choice === value}>${String(choice)}</option>`)}</select></label>`;
    }
    return html`<label>${label} <input data-argument=${name} size=${Math.max(3, written(value).length)} inputmode="numeric" value=${written(value)} title="a whole number, or one for each axis: 2 or 2,1" /></label>`;
  })}</div>`;
}

/** @param {any} value of an argument, as it is typed: 2, "2,1", "1/0,2/1" for (before, after) pairs, or a word */
export function written(value) {
  return Array.isArray(value) ? value.map((v) => (Array.isArray(v) ? v.join("/") : v)).join(",") : String(value);
}

/** @param {string} text @returns {any} */
export function argumentFrom(text) {
  const one = (/** @type {string} */ word) => (/^-?\d+$/.test(word) ? Number(word) : word === "true" ? true : word === "false" ? false : word);
  const parts = text.trim().split(/\s*,\s*/).map((part) => (part.includes("/") ? part.split("/").map(one) : one(part)));
  return parts.length === 1 && !Array.isArray(parts[0]) ? parts[0] : parts;
}

/** @param {number} scale */
function legend(scale) {
  const end = Number(scale.toPrecision(3));
  return html`<div class="legend" aria-hidden="true"><span>−${end}</span><span class="bar"></span><span>+${end}</span><small>one scale for all pictures of a layer, and beyond it the same colour; small numbers are drawn stronger than in proportion</small></div>`;
}

/** The use that playback has come to, in words. @param {View} view @param {Call} call */
export function stepName(view, call) {
  const { step } = view, count = call.uses.length;
  if (step === null) return `all ${count.toLocaleString("en")} ${count === 1 ? "use" : "uses"}`;
  return step === 0 ? `0 of ${count.toLocaleString("en")}: nothing added yet` : `use ${step.toLocaleString("en")} of ${count.toLocaleString("en")}: ${useName(call, step - 1)}`;
}
