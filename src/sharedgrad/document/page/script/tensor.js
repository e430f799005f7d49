// Arrays with a shape, in row-major order, in double precision: all that the page computes with.

/** @typedef {{shape: number[], data: Float64Array}} Tensor */
/** @typedef {number | any[]} Nested numbers, or lists of lists of numbers */

/** @param {number[]} shape */
export function size(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

/** @param {number[]} shape @returns {Tensor} */
export function zeros(shape) {
  return { shape, data: new Float64Array(size(shape)) };
}

/** @param {Nested} nested @returns {number[]} */
export function shapeOf(nested) {
  return Array.isArray(nested) ? [nested.length, ...(nested.length ? shapeOf(nested[0]) : [])] : [];
}

/** @param {Nested} nested @returns {Tensor} */
export function tensor(nested) {
  const shape = shapeOf(nested);
  return { shape, data: Float64Array.from(/** @type {number[]} */ ([nested].flat(Infinity))) };
}

/** @param {Tensor} t @returns {Nested} */
export function nested({ shape, data }) {
  let items = /** @type {Nested[]} */ (Array.from(data));
  for (const length of shape.slice(1).reverse()) {
    const rows = [];
    for (let i = 0; i < items.length; i += length) rows.push(items.slice(i, i + length));
    items = rows;
  }
  return shape.length ? items : items[0];
}

/** The flat place of an index. @param {number[]} index @param {number[]} shape */
export function ravel(index, shape) {
  return index.reduce((flat, i, axis) => flat * shape[axis] + i, 0);
}

/** The index of a flat place. @param {number} flat @param {number[]} shape @returns {number[]} */
export function unravel(flat, shape) {
  const index = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return index;
}

/** Every index of an array, in row-major order. @param {number[]} shape @returns {number[][]} */
export function indices(shape) {
  return Array.from({ length: size(shape) }, (_, flat) => unravel(flat, shape));
}

/** The same cells in another shape: what no longer has a place is left out, what is new is 0.
 *  @param {Tensor} t @param {number[]} shape @returns {Tensor} */
export function resized(t, shape) {
  const result = zeros(shape);
  if (t.shape.length !== shape.length) {
    result.data.set(t.data.subarray(0, result.data.length));
    return result;
  }
  indices(shape).forEach((index, flat) => {
    if (index.every((i, axis) => i < t.shape[axis])) result.data[flat] = t.data[ravel(index, t.shape)];
  });
  return result;
}

/** @param {number[]} a @param {number[]} b */
export function same(a, b) {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** Adds b to a, in place. @param {Tensor} a @param {Tensor} b */
export function add(a, b) {
  b.data.forEach((value, i) => (a.data[i] += value));
}

/** @param {Tensor} t @param {(value: number, flat: number) => number} f @returns {Tensor} */
export function map(t, f) {
  return { shape: t.shape, data: t.data.map(f) };
}

/** The whole numbers from one to before another. @param {number} from @param {number} before */
export function range(from, before) {
  return Array.from({ length: before - from }, (_, i) => from + i);
}
