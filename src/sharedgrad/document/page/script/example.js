// The example that the page shows, and what the reader does to it: a list of actions, from which it is made again.

import { combined, privateGradients, tied } from "./combine.js";
import { EntryError } from "./geometry.js";
import { LAYERS } from "./layers.js";
import { targetShape } from "./losses.js";
import { evaluate, nodes, weightOf } from "./network.js";
import { nested, resized, same, shapeOf, tensor } from "./tensor.js";
import { seen } from "./views.js";

/** @typedef {import("./network.js").Example} Example */
/** @typedef {import("./network.js").Evaluation} Evaluation */
/** @typedef {import("./combine.js").Mode} Mode */
/** @typedef {["x" | "weights" | "upstream" | "target", string, number[], number]
 *   | ["argument", string, string, any] | ["learning_rate", number] | ["update", Mode]} Action
 * A number in an array (of the input, weight or node of that name; of the loss at that place in the list), an argument of a
 * node's layer, the learning rate, or one step of the update. */
/** @typedef {{example: Example, evaluation: Evaluation, copies: Record<string, Float64Array>}} State */

/** Arguments of layers that the reader can change. @type {Record<string, string[]>} */
const ARGUMENTS = {
  Conv: ["stride", "padding", "dilation", "groups", "padding_mode"],
  LocallyConnected: ["stride", "padding", "dilation", "padding_mode"],
  MaxPool: ["kernel_size", "stride", "padding", "ties"],
  AvgPool: ["kernel_size", "stride", "padding", "count_include_pad"],
};

/** Values to choose from; the others are whole numbers, or one for each axis. @type {Record<string, any[]>} */
export const CHOICES = {
  padding_mode: ["zeros", "reflect", "replicate", "circular"],
  ties: ["first", "last", "share"],
  count_include_pad: [true, false],
};

/** @param {string} kind of a layer, e.g. "Conv2d" */
export function editableArguments(kind) {
  return ARGUMENTS[kind.replace(/[123]d$/, "")] ?? [];
}

/** What an argument is where a configuration does not say. @param {Record<string, any>} config @param {string} argument */
export function argumentOf(config, argument) {
  const defaults = { padding: 0, dilation: 1, groups: 1, padding_mode: "zeros", ties: "first", count_include_pad: true };
  const stride = /Pool/.test(config.layer) ? config.kernel_size : 1;
  return config[argument] ?? { ...defaults, stride }[argument];
}

/** @param {any} array @param {number[]} index @param {number} value @returns {any} the same with one number changed */
function replaced(array, index, value) {
  if (!index.length) return value;
  return array.map((/** @type {any} */ item, /** @type {number} */ i) => (i === index[0] ? replaced(item, index.slice(1), value) : item));
}

/** Gives every array the shape that the network asks for, after an argument has changed: cells keep their index, new ones
 *  are 0, and a dense layer takes as many features as come. @param {Example} example @returns {Example} */
export function fitted(example) {
  const numbers = { ...example.numbers, weights: { ...example.numbers.weights } }, given = nodes(example);
  /** @type {Record<string, number[]>} */ const shapes = {}, asked = /** @type {typeof shapes} */ ({});
  for (const name of Object.keys(numbers.x)) shapes[name] = tensor(numbers.x[name]).shape;
  const fit = (/** @type {any} */ array, /** @type {number[]} */ shape) =>
    same(tensor(array).shape, shape) ? array : nested(resized(tensor(array), shape));
  const entries = given.map((node, i) => {
    const ins = node.inputs.map((name) => shapes[name].slice(1)), layer = LAYERS[node.layer];
    const config = node.layer === "Linear" ? { ...node, in_features: ins[0][ins[0].length - 1] } : node;
    shapes[node.name] = [shapes[node.inputs[0]][0], ...layer.output(config, ins)];
    for (const [attribute, shape] of Object.entries(layer.parameters(config, ins))) {
      const { name, view } = weightOf(example, node.owner, attribute);
      if (view.length && !same(seen(shapeOf(numbers.weights[name]), view).shape, shape)) {
        throw new EntryError(`${node.name} sees a part of ${name}, and would need it as ${shape.join("×")}`);
      }
      if (view.length) continue;
      if (!same((asked[name] ??= shape), shape)) {
        throw new EntryError(`${name} is shared, and ${node.name} would need it as ${shape.join("×")} where others need ${asked[name].join("×")}`);
      }
      numbers.weights[name] = fit(numbers.weights[name], shape);
    }
    const entry = example.nodes[i];
    return node.layer === "Linear" && entry.reuses === undefined ? { ...entry, in_features: config.in_features } : entry;
  });
  if (numbers.upstream) {
    numbers.upstream = Object.fromEntries(Object.entries(numbers.upstream).map(([name, array]) => [name, fit(array, shapes[name])]));
  }
  if (numbers.loss) {
    numbers.loss = numbers.loss.map((/** @type {any} */ entry) => ({ ...entry, target: fit(entry.target, targetShape(entry, shapes[entry.node])) }));
  }
  return { ...example, nodes: entries, numbers };
}

/** One step: every weight minus the learning rate times what the mode makes of its contributions.
 *  @param {State} state @param {Mode} mode @returns {State} */
function updated({ example, evaluation, copies }, mode) {
  const rate = example.numbers.learning_rate ?? 0, weights = { ...example.numbers.weights };
  /** @type {Record<string, Float64Array>} */ const apart = {};
  for (const weight of Object.values(evaluation.weights)) {
    if (mode === "unshared" && weight.count > 1) {
      const before = copies[weight.name], { data } = weight.value;
      const step = privateGradients(weight).data;
      apart[weight.name] = step.map((g, i) => (before ? before[i] : data[i % data.length]) - rate * g);
    } else {
      const start = tied(weight), gradient = combined(weight, mode === "unshared" ? "sum" : mode);
      weights[weight.name] = nested({ ...start, data: start.data.map((w, i) => w - rate * gradient.data[i]) });
    }
  }
  return settled({ ...example, numbers: { ...example.numbers, weights } }, apart);
}

/** @param {Example} example @param {Record<string, Float64Array>} copies @returns {State} */
function settled(example, copies = {}) {
  return { example, copies, evaluation: evaluate(example, copies) };
}

/** The private copies set to their mean, where there are any. @param {State} state @returns {State} */
function retied(state) {
  if (!Object.keys(state.copies).length) return state;
  const weights = { ...state.example.numbers.weights };
  for (const name of Object.keys(state.copies)) weights[name] = nested(tied(state.evaluation.weights[name]));
  return settled({ ...state.example, numbers: { ...state.example.numbers, weights } });
}

/** @param {Example} example @param {Action} action @returns {Example} */
function changed(example, action) {
  const numbers = example.numbers;
  if (action[0] === "learning_rate") return { ...example, numbers: { ...numbers, learning_rate: action[1] } };
  if (action[0] === "argument") {
    const [, name, argument, value] = action, owner = nodes(example).find((node) => node.name === name)?.owner;
    const entries = nodes(example).map((node, i) => (node.name === owner ? { ...example.nodes[i], [argument]: value } : example.nodes[i]));
    return fitted({ ...example, nodes: entries });
  }
  const [where, name, index, value] = /** @type {[string, string, number[], number]} */ (action);
  if (where === "target") {
    const losses = numbers.loss.map((/** @type {any} */ entry, /** @type {number} */ i) =>
      String(i) === name ? { ...entry, target: replaced(entry.target, index, value) } : entry,
    );
    return { ...example, numbers: { ...numbers, loss: losses } };
  }
  return { ...example, numbers: { ...numbers, [where]: { ...numbers[where], [name]: replaced(numbers[where][name], index, value) } } };
}

/** @param {Example} example @returns {State} */
export function start(example) {
  return settled(example);
}

/** The state after an action. Throws an EntryError, in words for the reader, where it makes no sense.
 *  @param {State} state @param {Action} action @returns {State} */
export function act(state, action) {
  if (action[0] === "update") {
    return updated(action[1] === "unshared" ? state : retied(state), action[1]);
  }
  const copies = action[0] === "argument" || action[0] === "weights" ? {} : state.copies;
  const before = copies === state.copies ? state : retied(state);
  const next = settled(changed(before.example, action), copies);
  const numbers = [...Object.values(next.evaluation.values), ...Object.values(next.evaluation.upstream)];
  if (numbers.some(({ data }) => data.some((value) => !Number.isFinite(value)))) {
    throw new EntryError("with this number the network's values are no longer finite");
  }
  return next;
}

/** Actions without those that a later one makes unnecessary: a number set again before anything else has happened to it.
 *  @param {Action[]} actions @param {Action} action @returns {Action[]} */
export function appended(actions, action) {
  const last = actions[actions.length - 1];
  const place = (/** @type {Action} */ a) => JSON.stringify(a.slice(0, -1));
  return last && action[0] !== "update" && place(last) === place(action) ? [...actions.slice(0, -1), action] : [...actions, action];
}
