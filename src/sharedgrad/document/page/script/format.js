// Numbers and places in words. Rounding here is for the eye alone: nothing computes with what it prints.

import { unravel } from "./tensor.js";

/** Below this a number is what rounding has left of a zero. */
const NOTHING = 1e-12;

/** A number with its sign, in at most so many significant digits. @param {number} value */
export function show(value, digits = 4) {
  const size = Math.abs(value);
  if (!(size > NOTHING)) return "0";
  const rounded = Number(size.toPrecision(digits));
  const text = rounded >= 1e-4 && rounded < 1e6 ? String(rounded) : rounded.toExponential().replace("-", "−").replace("+", "");
  return (value < 0 ? "−" : "+") + text;
}

/** A number for a cell: with fewer digits where there is no room for more. @param {number} value */
export function short(value, digits = 4) {
  const text = show(value, digits);
  return text.length > digits + 4 ? show(value, 2) : text;
}

/** A number as a person would enter it. @param {number} value */
export function plain(value) {
  return String(value);
}

/** The number in a field, or NaN. @param {string} text */
export function read(text) {
  const trimmed = text.trim().replace("−", "-");
  return trimmed === "" ? NaN : Number(trimmed);
}

/** @param {number[]} index */
export function bracketed(index) {
  return `[${index.join(",")}]`;
}

/** @param {number[]} shape */
export function times(shape) {
  return shape.join("×");
}

/** @param {number} count @param {string} noun */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** One of a call's uses, in words. @param {import("./network.js").Call} call @param {number} use */
export function useName(call, use) {
  const { sample, place } = call.uses[use], { name, shape } = call.places;
  const samples = call.sources[0].shape[0], index = unravel(place, shape);
  const where = shape.length > 1 ? `(${index.join(", ")})` : index.join("");
  const at = [...(samples > 1 || !shape.length ? [`sample ${sample}`] : []), ...(shape.length ? [`${name} ${where}`] : [])];
  return at.join(", ");
}

/** The same for a column: "n=0, (1,2)". @param {import("./network.js").Call} call @param {number} use */
export function useMark(call, use) {
  const { sample, place } = call.uses[use], { name, shape } = call.places, index = unravel(place, shape);
  const where = shape.length > 1 ? `(${index.join(",")})` : shape.length ? (name === "time step" ? `t=${index[0]}` : `${name} ${index[0]}`) : "";
  return [...(call.sources[0].shape[0] > 1 || !where ? [`n=${sample}`] : []), ...(where ? [where] : [])].join(", ");
}
