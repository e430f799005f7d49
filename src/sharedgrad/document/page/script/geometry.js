// How a window slides; the same arithmetic as sharedgrad/geometry.py:
// output position o and kernel offset k meet at input index o·stride − before + k·dilation.

import { indices } from "./tensor.js";

/** @typedef {{kernel: number[], stride: number[], padding: number[][], dilation: number[], mode: string}} Geometry */

/** A problem with what the reader has entered, in words for the reader. */
export class EntryError extends Error {}

/** One whole number for each axis. @param {any} value @param {number} rank @param {string} what @param {number} least */
function perAxis(value, rank, what, least) {
  const values = Array.isArray(value) ? value : new Array(rank).fill(value);
  if (values.length !== rank || !values.every((v) => Number.isInteger(v) && v >= least)) {
    throw new EntryError(`${what}: expected a whole number of at least ${least}, or ${rank} of them`);
  }
  return values;
}

/** (before, after) for each axis. @param {any} value @param {number} rank @param {number[]} extents @param {number[]} stride */
function pairs(value, rank, extents, stride) {
  if (value === "valid") return extents.map(() => [0, 0]);
  if (value === "same") {
    if (stride.some((s) => s !== 1)) throw new EntryError("padding: 'same' needs stride 1");
    return extents.map((extent) => [Math.floor(extent / 2), Math.ceil(extent / 2)]);
  }
  if (Array.isArray(value) && value.some(Array.isArray)) {
    if (value.length !== rank) throw new EntryError(`padding: expected ${rank} pairs`);
    return value.map((pair) => (Array.isArray(pair) ? perAxis(pair, 2, "padding", 0) : [pair, pair]));
  }
  return perAxis(value, rank, "padding", 0).map((p) => [p, p]);
}

/** @param {Record<string, any>} config a layer's arguments @param {number} rank @param {boolean} pool @returns {Geometry} */
export function geometry(config, rank, pool) {
  const kernel = perAxis(config.kernel_size, rank, "kernel_size", 1);
  const stride = perAxis(config.stride ?? (pool ? kernel : 1), rank, "stride", 1);
  const dilation = perAxis(config.dilation ?? 1, rank, "dilation", 1);
  const extents = kernel.map((k, axis) => dilation[axis] * (k - 1));
  const padding = pairs(config.padding ?? 0, rank, extents, stride);
  if (pool && padding.some((pair, axis) => Math.max(...pair) >= kernel[axis])) {
    throw new EntryError("padding: a pooling window must not lie in the padding alone");
  }
  return { kernel, stride, padding, dilation, mode: config.padding_mode ?? "zeros" };
}

/** The number of positions along each axis. @param {Geometry} g @param {number[]} spatial */
export function positions(g, spatial) {
  return spatial.map((length, axis) => {
    const [before, after] = g.padding[axis];
    const window = g.dilation[axis] * (g.kernel[axis] - 1) + 1;
    const least = { reflect: Math.max(before, after) + 1, circular: Math.max(before, after) }[g.mode] ?? 0;
    if (length < least) throw new EntryError(`padding: ${g.mode} padding needs at least ${least} cells, there are ${length}`);
    if (length + before + after < window) {
      throw new EntryError(`a window of ${window} does not fit into a padded length of ${length + before + after}`);
    }
    return Math.floor((length + before + after - window) / g.stride[axis]) + 1;
  });
}

/** The cell that index i of an axis of n cells reads; -1 where it reads the zero of the padding.
 *  @param {number} i @param {number} n @param {string} mode */
function source(i, n, mode) {
  if (i >= 0 && i < n) return i;
  if (mode === "circular") return ((i % n) + n) % n;
  if (mode === "replicate") return Math.min(Math.max(i, 0), n - 1);
  if (mode === "reflect") return i < 0 ? -i : 2 * (n - 1) - i;
  return -1;
}

/** For each position, the input cell (flat, -1 in the padding) under each kernel offset.
 *  @param {Geometry} g @param {number[]} spatial @returns {Int32Array[]} */
export function windows(g, spatial) {
  const offsets = indices(g.kernel);
  return indices(positions(g, spatial)).map((position) =>
    Int32Array.from(offsets, (offset) => {
      let flat = 0;
      for (let axis = 0; axis < spatial.length; axis++) {
        const i = position[axis] * g.stride[axis] - g.padding[axis][0] + offset[axis] * g.dilation[axis];
        const cell = source(i, spatial[axis], g.mode);
        if (cell < 0) return -1;
        flat = flat * spatial[axis] + cell;
      }
      return flat;
    }),
  );
}
