// What is behind a touched cell: the terms that make its number, and the cells of all pictures that take part.

import { positions } from "./geometry.js";
import { useMark } from "./format.js";
import { NO_WEIGHT, ONE, PADDING } from "./links.js";
import { arrayName, cellName, parsePanel } from "./names.js";
import { parts } from "./network.js";
import { size } from "./tensor.js";

/** @typedef {import("./network.js").Call} Call */
/** @typedef {import("./network.js").Evaluation} Evaluation */
/** @typedef {{panel: string, cell: number}} Target a cell of a picture, e.g. {panel: "dw:0", cell: 4} */
/** @typedef {{label: string, value: number}} Factor */
/** @typedef {{call: Call | null, link: number, use: number, where: string, factors: Factor[], value: number, note: string}} Term */
/** @typedef {{title: string, what: string, result: number, terms: Term[], kind: "w" | "x" | "y" | "dy" | "t", heads: string[]}} Account
 * Where a number comes from: terms whose sum it is. */

/** Why a term of a gradient is 0, where the reason is a place and no number. @param {Evaluation} evaluation @param {Call} call @param {number} link */
function whyZero(evaluation, call, link) {
  if (call.links.cell[link] === PADDING && call.links.source[link] !== ONE) return "padding";
  if (call.links.factor[link] === 0) return call.off;
  const out = call.links.out[link];
  return call.delta.data[out] === 0 && call.kind !== "RNN" ? whyNothing(evaluation, call.name, out) : "";
}

/** Why nothing flows back to a cell of a node's output. @param {Evaluation} evaluation @param {string} name @param {number} cell @returns {string} */
function whyNothing(evaluation, name, cell) {
  for (const reader of evaluation.calls.filter((call) => call.inputs.includes(name))) {
    const source = reader.inputs.indexOf(name), { links } = reader, reasons = [];
    for (let i = 0; i < links.count; i++) {
      if (links.source[i] !== source || links.cell[i] !== cell) continue;
      reasons.push(links.factor[i] === 0 ? reader.off : reader.delta.data[links.out[i]] === 0 ? whyNothing(evaluation, reader.name, links.out[i]) : "");
    }
    if (!reasons.length) return `no window of ${reader.name} reads it`;
    if (reasons.every(Boolean)) return `${reasons[0]} (${reader.name})`;
  }
  return "";
}

/** @param {Call} call @param {number} link @returns {Factor} */
function deltaFactor(call, link) {
  const out = call.links.out[link];
  return { label: cellName(call, call.kind === "RNN" ? "delta" : "dy", out), value: call.delta.data[out] };
}

/** @param {Call} call @param {number} link @returns {Factor} */
function sourceFactor(call, link) {
  const { source, cell } = call.links;
  if (source[link] === ONE) return { label: "1", value: 1 };
  const label = cell[link] === PADDING ? "padding" : cellName(call, `x:${source[link]}`, cell[link]);
  return { label, value: parts(call, link).x };
}

/** @param {Call} call @param {number} link @returns {Factor} */
function weightFactor(call, link) {
  const { slot, entry } = call.links, { w, factor } = parts(call, link);
  if (slot[link] === NO_WEIGHT) return { label: factorName(call), value: factor };
  return { label: cellName(call, `w:${slot[link]}`, entry[link]), value: w };
}

/** What the second factor of a call's terms is. @param {Call} call */
function factorName(call) {
  return call.slots.length ? "weight" : call.direct ? "share" : "slope";
}

/** @param {Call} call @param {number} link @param {Factor[]} factors @param {string} note @returns {Term} */
function term(call, link, factors, note) {
  const use = call.links.use[link], value = factors.reduce((product, factor) => product * factor.value, 1);
  return { call, link, use, where: useMark(call, use), factors, value, note };
}

/** The links of a call that a test picks. @param {Call} call @param {(i: number) => boolean} test */
function pick(call, test) {
  const found = [];
  for (let i = 0; i < call.links.count; i++) if (test(i)) found.push(i);
  return found;
}

/** @param {Evaluation} evaluation @param {Call} call @param {number} slot @param {number} entry @returns {Account} */
function weightAccount(evaluation, call, slot, entry) {
  const { weight } = call.slots[slot];
  const terms = [...weight.slots].reverse().flatMap(({ call: user, slot: at }) =>
    pick(user, (i) => user.links.slot[i] === at && user.links.entry[i] === entry).map((i) => {
      const made = term(user, i, [deltaFactor(user, i), sourceFactor(user, i)], whyZero(evaluation, user, i));
      return weight.slots.length > 1 ? { ...made, where: `${user.name}: ${made.where}` } : made;
    }),
  );
  const what = `One weight, ${terms.length === 1 ? "one use" : `${terms.length.toLocaleString("en")} uses`}: its gradient is the sum of what all of them contribute.`;
  return { kind: "w", title: cellName(call, `dw:${slot}`, entry), what, result: total(terms), terms, heads: ["upstream", "input"] };
}

/** @param {Evaluation} evaluation @param {Call} call @param {number} source @param {number} cell @returns {Account} */
function inputAccount(evaluation, call, source, cell) {
  const { links } = call, name = call.inputs[source];
  const terms = pick(call, (i) => links.source[i] === source && links.cell[i] === cell).map((i) =>
    term(call, i, [deltaFactor(call, i), weightFactor(call, i)], whyZero(evaluation, call, i)),
  );
  const readers = evaluation.calls.filter((other) => other.inputs.includes(name)).length;
  const what = `This input cell is used ${often(terms.length)}; each time it is sent back upstream × ${factorName(call)}.`;
  const more = readers > 1 ? ` ${readers} layers read ${arrayName(call, `x:${source}`)}; this is the part from ${call.name}.` : "";
  return { kind: "x", title: cellName(call, `dx:${source}`, cell), what: what + more, result: total(terms), terms, heads: ["upstream", factorName(call)] };
}

/** @param {number} count */
const often = (count) => (count === 1 ? "once" : count === 2 ? "twice" : `${count} times`);

/** @param {Call} call @param {number} cell @returns {Account} */
function outputAccount(call, cell) {
  const { links } = call, title = cellName(call, "y", cell), heads = ["input", factorName(call)];
  const out = call.config.last && call.kind === "RNN" ? lastPlace(call, cell) : cell;
  const terms = pick(call, (i) => links.out[i] === out && (call.direct || call.kind === "RNN")).map((i) => term(call, i, [sourceFactor(call, i), weightFactor(call, i)], links.cell[i] === PADDING && links.source[i] !== ONE ? "padding" : links.factor[i] === 0 ? call.off : ""));
  if (call.direct) return { kind: "y", title, what: `What this output is made of: input × ${factorName(call)}, added up.`, result: total(terms), terms, heads };
  const what = call.kind === "RNN" ? "h = tanh of this sum: input × weight, and state before × weight." : `${call.kind} of its input; there is nothing to add up.`;
  return { kind: "y", title, what, result: call.y.data[cell], terms, heads };
}

/** Where a cell of the last state stands among all states. @param {Call} call @param {number} cell */
function lastPlace(call, cell) {
  const [, T] = call.sources[0].shape, H = call.config.hidden_size;
  return (Math.floor(cell / H) * T + T - 1) * H + (cell % H);
}

/** @param {Evaluation} evaluation @param {Call} call @param {number} cell @param {import("./network.js").Example} example @returns {Account} */
function upstreamAccount(evaluation, call, cell, example) {
  /** @type {Term[]} */ const terms = [];
  const given = example.numbers.upstream?.[call.name];
  if (given) {
    const value = /** @type {number[]} */ ([given].flat(Infinity))[cell];
    terms.push({ call: null, link: -1, use: -1, where: "given", factors: [], value, note: "" });
  }
  for (const loss of evaluation.losses.filter(({ node }) => node === call.name)) {
    terms.push({ call: null, link: -1, use: -1, where: "the loss", factors: [], value: loss.gradient.data[cell], note: "" });
  }
  for (const reader of evaluation.calls) {
    reader.inputs.forEach((name, source) => {
      if (name !== call.name) return;
      for (const made of inputAccount(evaluation, reader, source, cell).terms) terms.push({ ...made, where: `${reader.name}: ${made.where}` });
    });
  }
  const what = "How the loss changes with this output: what flows back from all that read it.";
  return { kind: "dy", title: cellName(call, "dy", cell), what, result: total(terms), terms, heads: ["upstream", "weight"] };
}

/** @param {Term[]} terms */
function total(terms) {
  return terms.reduce((sum, { value }) => sum + value, 0);
}

/** @param {Evaluation} evaluation @param {Call} call @param {Target} target @param {import("./network.js").Example} example @returns {Account} */
export function account(evaluation, call, { panel, cell }, example) {
  const { kind, number } = parsePanel(panel);
  if (kind === "w") return weightAccount(evaluation, call, number, cell);
  if (kind === "x") return inputAccount(evaluation, call, number, cell);
  if (kind === "y") return outputAccount(call, cell);
  if (kind === "t") {
    const value = /** @type {number[]} */ ([example.numbers.loss[number].target].flat(Infinity))[cell];
    return { kind: "t", title: `target ${cell}`, what: "What the loss compares the output with.", result: value, terms: [], heads: [] };
  }
  if (kind === "delta") return { kind: "dy", title: cellName(call, "delta", cell), what: "How the loss changes with the sum inside the tanh.", result: call.delta.data[cell], terms: [], heads: [] };
  return upstreamAccount(evaluation, call, cell, example);
}

// ---- which cells light up

/** @typedef {Map<string, Map<number | string, number>>} Lit picture -> cell -> number of the pair it belongs to (0: none) */

/** The place "row,column" in the padding that a link reads, counted from the input's first cell. @param {Call} call @param {number} link */
function paddingPlace(call, link) {
  const g = call.geometry;
  if (!g || call.links.slot[link] === NO_WEIGHT) return null;
  const cells = size(g.kernel), spatial = call.sources[0].shape.slice(2);
  const offset = unravelled(call.links.entry[link] % cells, g.kernel);
  const place = unravelled(call.uses[call.links.use[link]].place, positions(g, spatial));
  const at = place.map((o, axis) => o * g.stride[axis] - g.padding[axis][0] + offset[axis] * g.dilation[axis]);
  const channels = call.sources[0].shape[1], filters = call.config.out_channels, groups = call.config.groups ?? 1;
  const depth = channels / groups, filter = Math.floor(call.links.out[link] / size(positions(g, spatial))) % filters;
  const channel = Math.floor((filter * groups) / filters) * depth + (Math.floor(call.links.entry[link] / cells) % depth);
  return `pad:${call.uses[call.links.use[link]].sample * channels + channel}:${at.join(",")}`;
}

/** @param {number} flat @param {number[]} shape */
function unravelled(flat, shape) {
  return shape.length === 1 ? [flat] : [Math.floor(flat / shape[1]), flat % shape[1]];
}

/** The pictures that light up with a touched weight, input cell, output cell or with a whole use: those that the terms are
 *  made of. @type {Record<string, string[]>} */
export const LIT = {
  w: ["x", "dy", "delta"],
  x: ["w", "dy", "delta"],
  y: ["x", "w"],
  dy: ["x", "w"],
  delta: ["x", "w"],
  t: [],
  use: ["x", "dx", "w", "dw", "y", "dy", "delta"],
};

/** Lights the cells of some links in a call's pictures. @param {Call} call @param {number[]} links @param {string[]} kinds of pictures
 *  @returns {Lit} */
export function light(call, links, kinds) {
  /** @type {Lit} */ const lit = new Map();
  const on = (/** @type {string} */ panel, /** @type {number | string} */ cell, /** @type {number} */ pair) => {
    if (!kinds.includes(panel.split(":")[0])) return;
    if (!lit.has(panel)) lit.set(panel, new Map());
    const cells = /** @type {Map<number | string, number>} */ (lit.get(panel));
    cells.set(cell, cells.has(cell) ? 0 : pair);
  };
  links.forEach((i, order) => {
    const pair = links.length > 1 && links.length <= 16 ? order + 1 : 0;
    const { source, cell, slot, entry, out } = call.links;
    if (source[i] !== ONE) {
      const at = cell[i] === PADDING ? paddingPlace(call, i) : cell[i];
      if (at !== null) on(`x:${source[i]}`, at, pair), on(`dx:${source[i]}`, at, pair);
    }
    if (slot[i] !== NO_WEIGHT) on(`w:${slot[i]}`, entry[i], pair), on(`dw:${slot[i]}`, entry[i], pair);
    if (call.kind === "RNN") on("delta", out[i], pair);
    else on("dy", out[i], pair), on("y", out[i], pair);
  });
  return lit;
}

/** The links of the call on show that take part in a target. @param {Call} call @param {Target} target */
export function linksOf(call, { panel, cell }) {
  const { kind, number } = parsePanel(panel), { links } = call;
  if (kind === "w") return pick(call, (i) => links.slot[i] === number && links.entry[i] === cell);
  if (kind === "x") return pick(call, (i) => links.source[i] === number && links.cell[i] === cell);
  if (kind === "t") return [];
  const out = call.kind === "RNN" && call.config.last && kind !== "delta" ? lastPlace(call, cell) : cell;
  return pick(call, (i) => links.out[i] === out);
}
