// The one idea: a layer is a list of links. A link is one multiplication of the forward pass,
//
//     y[out] += factor · x[cell] · w[entry]
//
// and the same link, read from its other ends, is one term of each gradient:
//
//     dw[entry] += factor · dy[out] · x[cell]            dx[cell] += factor · dy[out] · w[entry]
//
// Links are kept in the order of their uses: one use is one place of the window (or one time step, or one token).

/** @typedef {import("./tensor.js").Tensor} Tensor */
/** @typedef {{
 *   count: number, start: Int32Array, out: Int32Array, source: Uint8Array, cell: Int32Array,
 *   slot: Uint8Array, entry: Int32Array, factor: Float64Array, use: Int32Array,
 * }} Links
 * start[u] is the first link of use u; source says which input array is read, slot which parameter. */
/** @typedef {{sample: number, place: number}} Use */

/** The value read in the padding is 0 and has no gradient. */
export const PADDING = -1;
/** A bias is multiplied by 1, which is no input: the source of its links. */
export const ONE = 255;
/** A link without a weight is multiplied by its factor alone: the slot of such links. */
export const NO_WEIGHT = 255;

export class LinkList {
  constructor() {
    /** @type {Use[]} */ this.uses = [];
    /** @type {number[]} */ this.start = [];
    /** @type {number[][]} */ this.rows = [];
  }

  /** Begins the next use. @param {number} sample @param {number} place */
  use(sample, place) {
    this.uses.push({ sample, place });
    this.start.push(this.rows.length);
  }

  /** @param {number} out @param {number} source @param {number} cell @param {number} slot @param {number} entry */
  add(out, source, cell, slot, entry, factor = 1) {
    this.rows.push([out, source, cell, slot, entry, factor, this.uses.length - 1]);
  }

  /** @returns {Links} */
  done() {
    const column = (/** @type {number} */ i) => this.rows.map((row) => row[i]);
    return {
      count: this.rows.length,
      start: Int32Array.from([...this.start, this.rows.length]),
      out: Int32Array.from(column(0)),
      source: Uint8Array.from(column(1)),
      cell: Int32Array.from(column(2)),
      slot: Uint8Array.from(column(3)),
      entry: Int32Array.from(column(4)),
      factor: Float64Array.from(column(5)),
      use: Int32Array.from(column(6)),
    };
  }
}
