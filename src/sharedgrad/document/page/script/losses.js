// Losses with their gradient, as in sharedgrad/losses.py.

import { EntryError } from "./geometry.js";
import { same, zeros } from "./tensor.js";

/** @typedef {import("./tensor.js").Tensor} Tensor */
/** @typedef {Record<string, any>} Config name, reduction, target, and what else the loss takes */
/** @typedef {{value: number, gradient: Tensor}} Loss */

/** The shape of the target for an output of this shape. @param {Config} config @param {number[]} shape */
export function targetShape(config, shape) {
  return config.name === "CrossEntropy" ? [shape[0], ...shape.slice(2)] : shape;
}

/** @type {Record<string, (config: Config, y: Tensor, target: Tensor) => Loss>} */
const LOSSES = {
  MSE(config, y, target) {
    const scale = /** @type {Record<string, number>} */ ({ mean: 1 / y.data.length, sum: 1, half_sum: 0.5 })[config.reduction ?? "mean"];
    const gradient = zeros(y.shape);
    let value = 0;
    y.data.forEach((out, i) => {
      value += scale * (out - target.data[i]) ** 2;
      gradient.data[i] = 2 * scale * (out - target.data[i]);
    });
    return { value, gradient };
  },

  CrossEntropy(config, y, target) {
    const [samples, classes] = y.shape, area = y.data.length / (samples * classes), gradient = zeros(y.shape);
    const smoothing = config.label_smoothing ?? 0, count = config.reduction === "sum" ? 1 : target.data.length;
    let value = 0;
    for (let row = 0; row < samples * area; row++) {
      const cells = Array.from({ length: classes }, (_, c) => (Math.floor(row / area) * classes + c) * area + (row % area));
      const scores = cells.map((cell) => y.data[cell]), top = Math.max(...scores);
      const log = top + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - top), 0));
      if (!(Number.isInteger(target.data[row]) && target.data[row] >= 0 && target.data[row] < classes)) {
        throw new EntryError(`target: expected a class from 0 to ${classes - 1}`);
      }
      cells.forEach((cell, c) => {
        const t = smoothing / classes + (c === target.data[row] ? 1 - smoothing : 0);
        value += (t * (log - scores[c])) / count;
        gradient.data[cell] = (Math.exp(scores[c] - log) - t) / count;
      });
    }
    return { value, gradient };
  },

  BinaryCrossEntropy(config, y, target) {
    const logits = config.from_logits ?? true, count = config.reduction === "sum" ? 1 : y.data.length;
    const gradient = zeros(y.shape);
    let value = 0;
    y.data.forEach((out, i) => {
      const t = target.data[i];
      if (!(t >= 0 && t <= 1)) throw new EntryError("target: expected numbers from 0 to 1");
      if (logits) {
        value += (Math.max(out, 0) - t * out + Math.log1p(Math.exp(-Math.abs(out)))) / count;
        gradient.data[i] = (1 / (1 + Math.exp(-out)) - t) / count;
        return;
      }
      if (!(out >= 0 && out <= 1)) throw new EntryError("BinaryCrossEntropy: expected outputs from 0 to 1");
      value -= (t * Math.max(Math.log(out), -100) + (1 - t) * Math.max(Math.log1p(-out), -100)) / count;
      gradient.data[i] = (out - t) / Math.max(out * (1 - out), 1e-12) / count;
    });
    return { value, gradient };
  },
};

export const LOSS_NAMES = Object.keys(LOSSES);

/** @param {Config} config @param {Tensor} y @param {Tensor} target @returns {Loss} */
export function loss(config, y, target) {
  if (!same(target.shape, targetShape(config, y.shape))) throw new EntryError("target: its shape does not fit the output");
  return LOSSES[config.name](config, y, target);
}
