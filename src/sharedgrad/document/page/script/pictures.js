// The pictures of one layer's call: its arrays with their gradients, as far as playback has come.

import { combined, privateGradients } from "./combine.js";
import { arrayName, arrayShape } from "./names.js";
import { copyOf, sums } from "./network.js";
import { add, map, size, unravel, zeros } from "./tensor.js";
import { slices } from "./grid.js";

/** @typedef {import("./network.js").Call} Call */
/** @typedef {import("./network.js").Slot} Slot */
/** @typedef {import("./tensor.js").Tensor} Tensor */
/** @typedef {import("./store.js").View} View */
/** @typedef {import("./grid.js").Slice} Slice */
/** @typedef {{panel: string, role: string, name: string, tensor: Tensor, slices: Slice[], cells: number, ring: import("./grid.js").Ring | null, note: string}} Picture
 * `cells`: how many cells the array has, not counting private copies. */
/** @typedef {{sources: Picture[][], weights: Picture[][], output: Picture[][]}} Pictures each a value and its gradient */

/** @param {Call} call @param {View} view @returns {Pictures} */
export function pictures(call, view) {
  const { sources, weights } = gradients(call, view), { evaluation, example } = view.state;
  const weightPictures = call.slots.map((slot, i) => {
    const value = slot.weight.copies && view.mode === "unshared" ? { shape: [slot.weight.count, ...slot.weight.value.shape], data: slot.weight.copies } : slot.weight.value;
    const uses = `${slot.weight.uses.toLocaleString("en")} ${slot.weight.uses === 1 ? "use" : "uses"}`;
    return [picture(call, `w:${i}`, slot.attribute.startsWith("bias") ? "bias" : "weight", value, view, uses), picture(call, `dw:${i}`, "gradient", weights[i], view, "")];
  });
  const sourcePictures = call.sources.map((source, i) => [
    picture(call, `x:${i}`, i < call.inputs.length ? "input" : "state before", source, view, ""),
    picture(call, `dx:${i}`, "gradient", sources[i], view, ""),
  ]);
  const output = [[picture(call, "y", "output", call.y, view, ""), picture(call, "dy", "upstream gradient", evaluation.upstream[call.name], view, "")]];
  if (call.kind === "RNN") output.push([picture(call, "delta", "gradient inside the tanh", call.delta, view, "")]);
  (example.numbers.loss ?? []).forEach((/** @type {any} */ entry, /** @type {number} */ i) => {
    if (entry.node === call.name) output.push([targetPicture(call, entry, i, view)]);
  });
  return { sources: sourcePictures, weights: weightPictures, output };
}

/** @param {Call} call @param {string} panel @param {string} role @param {Tensor} tensor @param {View} view @param {string} note @returns {Picture} */
function picture(call, panel, role, tensor, view, note) {
  const own = arrayShape(call, panel), copies = tensor.shape.length - own.length, activation = !/^d?w/.test(panel);
  const skip = activation ? 1 : 0, offset = activation ? view.sample * size(own.slice(1)) : 0;
  const names = activation ? ["channel"] : [...new Array(copies).fill(""), ...leading(call, own)];
  const found = slices(tensor.shape, skip, offset, names, copies), ring = /^d?x/.test(panel) ? ringOf(call) : null;
  if (ring) rim(found, call, view.sample);
  if (copies) nameCopies(found, call, panel, size(own));
  return { panel, role, name: arrayName(call, panel), tensor, slices: found, cells: size(own), ring, note };
}

/** Says of each slice whose private copy it is of. @param {Slice[]} found @param {Call} call @param {string} panel @param {number} cells */
function nameCopies(found, call, panel, cells) {
  const { slots } = call.slots[Number(panel.split(":")[1])].weight;
  for (const slice of found) {
    const copy = Math.floor(slice.offset / cells), slot = slots.filter(({ offset }) => offset <= copy).pop();
    if (!slot) continue;
    const { name, shape } = slot.call.places, index = unravel(copy - slot.offset, shape);
    const place = shape.length ? `${name} ${shape.length > 1 ? `(${index.join(",")})` : index[0]}` : "";
    slice.label = [slots.length > 1 && slot.call.name, place, slice.label].filter(Boolean).join(", ");
  }
}

/** Names of the axes of a weight that stand before its last two. @param {Call} call @param {number[]} shape */
function leading(call, shape) {
  const own = call.kind.startsWith("Locally") ? call.places.shape.map((_, i) => ["row", "column"][i]) : [];
  return shape.length > 2 ? [...own, "filter", "channel"].slice(0, shape.length - 2) : [];
}

/** The ring of zeros around an input. @param {Call} call @returns {import("./grid.js").Ring | null} */
function ringOf({ geometry }) {
  if (!geometry || geometry.mode !== "zeros" || geometry.padding.every(([a, b]) => a + b === 0)) return null;
  const [rows, cols] = geometry.padding.length === 2 ? geometry.padding : [[0, 0], geometry.padding[0]];
  return { top: rows[0], bottom: rows[1], left: cols[0], right: cols[1] };
}

/** Gives each slice the names of its padding cells. @param {Slice[]} found @param {Call} call @param {number} sample */
function rim(found, call, sample) {
  const [, channels, ...spatial] = call.sources[0].shape;
  found.forEach((slice, channel) => {
    slice.padKey = (row, col) => (spatial.length === 1 ? `pad:${sample * channels + row}:${col}` : `pad:${sample * channels + channel}:${row},${col}`);
  });
}

/** @param {Call} call @param {Record<string, any>} entry @param {number} i @param {View} view @returns {Picture} */
function targetPicture(call, entry, i, view) {
  const data = Float64Array.from([entry.target].flat(Infinity)), samples = call.y.shape[0], own = data.length / samples;
  const shape = entry.name === "CrossEntropy" ? [samples, ...call.y.shape.slice(2)] : call.y.shape;
  const value = view.state.evaluation.losses[i].value;
  return {
    panel: `t:${i}`, role: entry.name === "CrossEntropy" ? "target class" : "target", name: `${entry.name} = ${Number(value.toPrecision(6))}`,
    tensor: { shape, data }, slices: slices(shape, 1, view.sample * own, ["channel"]), cells: data.length, ring: null, note: "",
  };
}

// ---- gradients, as far as playback has come

/** @param {Call} call @param {View} view @returns {{sources: Tensor[], weights: Tensor[]}} */
function gradients(call, view) {
  const { mode, step } = view;
  if (step === null) {
    const weights = call.slots.map(({ weight }) => (mode === "unshared" && weight.count > 1 ? privateGradients(weight) : combined(weight, mode === "unshared" ? "sum" : mode)));
    return { sources: call.dsources, weights };
  }
  const { sources, weights } = sums(call, 0, step);
  return { sources, weights: call.slots.map((slot, i) => soFar(slot, weights[i], view, step)) };
}

/** What has come together for a weight after some uses of this call, and all of the calls before it on the way back.
 *  @param {Slot} seen @param {Tensor} part the sum over this call's uses so far @param {View} view @param {number} step @returns {Tensor} */
function soFar(seen, part, { mode }, step) {
  const { call, slot, weight } = seen;
  if (mode === "unshared" && weight.count > 1) return privateSoFar(seen, step);
  if (mode === "last" && step > 0) return sums(call, step - 1, step).weights[slot];
  const total = zeros(weight.value.shape);
  add(total, part);
  for (const later of weight.slots.slice(weight.slots.findIndex((other) => other.call === call && other.slot === slot) + 1)) add(total, later.gradient);
  return mode === "mean" ? map(total, (value) => value / weight.count) : total;
}

/** @param {Slot} slot @param {number} step @returns {Tensor} */
function privateSoFar(slot, step) {
  const { call, weight } = slot, result = zeros([weight.count, ...weight.value.shape]), cells = weight.value.data.length;
  for (let use = 0; use < step; use++) {
    const first = copyOf(slot, use) * cells;
    sums(call, use, use + 1).weights[slot.slot].data.forEach((value, i) => (result.data[first + i] += value));
  }
  return result;
}
