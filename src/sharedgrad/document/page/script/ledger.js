// The ledger: where the number of a chosen cell comes from, term by term, with the running sum and what cancels.

import { html } from "./vendor.js";
import { plain, show } from "./format.js";
import { unravel } from "./tensor.js";

/** @typedef {import("./terms.js").Account} Account */
/** @typedef {import("./terms.js").Term} Term */
/** @typedef {import("./store.js").View} View */
/** @typedef {{term: Term, sum: number, number: number}} Row */

const FEW = 60; // so many rows are written out one by one; more are grouped

/** @param {Account} account @param {"place" | "size"} sort @returns {Row[]} */
function rowsOf(account, sort) {
  const terms = sort === "size" ? [...account.terms].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)) : account.terms;
  let sum = 0;
  return terms.map((term) => ({ term, sum: (sum += term.value), number: account.terms.indexOf(term) + 1 }));
}

/** Rows in groups: those of one sample and one row of positions, or by size a hundred at a time.
 *  @param {Row[]} rows @param {"place" | "size"} sort @returns {{name: string, rows: Row[]}[]} */
function groupsOf(rows, sort) {
  /** @type {{name: string, rows: Row[]}[]} */ const groups = [];
  rows.forEach((row, i) => {
    const name = sort === "size" ? `terms ${Math.floor(i / 100) * 100 + 1} and on, by size` : groupName(row.term);
    const last = groups[groups.length - 1];
    if (last?.name === name && last.rows.length < 200) last.rows.push(row);
    else groups.push({ name, rows: [row] });
  });
  return groups;
}

/** @param {Term} term */
function groupName({ call, use, where }) {
  if (!call) return where;
  const { sample, place } = call.uses[use], { shape } = call.places, [first] = unravel(place, shape);
  return `${where.includes(":") ? `${call.name}: ` : ""}n=${sample}${shape.length > 1 ? `, (${first}, …)` : ""}`;
}

/** @param {{account: Account, view: View, covered: boolean, upTo: (term: Term) => boolean}} props
 *  `covered`: the result is a question, so products and sums stay hidden; `upTo`: whether playback has come to a term. */
export function Ledger({ account, view, covered, upTo }) {
  const rows = rowsOf(account, view.sort);
  if (!rows.length) return null;
  const size = rows.reduce((sum, { term }) => sum + Math.abs(term.value), 0), zeros = rows.filter(({ term }) => term.note).length;
  const head = html`<thead><tr><th scope="col">#</th><th scope="col">where</th><th scope="col" class="number">${account.heads[0]}</th><td></td>
    <th scope="col" class="number">${account.heads[1]}</th><th scope="col" class="number">product</th><th scope="col" class="number">sum</th></tr></thead>`;
  const body = rows.length <= FEW
    ? html`<tbody>${rows.map((row) => line(row, view, covered, upTo))}</tbody>`
    : groupsOf(rows, view.sort).map((group) => grouped(group, view, covered, upTo));
  return html`<div class="ledger">
    <div class="ledger-head"><h3>The ledger</h3>
      <label>sorted by <select id="do-sort" value=${view.sort}><option value="place">place</option><option value="size">size</option></select></label></div>
    <div class="scroll" tabindex="0" role="region" aria-label="The ledger"><table><caption class="unseen">All terms of ${account.title}</caption>${head}${body}
      <tfoot><tr><td></td><th scope="row" colspan="4">${account.title} =</th><td></td><td class="number total">${covered ? "?" : show(account.result, 6)}</td></tr></tfoot></table></div>
    ${covered ? null : html`<p class="facts">${facts(account, rows, size, zeros)}</p>`}
  </div>`;
}

/** @param {Account} account @param {Row[]} rows @param {number} size @param {number} zeros */
function facts(account, rows, size, zeros) {
  const total = Math.abs(rows[rows.length - 1].sum), lost = size > 0 ? Math.round(100 * (1 - total / size)) : 0;
  const cancels = rows.length > 1 && size > 0 ? `Σ|t| = ${show(size, 5).slice(1)}, |Σt| = ${show(total, 5).replace(/^[+−]/, "")}: ${lost ? `${lost} % cancels` : "nothing cancels"}. ` : "";
  const silent = zeros ? `${zeros} of ${rows.length} terms ${zeros === 1 ? "is" : "are"} 0 for the reason that stands beside ${zeros === 1 ? "it" : "them"}. ` : "";
  const printed = rows.reduce((sum, { term }) => sum + Number(term.value.toPrecision(4)), 0);
  const rounded = show(printed, 6) !== show(account.result, 6) && account.kind !== "y" ? "The printed products are rounded; the sum is made of the exact ones." : "";
  return cancels + silent + rounded;
}

/** @param {Row} row @param {View} view @param {boolean} covered @param {(term: Term) => boolean} upTo */
function line({ term, sum, number }, view, covered, upTo) {
  const later = !upTo(term), [a, b] = term.factors, lit = term.call?.name === view.at && (term.link === view.link || term.link === view.held);
  const value = (/** @type {import("./terms.js").Factor} */ factor) => html`<span title=${`${factor.label} = ${plain(factor.value)}`}>${show(factor.value)}</span>`;
  return html`<tr class=${[later && "later", term.note && "zero", lit && "lit"].filter(Boolean).join(" ")} data-link=${term.link} data-node=${term.call?.name ?? ""} data-use=${term.use}>
    <td class="muted">${number}</td><td class="where">${term.where}</td>
    <td class="number">${a ? value(a) : ""}</td><td class="sign">${a ? "×" : ""}</td><td class="number">${b ? value(b) : ""}</td>
    <td class="number product">${covered ? "?" : show(term.value)}</td><td class="number muted">${covered ? "?" : later ? "" : show(sum)}</td></tr>
    ${term.note ? html`<tr class="why"><td></td><td colspan="6"><em>${term.note}</em></td></tr>` : null}`;
}

/** @param {{name: string, rows: Row[]}} group @param {View} view @param {boolean} covered @param {(term: Term) => boolean} upTo */
function grouped({ name, rows }, view, covered, upTo) {
  const key = `${name}:${rows[0].number}`, open = view.open.has(key), total = rows.reduce((sum, { term }) => sum + term.value, 0);
  const done = rows.filter(({ term }) => upTo(term)).length;
  return html`<tbody><tr class=${`group ${done ? "" : "later"}`}><td colspan="5"><button type="button" class="quiet" data-open=${key} aria-expanded=${open}>${open ? "▾" : "▸"} ${name} <small>${rows.length} terms</small></button></td>
    <td class="number product">${covered ? "?" : show(total)}</td><td class="number muted">${covered ? "?" : show(rows[rows.length - 1].sum)}</td></tr>
    ${open ? rows.map((row) => line(row, view, covered, upTo)) : null}</tbody>`;
}

/** What every place contributes to one weight, as a map. @param {Account} account @returns {{shape: number[], data: Float64Array} | null} */
export function placeMap(account) {
  const call = account.terms[0]?.call;
  if (account.kind !== "w" || !call || call.places.shape.length !== 2 || account.terms.some((term) => term.call !== call)) return null;
  const data = new Float64Array(call.places.shape.reduce((a, b) => a * b, 1));
  for (const term of account.terms) data[call.uses[term.use].place] += term.value;
  return { shape: [1, ...call.places.shape], data };
}
