// The names of arrays and cells, the same as in the written-out calculation: conv.w, conv.dw, conv.y, x, dx.

import { bracketed } from "./format.js";
import { unravel } from "./tensor.js";

/** @typedef {import("./network.js").Call} Call */

/** Short names of parameters: w, b, w_hh. @param {string} attribute */
function shortened(attribute) {
  return attribute.replace("weight", "w").replace("bias", "b").replace(/_l0$/, "");
}

/** @param {string} panel */
export function parsePanel(panel) {
  const [kind, number] = panel.split(":");
  return { kind: kind.replace(/^d(?=[wx])/, ""), number: Number(number ?? 0), gradient: /^d[wxy]/.test(kind) };
}

/** @param {Call} call @param {string} name */
function owned(call, owner = "", name = "") {
  return call.single ? name : `${owner}.${name}`;
}

/** The name of the array in a picture of a call, e.g. "conv.dw" of the picture "dw:0". @param {Call} call @param {string} panel */
export function arrayName(call, panel) {
  const { kind, number, gradient } = parsePanel(panel), d = gradient ? "d" : "";
  if (kind === "x" && number >= call.inputs.length) return owned(call, call.name, `${d}h_before`);
  if (kind === "x") return call.given[number] ? d + (call.alone ? "x" : call.inputs[number]) : `${call.inputs[number]}.${d}y`;
  if (kind === "w") {
    const parts = call.slots[number].weight.name.split("."), attribute = /** @type {string} */ (parts.pop());
    return owned(call, parts.join("."), d + shortened(attribute));
  }
  if (kind === "t") return "target";
  return owned(call, call.name, kind === "delta" ? "δ" : kind);
}

/** @param {Call} call @param {string} panel */
export function arrayShape(call, panel) {
  const { kind, number } = parsePanel(panel);
  if (kind === "x") return call.sources[number].shape;
  if (kind === "w") return call.slots[number].weight.value.shape;
  return kind === "delta" ? call.delta.shape : call.y.shape;
}

/** E.g. "conv.dw[0,0,1,2]". @param {Call} call @param {string} panel @param {number} cell */
export function cellName(call, panel, cell) {
  return arrayName(call, panel) + bracketed(unravel(cell, arrayShape(call, panel)));
}
