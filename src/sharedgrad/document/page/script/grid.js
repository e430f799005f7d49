// A picture of an array: a table of its numbers, coloured. The picture is the table, so what is seen can also be read out.

import { Component, html } from "./vendor.js";
import { plain, short, show } from "./format.js";
import { range, size } from "./tensor.js";

/** @typedef {{label: string, offset: number, rows: number, cols: number, padKey: ((row: number, col: number) => string) | null}} Slice */
/** @typedef {{top: number, bottom: number, left: number, right: number}} Ring the padding around an input */
/** @typedef {{
 *   panel: string, label: string, slice: Slice, data: Float64Array, scale: number, lit: Map<number | string, number> | null,
 *   chosen: number | null, hidden: ((cell: number) => boolean) | null, told: Map<string, boolean>, ring: Ring | null,
 *   cells: number, copy: number | null, zoomed: boolean, several: boolean, part: number[] | null, current: number | null,
 * }} GridProps */

const MANY = 40; // rows or columns beyond which blocks of cells are drawn as one
const CROWD = 100; // so many lit cells of a small picture stand out by their colours alone
const PART = 24; // rows and columns of a part that is looked at more closely

/** An array cut into two-dimensional pictures. @param {number[]} shape @param {number} skip axes in front that are chosen already
 *  @param {number} offset @param {string[]} names of the axes that are laid out side by side; "" for none
 *  @param {number} apart axes in front that are never drawn as rows @returns {Slice[]} */
export function slices(shape, skip, offset, names, apart = 0) {
  const rest = shape.slice(skip), grid = rest.slice(apart).slice(-2), leads = rest.slice(0, rest.length - grid.length);
  const [rows, cols] = grid.length === 2 ? grid : [1, grid[0] ?? 1];
  return Array.from({ length: size(leads) }, (_, i) => {
    const index = leads.reduceRight((/** @type {number[]} */ found, length, axis) => {
      const inner = size(leads.slice(axis + 1));
      return [Math.floor(i / inner) % length, ...found];
    }, []);
    const label = index.flatMap((at, axis) => (names[axis] !== "" && (leads[axis] > 1 || leads.length < names.length) ? [`${names[axis] ?? ""} ${at}`.trim()] : [])).join(", ");
    return { label: size(leads) > 1 ? label : "", offset: offset + i * rows * cols, rows, cols, padKey: null };
  });
}

/** How strongly a number is coloured, from 0 to 100. The power keeps small ones visible. @param {number} value @param {number} scale */
function strength(value, scale) {
  return scale > 0 ? Math.round(100 * Math.min(Math.abs(value) / scale, 1) ** 0.4) : 0;
}

/** @param {number} value @param {number} scale */
function colour(value, scale) {
  return `--m:${strength(value, scale)}%;--c:var(--${value < 0 ? "negative" : "positive"})`;
}

/** @param {number} cols @param {boolean} zoomed @param {boolean} several whether the picture is one of several side by side
 *  @returns {"large" | "middle" | "small" | "tiny"} */
export function sizeOf(cols, zoomed, several = false) {
  if (zoomed || cols <= (several ? 3 : 7)) return "large";
  return cols <= (several ? 8 : 12) ? "middle" : cols <= 20 ? "small" : "tiny";
}

export class Grid extends Component {
  /** @param {GridProps} next */
  shouldComponentUpdate(next) {
    const now = /** @type {any} */ (this).props;
    return Object.keys(next).some((key) => key !== "slice" && /** @type {any} */ (next)[key] !== now[key]) || next.slice.offset !== now.slice.offset || next.slice.cols !== now.slice.cols || next.slice.rows !== now.slice.rows;
  }

  /** @param {GridProps} props */
  render(props) {
    const { slice, zoomed, part } = props;
    if (Math.max(slice.rows, slice.cols) > MANY && !part) return blocks(props);
    const [top, left] = part ?? [0, 0];
    const bottom = part ? Math.min(top + PART, slice.rows) : slice.rows, right = part ? Math.min(left + PART, slice.cols) : slice.cols;
    const ring = part ? null : props.ring;
    const columns = range(left - (ring?.left ?? 0), right + (ring?.right ?? 0));
    const lines = range(top - (ring?.top ?? 0), bottom + (ring?.bottom ?? 0));
    const size = sizeOf(columns.length, zoomed || Boolean(part), props.several);
    return html`<table role="grid" class=${`grid ${size}${(size === "small" || size === "tiny") && (props.lit?.size ?? 0) > CROWD ? " crowded" : ""}`} aria-label=${props.label}>
      <thead><tr><td></td>${columns.map((j) => html`${j >= 0 && j < slice.cols ? html`<th scope="col">${j}</th>` : html`<td></td>`}`)}</tr></thead>
      <tbody>${lines.map((i) => html`<tr>${i >= 0 && i < slice.rows && lines.length > 1 ? html`<th scope="row">${i}</th>` : html`<td></td>`}
        ${columns.map((j) => (i < 0 || j < 0 || i >= slice.rows || j >= slice.cols ? padCell(props, i, j, size) : cell(props, i, j, size)))}</tr>`)}</tbody>
    </table>`;
  }
}

/** @param {GridProps} props @param {number} i @param {number} j @param {string} size */
function padCell({ panel, slice, lit }, i, j, size) {
  const on = slice.padKey !== null && lit?.has(slice.padKey(i, j));
  return html`<td role="gridcell" class=${`pad ${on ? "lit" : ""}`} aria-label="padding">${panel.startsWith("d") || size === "small" || size === "tiny" ? null : html`<span>0</span>`}</td>`;
}

/** @param {GridProps} props @param {number} i @param {number} j @param {string} size */
function cell({ panel, slice, data, cells, copy, scale, lit, chosen, hidden, told, current }, i, j, size) {
  const place = slice.offset + i * slice.cols + j, value = data[place], at = place % cells; // private copies of a cell act as one
  const on = lit !== null && lit.has(at) && (copy === null || copy === Math.floor(place / cells)), pair = on ? lit.get(at) : 0;
  const covered = hidden?.(at) ?? false;
  const answer = told.get(`${panel},${at}`);
  const marks = [on && "lit", chosen === at && "chosen", covered && "covered", answer === true && "right", answer === false && "wrong"];
  const bare = size === "small" || size === "tiny"; // too small for a text: read out, not printed
  const text = covered ? "?" : size === "large" ? short(value) : size === "middle" ? short(value, 3) : show(value);
  return html`<td role="gridcell" tabindex=${(current ?? slice.offset) === place ? 0 : -1} data-panel=${panel} data-cell=${at}
    class=${marks.filter(Boolean).join(" ") || undefined} style=${covered ? "" : colour(value, scale)} title=${covered ? undefined : plain(value)}
    aria-label=${bare ? text : undefined}>${bare ? null : html`<span>${text}</span>`}${pair ? html`<i aria-hidden="true">${pair}</i>` : null}</td>`;
}

/** A large picture drawn coarsely: each block shows its number of largest size, and opens. @param {GridProps} props */
function blocks({ panel, label, slice, data, scale, lit, hidden }) {
  const step = Math.ceil(Math.max(slice.rows, slice.cols) / 32);
  const lines = range(0, Math.ceil(slice.rows / step)), columns = range(0, Math.ceil(slice.cols / step));
  return html`<table role="grid" class="grid tiny" aria-label=${`${label}, blocks of ${step}×${step} cells, each by its number of largest size`}>
    <tbody>${lines.map((bi) => html`<tr>${columns.map((bj) => {
      let largest = 0, on = false;
      for (const i of range(bi * step, Math.min((bi + 1) * step, slice.rows))) {
        for (const j of range(bj * step, Math.min((bj + 1) * step, slice.cols))) {
          const at = slice.offset + i * slice.cols + j;
          if (Math.abs(data[at]) > Math.abs(largest)) largest = data[at];
          on ||= lit?.has(at) ?? false;
        }
      }
      const covered = hidden?.(slice.offset) ?? false;
      return html`<td role="gridcell" tabindex=${bi + bj ? -1 : 0} class=${on ? "lit" : ""} style=${covered ? "" : colour(largest, scale)}
        data-part=${`${panel}@${slice.offset}`} data-row=${bi * step} data-col=${bj * step} aria-label=${covered ? "?" : show(largest)}></td>`;
    })}</tr>`)}</tbody></table>`;
}
