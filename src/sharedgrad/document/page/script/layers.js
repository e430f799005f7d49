// What each layer links with what. Configurations, names and conventions are those of sharedgrad/layers/.

import { geometry, windows, positions, EntryError } from "./geometry.js";
import { LinkList, NO_WEIGHT, ONE, PADDING } from "./links.js";
import { map, same, size, zeros } from "./tensor.js";

/** @typedef {import("./tensor.js").Tensor} Tensor */
/** @typedef {Record<string, any>} Config a node of the network's configuration */
/** @typedef {{
 *   parameters: (config: Config, shapes: number[][]) => Record<string, number[]>,
 *   output: (config: Config, shapes: number[][]) => number[],
 *   links: (config: Config, xs: Tensor[]) => LinkList,
 *   forward?: (config: Config, x: Tensor) => Tensor,
 *   places: (config: Config, shapes: number[][]) => {name: string, shape: number[]},
 *   off?: string,
 *   geometry?: (config: Config) => import("./geometry.js").Geometry,
 * }} Layer
 * Shapes are without the sample axis. `forward` stands for layers whose output is no sum of products; their links
 * carry the local derivative as factor. `off` says in words what a factor of 0 means. */

const none = () => ({});
/** @param {Config} config @param {Record<string, number[]>} weights @param {Record<string, number[]>} biases @returns {Record<string, number[]>} */
const shapesOf = (config, weights, biases) => (config.bias === false ? weights : { ...weights, ...biases });
/** @param {Config} _ @param {number[][]} shapes */
const sameShape = (_, [shape]) => shape;
/** @param {Config} _ @param {number[][]} shapes */
const eachCell = (_, [shape]) => ({ name: "cell", shape });

// ---- layers with a window

/** @param {Config} config @param {number} rank */
function slide(config, rank) {
  const groups = config.groups ?? 1;
  if (config.in_channels % groups || config.out_channels % groups) {
    throw new EntryError(`groups: ${groups} does not divide ${config.in_channels} input and ${config.out_channels} output channels`);
  }
  return { g: geometry(config, rank, false), groups };
}

/** Convolutions, and their twins with a kernel for every position. @param {number} rank @param {boolean} own @returns {Layer} */
function convolution(rank, own) {
  return {
    geometry: (config) => geometry(config, rank, false),
    parameters(config, [shape]) {
      const { g, groups } = slide(config, rank);
      const kernel = [config.out_channels, config.in_channels / groups, ...g.kernel];
      const places = own ? positions(g, shape.slice(1)) : [];
      return shapesOf(config, { weight: [...places, ...kernel] }, { bias: [config.out_channels, ...places] });
    },
    output: (config, [shape]) => [config.out_channels, ...positions(slide(config, rank).g, shape.slice(1))],
    places(config, [shape]) {
      const shared = positions(slide(config, rank).g, shape.slice(1));
      return { name: "position", shape: shared };
    },
    links(config, [x]) {
      const { g, groups } = slide(config, rank);
      const [samples, channels, ...spatial] = x.shape;
      const reads = windows(g, spatial), filters = config.out_channels;
      const [depth, cells, area] = [channels / groups, size(g.kernel), size(spatial)];
      const list = new LinkList();
      for (let n = 0; n < samples; n++) {
        for (let p = 0; p < reads.length; p++) {
          list.use(n, p);
          for (let f = 0; f < filters; f++) {
            const out = (n * filters + f) * reads.length + p, first = Math.floor((f * groups) / filters) * depth;
            for (let c = 0; c < depth; c++) {
              for (let k = 0; k < cells; k++) {
                const entry = ((own ? p * filters + f : f) * depth + c) * cells + k, at = reads[p][k];
                list.add(out, 0, at < 0 ? PADDING : (n * channels + first + c) * area + at, 0, entry);
              }
            }
            if (config.bias !== false) list.add(out, ONE, 0, 1, own ? f * reads.length + p : f);
          }
        }
      }
      return list;
    },
  };
}

/** @param {number} rank @param {"max" | "average"} kind @returns {Layer} */
function pooling(rank, kind) {
  return {
    geometry: (config) => geometry(config, rank, true),
    parameters: none,
    output: (config, [shape]) => [shape[0], ...positions(geometry(config, rank, true), shape.slice(1))],
    places: (config, [shape]) => ({ name: "position", shape: positions(geometry(config, rank, true), shape.slice(1)) }),
    off: "not the largest of its window",
    links(config, [x]) {
      const [samples, channels, ...spatial] = x.shape;
      const reads = windows(geometry(config, rank, true), spatial), area = size(spatial);
      const list = new LinkList();
      for (let n = 0; n < samples; n++) {
        for (let p = 0; p < reads.length; p++) {
          list.use(n, p);
          for (let c = 0; c < channels; c++) {
            const cells = Array.from(reads[p], (at) => (at < 0 ? PADDING : (n * channels + c) * area + at));
            const factors = kind === "max" ? winners(cells, x, config.ties) : shares(cells, config.count_include_pad);
            cells.forEach((cell, k) => {
              if (cell !== PADDING || factors[k]) list.add((n * channels + c) * reads.length + p, 0, cell, NO_WEIGHT, 0, factors[k]);
            });
          }
        }
      }
      return list;
    },
  };
}

/** Who gets a max pooling window's gradient. @param {number[]} cells @param {Tensor} x @param {string} [ties] */
function winners(cells, x, ties = "first") {
  const values = cells.map((cell) => (cell === PADDING ? -Infinity : x.data[cell])), largest = Math.max(...values);
  const winning = values.flatMap((value, k) => (value === largest && cells[k] !== PADDING ? [k] : []));
  const chosen = ties === "share" ? winning : [ties === "last" ? winning[winning.length - 1] : winning[0]];
  return cells.map((_, k) => (chosen.includes(k) ? 1 / chosen.length : 0));
}

/** @param {number[]} cells @param {boolean} [countPadding] */
function shares(cells, countPadding = true) {
  const count = countPadding ? cells.length : cells.filter((cell) => cell !== PADDING).length;
  return cells.map((cell) => (cell === PADDING && !countPadding ? 0 : 1 / count));
}

// ---- layers without a window

/** @type {Layer} */
const linear = {
  parameters: (config) => shapesOf(config, { weight: [config.out_features, config.in_features] }, { bias: [config.out_features] }),
  output: (config, [shape]) => [...shape.slice(0, -1), config.out_features],
  places: (_, [shape]) => ({ name: "token", shape: shape.slice(0, -1) }),
  links(config, [x]) {
    const [I, O] = [config.in_features, config.out_features], tokens = size(x.shape.slice(1, -1)), list = new LinkList();
    for (let row = 0; row < x.data.length / I; row++) {
      list.use(Math.floor(row / tokens), row % tokens);
      for (let o = 0; o < O; o++) {
        for (let i = 0; i < I; i++) list.add(row * O + o, 0, row * I + i, 0, o * I + i);
        if (config.bias !== false) list.add(row * O + o, ONE, 0, 1, o);
      }
    }
    return list;
  },
};

/** The states of a simple recurrent layer; its links make a = W_ih·x + W_hh·h + b, of which it takes the tanh.
 *  Source 0 is x, source 1 the states before. @type {Layer} */
const rnn = {
  parameters(config) {
    const [I, H] = [config.input_size, config.hidden_size];
    return shapesOf(config, { weight_ih_l0: [H, I], weight_hh_l0: [H, H] }, { bias_ih_l0: [H], bias_hh_l0: [H] });
  },
  output: (config, [[T]]) => (config.last ? [config.hidden_size] : [T, config.hidden_size]),
  places: (_, [[T]]) => ({ name: "time step", shape: [T] }),
  links(config, [x]) {
    const [N, T, I] = x.shape, H = config.hidden_size, list = new LinkList();
    for (let n = 0; n < N; n++) {
      for (let t = T - 1; t >= 0; t--) {
        const row = n * T + t;
        list.use(n, t);
        for (let h = 0; h < H; h++) {
          for (let i = 0; i < I; i++) list.add(row * H + h, 0, row * I + i, 0, h * I + i);
          for (let i = 0; i < H; i++) list.add(row * H + h, 1, row * H + i, 1, h * H + i);
          if (config.bias !== false) list.add(row * H + h, ONE, 0, 2, h), list.add(row * H + h, ONE, 0, 3, h);
        }
      }
    }
    return list;
  },
};

/** One function of each cell. @param {(x: number) => number} f @param {(y: number) => number} derivative @returns {Layer} */
function elementwise(f, derivative, off = "") {
  const forward = (/** @type {Config} */ _, /** @type {Tensor} */ x) => map(x, f);
  return {
    parameters: none,
    output: sameShape,
    places: eachCell,
    off,
    forward,
    links(config, [x]) {
      const list = new LinkList(), area = size(x.shape.slice(1));
      forward(config, x).data.forEach((y, i) => {
        list.use(Math.floor(i / area), i % area);
        list.add(i, 0, i, NO_WEIGHT, 0, derivative(y));
      });
      return list;
    },
  };
}

/** The cells of each row along an axis. @param {number[]} shape @param {number} axis @returns {number[][]} */
function rows(shape, axis) {
  const [length, inner] = [shape[axis], size(shape.slice(axis + 1))];
  return Array.from({ length: size(shape) / length }, (_, row) =>
    Array.from({ length }, (_, i) => (Math.floor(row / inner) * length + i) * inner + (row % inner)),
  );
}

/** @param {Config} config @param {number[]} shape with the sample axis */
const axisOf = (config, shape) => ((config.axis ?? -1) + shape.length) % shape.length;

/** @type {Layer} */
const softmax = {
  parameters: none,
  output: sameShape,
  places: eachCell,
  forward(config, x) {
    const y = zeros(x.shape);
    for (const row of rows(x.shape, axisOf(config, x.shape))) {
      const top = Math.max(...row.map((i) => x.data[i]));
      const total = row.reduce((sum, i) => sum + Math.exp(x.data[i] - top), 0);
      for (const i of row) y.data[i] = Math.exp(x.data[i] - top) / total;
    }
    return y;
  },
  links(config, [x]) {
    const y = /** @type {any} */ (softmax).forward(config, x).data, list = new LinkList(), area = size(x.shape.slice(1));
    const rowOf = new Map(rows(x.shape, axisOf(config, x.shape)).flatMap((row) => row.map((i) => [i, row])));
    for (let o = 0; o < y.length; o++) {
      list.use(Math.floor(o / area), o % area);
      for (const i of /** @type {number[]} */ (rowOf.get(o))) list.add(o, 0, i, NO_WEIGHT, 0, y[o] * ((o === i ? 1 : 0) - y[i]));
    }
    return list;
  },
};

/** Every output cell is one input cell. @param {Layer["output"]} output @returns {Layer} */
function moving(output) {
  return {
    parameters: none,
    output,
    places: eachCell,
    links(_, [x]) {
      const list = new LinkList(), area = size(x.shape.slice(1));
      for (let i = 0; i < x.data.length; i++) list.use(Math.floor(i / area), i % area), list.add(i, 0, i, NO_WEIGHT, 0);
      return list;
    },
  };
}

/** @type {Layer} */
const globalAverage = {
  parameters: none,
  output: (_, [shape]) => [shape[0]],
  places: (_, [shape]) => ({ name: "channel", shape: [shape[0]] }),
  links(_, [x]) {
    const list = new LinkList(), area = size(x.shape.slice(2)), channels = x.shape[1];
    for (let row = 0; row < x.shape[0] * channels; row++) {
      list.use(Math.floor(row / channels), row % channels);
      for (let i = 0; i < area; i++) list.add(row, 0, row * area + i, NO_WEIGHT, 0, 1 / area);
    }
    return list;
  },
};

/** @type {Layer} */
const addition = {
  parameters: none,
  output(_, shapes) {
    if (!shapes.every((shape) => same(shape, shapes[0]))) throw new EntryError("Add: its inputs have different shapes");
    return shapes[0];
  },
  places: eachCell,
  links(_, xs) {
    const list = new LinkList(), area = size(xs[0].shape.slice(1));
    for (let i = 0; i < xs[0].data.length; i++) {
      list.use(Math.floor(i / area), i % area);
      xs.forEach((_, source) => list.add(i, source, i, NO_WEIGHT, 0));
    }
    return list;
  },
};

/** @type {Layer} */
const concat = {
  parameters: none,
  output(config, shapes) {
    const axis = ((config.axis ?? 1) + shapes[0].length + 1) % (shapes[0].length + 1) - 1;
    const others = (/** @type {number[]} */ shape) => shape.filter((_, i) => i !== axis);
    if (!shapes.every((shape) => same(others(shape), others(shapes[0])))) throw new EntryError("Concat: its inputs differ in more than one axis");
    return shapes[0].map((length, i) => (i === axis ? shapes.reduce((total, shape) => total + shape[i], 0) : length));
  },
  places: (config, shapes) => ({ name: "cell", shape: concat.output(config, shapes) }),
  links(config, xs) {
    const axis = ((config.axis ?? 1) + xs[0].shape.length) % xs[0].shape.length, list = new LinkList();
    const blocks = xs.map((x) => size(x.shape.slice(axis))), samples = xs[0].shape[0];
    const outer = xs[0].data.length / blocks[0], width = blocks.reduce((a, b) => a + b, 0), area = (outer * width) / samples;
    let out = 0;
    for (let row = 0; row < outer; row++) {
      xs.forEach((_, source) => {
        for (let i = 0; i < blocks[source]; i++, out++) {
          list.use(Math.floor(out / area), out % area);
          list.add(out, source, row * blocks[source] + i, NO_WEIGHT, 0);
        }
      });
    }
    return list;
  },
};

/** @type {Record<string, Layer>} */
export const LAYERS = {
  Conv1d: convolution(1, false),
  Conv2d: convolution(2, false),
  LocallyConnected1d: convolution(1, true),
  LocallyConnected2d: convolution(2, true),
  MaxPool1d: pooling(1, "max"),
  MaxPool2d: pooling(2, "max"),
  AvgPool1d: pooling(1, "average"),
  AvgPool2d: pooling(2, "average"),
  GlobalAvgPool: globalAverage,
  Linear: linear,
  RNN: rnn,
  ReLU: elementwise((x) => Math.max(x, 0), (y) => (y > 0 ? 1 : 0), "the ReLU is off"),
  Sigmoid: elementwise((x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x))), (y) => y * (1 - y)),
  Tanh: elementwise(Math.tanh, (y) => 1 - y * y),
  Softmax: softmax,
  Add: addition,
  Concat: concat,
  Flatten: moving((_, [shape]) => [size(shape)]),
  Reshape: moving(({ shape }, [given]) => {
    if (size(shape) !== size(given)) throw new EntryError(`Reshape: ${size(given)} numbers do not fit into ${shape.join("×")}`);
    return shape;
  }),
};
