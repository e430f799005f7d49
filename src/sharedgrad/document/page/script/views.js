// How one layer sees a weight that is another's: transposed, sliced or reshaped, as the "ties" of a configuration say.

import { indices, ravel, size } from "./tensor.js";

/** @typedef {{shape: number[], cells: Int32Array}} Seen which cell of the weight stands at each place of what is seen */

/** @param {number[]} shape of the weight @param {Record<string, any>[]} steps @returns {Seen} */
export function seen(shape, steps) {
  /** @type {Seen} */ let found = { shape, cells: Int32Array.from({ length: size(shape) }, (_, i) => i) };
  for (const { transpose, slice, reshape } of steps) {
    found = transpose ? transposed(found, transpose) : slice ? sliced(found, slice) : { ...found, shape: reshape };
  }
  return found;
}

/** @param {Seen} before @param {number[]} axes @returns {Seen} */
function transposed({ shape, cells }, axes) {
  const next = axes.map((axis) => shape[axis]);
  const from = (/** @type {number[]} */ index) => axes.reduce((/** @type {number[]} */ old, axis, i) => ((old[axis] = index[i]), old), []);
  return { shape: next, cells: Int32Array.from(indices(next), (index) => cells[ravel(from(index), shape)]) };
}

/** @param {Seen} before @param {(number | number[])[]} parts a cell, or [first, end, step], of each axis @returns {Seen} */
function sliced({ shape, cells }, parts) {
  const ranges = parts.filter(Array.isArray), next = ranges.map(([first, end, step]) => Math.ceil((end - first) / step));
  const from = (/** @type {number[]} */ index) => {
    let at = 0;
    return parts.map((part) => (Array.isArray(part) ? part[0] + index[at++] * part[2] : part));
  };
  return { shape: next, cells: Int32Array.from(indices(next), (index) => cells[ravel(from(index), shape)]) };
}
