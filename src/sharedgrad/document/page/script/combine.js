// One weight, many uses: the sum, and what other people have tried instead.

import { NO_WEIGHT } from "./links.js";
import { copyOf, parts } from "./network.js";
import { add, map, zeros } from "./tensor.js";

/** @typedef {import("./tensor.js").Tensor} Tensor */
/** @typedef {import("./network.js").Weight} Weight */
/** @typedef {import("./network.js").Slot} Slot */
/** @typedef {"sum" | "mean" | "last" | "unshared"} Mode */

/** @type {Record<Mode, {label: string, says: string}>} */
export const MODES = {
  sum: { label: "Sum", says: "The gradient of a shared weight: all contributions added." },
  mean: { label: "Mean", says: "The sum divided by the number of places. The direction within one weight stays, its length does not; the divisor differs from layer to layer." },
  last: { label: "Last use only", says: "A frequent bug: each use overwrites what the one before has written (= instead of +=)." },
  unshared: { label: "Un-shared", says: "A private copy of the weight for every place, each with its own gradient. After an update the copies differ." },
};

/** Calls fn for each term of a weight's gradient, in the order of going backward: the last call first.
 *  @param {Weight} weight @param {(slot: Slot, link: number, value: number) => void} fn */
export function eachTerm(weight, fn) {
  for (const slot of [...weight.slots].reverse()) {
    const { links, delta } = slot.call;
    for (let i = 0; i < links.count; i++) {
      if (links.slot[i] !== slot.slot || links.slot[i] === NO_WEIGHT) continue;
      const { x, factor } = parts(slot.call, i);
      fn(slot, i, factor * delta.data[links.out[i]] * x);
    }
  }
}

/** The gradient of every private copy, (count, *shape). @param {Weight} weight @returns {Tensor} */
export function privateGradients(weight) {
  const cells = weight.value.data.length, result = zeros([weight.count, ...weight.value.shape]);
  eachTerm(weight, (slot, link, value) => {
    const { use, entry } = slot.call.links;
    result.data[copyOf(slot, use[link]) * cells + entry[link]] += value;
  });
  return result;
}

/** The one gradient that a mode makes of all contributions. @param {Weight} weight @param {Mode} mode @returns {Tensor} */
export function combined(weight, mode) {
  const total = zeros(weight.value.shape);
  if (mode === "last") {
    eachTerm(weight, (slot, link, value) => {
      total.data[slot.call.links.entry[link]] = value; // what the next use overwrites
    });
    return total;
  }
  for (const slot of weight.slots) add(total, slot.gradient);
  return mode === "mean" ? map(total, (value) => value / weight.count) : total;
}

/** The mean of the private copies, which is how they are tied again. @param {Weight} weight @returns {Tensor} */
export function tied(weight) {
  const { copies, count, value } = weight;
  if (!copies) return value;
  const cells = value.data.length;
  return map(value, (_, i) => {
    let total = 0;
    for (let place = 0; place < count; place++) total += copies[place * cells + i];
    return total / count;
  });
}
