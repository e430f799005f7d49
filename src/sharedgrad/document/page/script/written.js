// The written-out calculation below the pictures: touching a term of a sum touches its cells above.

import { arrayName } from "./names.js";

/** @typedef {import("./network.js").Evaluation} Evaluation */
/** @typedef {{at: string, panel: string, cell: number}} Place */

/** The pictures by the names of their arrays. @param {Evaluation} evaluation @returns {Map<string, {at: string, panel: string}>} */
function pictureNames(evaluation) {
  /** @type {Map<string, {at: string, panel: string}>} */ const names = new Map();
  for (const call of evaluation.calls) {
    const panels = [...call.inputs.flatMap((_, i) => [`x:${i}`, `dx:${i}`]), ...call.slots.flatMap((_, i) => [`w:${i}`, `dw:${i}`]), "y", "dy"];
    for (const panel of panels) {
      const name = arrayName(call, panel).replace(/\s/g, "_");
      if (!names.has(name) || panel === "y" || panel === "dy") names.set(name, { at: call.name, panel });
    }
  }
  return names;
}

/** The first cell that a term names and that has a picture. @param {Map<string, {at: string, panel: string}>} names @param {Element} element
 *  @returns {Place | null} */
function placeOf(names, element) {
  const term = /** @type {HTMLElement | null} */ (element.closest("[data-cells]")), cell = /** @type {HTMLElement | null} */ (element.closest("td[data-cell]"));
  const key = cell ? `${/** @type {HTMLElement | null} */ (cell.closest("[data-array]"))?.dataset.array}:${cell.dataset.cell}` : term?.dataset.cells?.split(" ")[0];
  const parts = key?.match(/^(.*):(\d+)$/), found = parts ? names.get(parts[1]) : undefined;
  return parts && found ? { ...found, cell: Number(parts[2]) } : null;
}

/** @param {(at: string, panel: string, cell: number) => void} hold @param {(at: string, panel: string, cell: number) => void} touch @param {Evaluation} evaluation */
export function connect(hold, touch, evaluation) {
  const written = document.getElementById("written"), names = pictureNames(evaluation);
  written?.addEventListener("click", (event) => {
    const place = placeOf(names, /** @type {Element} */ (event.target));
    if (place) hold(place.at, place.panel, place.cell);
  });
  written?.addEventListener("pointerover", (event) => {
    const place = placeOf(names, /** @type {Element} */ (event.target));
    if (place) touch(place.at, place.panel, place.cell);
  });
}
