// A whole network with its numbers: forward, backward, and each gradient kept apart by use.

import { EntryError } from "./geometry.js";
import { LAYERS } from "./layers.js";
import { NO_WEIGHT, ONE, PADDING } from "./links.js";
import { loss } from "./losses.js";
import { add, same, size, tensor, zeros } from "./tensor.js";
import { seen } from "./views.js";

/** @typedef {import("./tensor.js").Tensor} Tensor */
/** @typedef {import("./links.js").Links} Links */
/** @typedef {import("./links.js").Use} Use */
/** @typedef {import("./losses.js").Loss} Loss */
/** @typedef {Record<string, any>} Example the configuration of a network, with "numbers" */
/** @typedef {{name: string, value: Tensor, copies: Float64Array | null, count: number, uses: number, slots: Slot[]}} Weight
 * One shared weight. `count`: in how many places it stands (positions, time steps, calls), so many private copies there
 * would be; `copies` holds them where it is un-shared; `uses` counts the samples too. */
/** @typedef {{call: Call, slot: number, attribute: string, weight: Weight, offset: number, own: boolean, gradient: Tensor}} Slot
 * A weight as one call sees it: its copies begin at `offset`; `own`: it holds the position inside, one copy for all places; `gradient` is the sum over the uses in this call. */
/** @typedef {{
 *   name: string, config: Record<string, any>, kind: string, inputs: string[], sources: Tensor[], y: Tensor,
 *   links: Links, uses: Use[], places: {name: string, shape: number[]}, slots: Slot[], direct: boolean,
 *   delta: Tensor, dsources: Tensor[], off: string, geometry: import("./geometry.js").Geometry | null,
 *   given: boolean[], single: boolean, alone: boolean,
 * }} Call
 * One application of a layer. `delta`: the gradient where its products are added (dy; in an RNN, of a).
 * `direct`: whether y is the sum of the products itself. `given`: which inputs are the network's own; `single`: whether there
 * is no other layer; `alone`: whether the network has no other input. */
/** @typedef {{
 *   values: Record<string, Tensor>, calls: Call[], weights: Record<string, Weight>, upstream: Record<string, Tensor>,
 *   losses: (Loss & {node: string})[], batch: number,
 * }} Evaluation */

/** Nodes with the arguments of the layer that they apply, also where they reuse another's.
 *  @param {Example} example @returns {(Record<string, any> & {name: string, inputs: string[], owner: string})[]} */
export function nodes(example) {
  const found = /** @type {Record<string, any>} */ ({});
  let previous = Object.keys(example.inputs ?? { input: null })[0];
  return example.nodes.map((/** @type {any} */ entry, /** @type {number} */ i) => {
    const name = String(entry.name ?? i), first = entry.reuses === undefined ? entry : found[entry.reuses];
    const owner = entry.reuses === undefined ? name : first.owner;
    found[name] = { ...first, name, owner, inputs: entry.inputs ?? [previous] };
    previous = name;
    return found[name];
  });
}

/** The name under which a parameter is kept, and how this layer sees it where that is not as it is.
 *  @param {Example} example @param {string} owner @param {string} attribute @returns {{name: string, view: Record<string, any>[]}} */
export function weightOf(example, owner, attribute) {
  const own = `${owner}.${attribute}`, tied = example.ties?.[own] ?? own;
  return typeof tied === "string" ? { name: tied, view: [] } : { name: tied.parameter, view: tied.view };
}

/** Which of a weight's private copies a use takes. @param {Slot} slot @param {number} use */
export function copyOf({ call, offset, own }, use) {
  return offset + (own ? 0 : call.uses[use].place);
}

/** @param {Slot} slot @param {number} use @param {number} entry */
function weightValue(slot, use, entry) {
  const { copies, value } = slot.weight;
  return copies ? copies[copyOf(slot, use) * value.data.length + entry] : value.data[entry];
}

/** The numbers that link i multiplies. @param {Call} call @param {number} i */
export function parts({ links, sources, slots }, i) {
  const [source, cell, slot] = [links.source[i], links.cell[i], links.slot[i]];
  return {
    x: source === ONE ? 1 : cell === PADDING ? 0 : sources[source].data[cell],
    w: slot === NO_WEIGHT ? 1 : weightValue(slots[slot], links.use[i], links.entry[i]),
    factor: links.factor[i],
  };
}

/** Adds the products of links from … to before … to y. @param {Call} call @param {Tensor} y */
function addProducts(call, y, from = 0, before = call.links.count) {
  for (let i = from; i < before; i++) {
    const { x, w, factor } = parts(call, i);
    y.data[call.links.out[i]] += factor * x * w;
  }
}

/** @param {Call} call */
function forward(call) {
  const layer = LAYERS[call.kind], [x] = call.sources, batch = x.shape[0];
  if (layer.forward) return layer.forward(call.config, x);
  if (call.kind === "RNN") return recur(call);
  const y = zeros([batch, ...layer.output(call.config, call.sources.map((source) => source.shape.slice(1)))]);
  addProducts(call, y);
  return y;
}

/** The states of an RNN, step after step; fills in the states before each step, its second source. @param {Call} call */
function recur(call) {
  const [N, T] = call.sources[0].shape, H = call.config.hidden_size, h = zeros([N, T, H]);
  call.sources.push(zeros([N, T, H]));
  for (let use = call.uses.length - 1; use >= 0; use--) {
    const { sample, place } = call.uses[use], first = (sample * T + place) * H;
    addProducts(call, h, call.links.start[use], call.links.start[use + 1]);
    for (let i = first; i < first + H; i++) {
      h.data[i] = Math.tanh(h.data[i]);
      if (place + 1 < T) call.sources[1].data[i + H] = h.data[i];
    }
  }
  return h;
}

/** What `last` leaves of all states. @param {Tensor} h @returns {Tensor} */
function lastState({ shape: [N, T, H], data }) {
  return { shape: [N, H], data: Float64Array.from({ length: N * H }, (_, i) => data[(Math.floor(i / H) * T + T - 1) * H + (i % H)]) };
}

/** The gradient at a = W_ih·x + W_hh·h + b, going back through time. @param {Call} call @param {Tensor} dy @param {Tensor} h */
function backThroughTime(call, dy, h) {
  const [N, T, H] = h.shape, delta = zeros(h.shape), dh = zeros(h.shape), { links } = call;
  for (let i = 0; i < h.data.length; i++) {
    const t = Math.floor(i / H) % T, n = Math.floor(i / (H * T));
    if (!call.config.last) dh.data[i] = dy.data[i];
    else if (t === T - 1) dh.data[i] = dy.data[n * H + (i % H)];
  }
  for (let use = 0; use < call.uses.length; use++) {
    const first = (call.uses[use].sample * T + call.uses[use].place) * H;
    for (let i = first; i < first + H; i++) delta.data[i] = dh.data[i] * (1 - h.data[i] ** 2);
    for (let i = links.start[use]; i < links.start[use + 1]; i++) {
      // a state before step t is the state of step t − 1, one row earlier; before the first step there is none
      if (links.source[i] === 1 && call.uses[use].place > 0) dh.data[links.cell[i] - H] += delta.data[links.out[i]] * parts(call, i).w;
    }
  }
  return delta;
}

/** The sums over some of a call's uses: for its inputs, and for its parameters.
 *  @param {Call} call @returns {{sources: Tensor[], weights: Tensor[]}} */
export function sums(call, from = 0, before = call.uses.length) {
  const sources = call.sources.map((source) => zeros(source.shape));
  const weights = call.slots.map(({ weight }) => zeros(weight.value.shape));
  const { links } = call;
  for (let i = links.start[from]; i < links.start[before]; i++) {
    const { x, w, factor } = parts(call, i), delta = factor * call.delta.data[links.out[i]];
    if (links.source[i] !== ONE && links.cell[i] !== PADDING) sources[links.source[i]].data[links.cell[i]] += delta * w;
    if (links.slot[i] !== NO_WEIGHT) weights[links.slot[i]].data[links.entry[i]] += delta * x;
  }
  return { sources, weights };
}

/** Runs the network. @param {Example} example @param {Record<string, Float64Array>} copies of weights that are un-shared
 *  @returns {Evaluation} */
export function evaluate(example, copies = {}) {
  const { x, weights: given, upstream = {}, loss: losses = [] } = example.numbers;
  /** @type {Record<string, Tensor>} */ const values = {};
  for (const name of Object.keys(x)) values[name] = tensor(x[name]);
  /** @type {Record<string, Weight>} */ const weights = {};
  const calls = nodes(example).map((node) => {
    const call = prepare(example, node, node.inputs.map((name) => values[name]), given, weights, copies);
    const h = forward(call);
    call.y = call.kind === "RNN" && node.last ? lastState(h) : h;
    call.delta = h; // held here until the way back replaces it
    values[node.name] = call.y;
    return call;
  });
  const seeds = losses.map((/** @type {any} */ config) => ({ ...loss(config, values[config.node], tensor(config.target)), node: config.node }));
  /** @type {Record<string, Tensor>} */ const dy = {};
  for (const name of Object.keys(values)) dy[name] = zeros(values[name].shape);
  for (const name of Object.keys(upstream)) {
    const start = tensor(upstream[name]);
    if (!same(start.shape, dy[name].shape)) throw new EntryError(`upstream of ${name}: its shape does not fit the output`);
    add(dy[name], start);
  }
  for (const seed of seeds) add(dy[seed.node], seed.gradient);
  for (const call of [...calls].reverse()) backward(call, dy);
  return { values, calls, weights, upstream: dy, losses: seeds, batch: Object.values(values)[0].shape[0] };
}

/** A call with its links, before it is computed.
 *  @param {Example} example @param {ReturnType<typeof nodes>[0]} node @param {Tensor[]} xs @param {Record<string, any>} given
 *  @param {Record<string, Weight>} weights @param {Record<string, Float64Array>} copies @returns {Call} */
function prepare(example, node, xs, given, weights, copies) {
  const layer = LAYERS[node.layer], shapes = xs.map((x) => x.shape.slice(1)), list = layer.links(node, xs);
  const places = layer.places(node, shapes);
  /** @type {Call} */ const call = {
    name: node.name, config: node, kind: node.layer, inputs: node.inputs, sources: [...xs], y: xs[0], links: list.done(),
    uses: list.uses, places, slots: [], direct: !layer.forward && node.layer !== "RNN", delta: xs[0], dsources: [], off: layer.off ?? "",
    geometry: layer.geometry?.(node) ?? null, given: node.inputs.map((name) => name in example.numbers.x), single: example.nodes.length === 1,
    alone: Object.keys(example.numbers.x).length === 1,
  };
  call.slots = Object.keys(layer.parameters(node, shapes)).map((attribute, slot) => {
    const { name, view } = weightOf(example, node.owner, attribute);
    weights[name] ??= { name, value: tensor(given[name]), copies: copies[name] ?? null, count: 0, uses: 0, slots: [] };
    const weight = weights[name], own = node.layer.startsWith("Locally");
    const entry = { call, slot, attribute, weight, offset: weight.count, own, gradient: weight.value };
    if (view.length) {
      const { cells } = seen(weight.value.shape, view);
      call.links.slot.forEach((at, i) => at === slot && (call.links.entry[i] = cells[call.links.entry[i]]));
    }
    // a locally connected weight has its position inside: for one sample it is used once
    weight.count += own ? 1 : size(places.shape);
    weight.uses += own ? xs[0].shape[0] : list.uses.length;
    weight.slots.push(entry);
    return entry;
  });
  return call;
}

/** @param {Call} call @param {Record<string, Tensor>} dy */
function backward(call, dy) {
  call.delta = call.kind === "RNN" ? backThroughTime(call, dy[call.name], call.delta) : dy[call.name];
  const { sources, weights } = sums(call);
  call.dsources = sources;
  call.slots.forEach((slot, i) => (slot.gradient = weights[i]));
  call.inputs.forEach((name, i) => add(dy[name], sources[i]));
}
