// The strip of layers, the player, the switch between ways to combine, the update, and what is known of the chosen cell.

import { html } from "./vendor.js";
import { combined, MODES, tied } from "./combine.js";
import { plain, show, times } from "./format.js";
import { Ledger, placeMap } from "./ledger.js";
import { parsePanel } from "./names.js";
import { stepName } from "./stage.js";
import { nested, unravel } from "./tensor.js";
import { colourOf } from "./thumbnail.js";

/** @typedef {import("./store.js").View} View */
/** @typedef {import("./network.js").Call} Call */
/** @typedef {import("./terms.js").Account} Account */
/** @typedef {import("./terms.js").Term} Term */
/** @typedef {import("./terms.js").Target} Target */

export const SPEEDS = [1, 3, 10, 40];

/** @param {{view: View, dark: boolean}} props */
export function Strip({ view, dark }) {
  const { calls, values, losses } = view.state.evaluation, inputs = Object.keys(view.state.example.numbers.x);
  const picture = (/** @type {string} */ name) => html`<canvas class="thumb" aria-hidden="true" ref=${(/** @type {HTMLCanvasElement | null} */ canvas) => canvas && colourOf(canvas, values[name], view.sample, dark)}></canvas>`;
  const followsOn = (/** @type {number} */ i) => calls[i].inputs.length === 1 && calls[i].inputs[0] === (calls[i - 1]?.name ?? inputs[inputs.length - 1]);
  return html`<nav class="strip" aria-label="The network"><ol>
    ${inputs.map((name, i) => html`<li class=${i ? "node given apart" : "node given"}>${picture(name)}<b>${name}</b><small>${times(values[name].shape.slice(1)) || "1"}</small></li>`)}
    ${calls.map((call, i) => html`<li class=${followsOn(i) ? "" : "apart"}><button type="button" class="node" data-at=${call.name} aria-current=${call.name === view.at ? "true" : undefined}>${picture(call.name)}
      <b>${call.name}</b><small>${call.kind} · ${times(call.y.shape.slice(1)) || "1"}</small>
      ${followsOn(i) ? null : html`<small>reads ${call.inputs.join(" and ")}</small>`}</button></li>`)}
    ${losses.length ? html`<li class="node given"><b>loss</b><small class="loss">${Number(losses.reduce((sum, { value }) => sum + value, 0).toPrecision(5))}</small></li>` : null}
  </ol></nav>`;
}

/** @param {{view: View, call: Call}} props */
export function Player({ view, call }) {
  const count = call.uses.length, step = view.step ?? count;
  const button = (/** @type {string} */ does, /** @type {string} */ label, /** @type {string} */ sign) =>
    html`<button type="button" data-play=${does} aria-label=${label} title=${label}><svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d=${sign} fill="currentColor" /></svg></button>`;
  return html`<div class="player" role="group" aria-label="Playback through the uses">
    <div class="buttons">${button("first", "to the beginning", "M3 3h2v10H3zM13 3v10L6 8z")}${button("back", "one use back", "M11 3v10L4 8z")}
      ${button("play", view.playing ? "pause" : "play", view.playing ? "M4 3h3v10H4zM9 3h3v10H9z" : "M4 2.5v11L13.5 8z")}${button("next", "one use on", "M5 3v10l7-5z")}${button("last", "to the end", "M11 3h2v10h-2zM3 3v10l7-5z")}
      <select id="do-speed" aria-label="speed, uses a second" value=${view.speed}>${SPEEDS.map((speed) => html`<option value=${speed} selected=${speed === view.speed}>${speed}/s</option>`)}</select></div>
    <input type="range" id="do-step" min="0" max=${count} value=${step} aria-label="uses added so far" aria-valuetext=${stepName(view, call)} />
    <output class="where">${stepName(view, call)}</output>
  </div>`;
}

/** @param {{view: View}} props */
export function Update({ view }) {
  const { example } = view.state, rate = example.numbers.learning_rate;
  return html`<div class="update"><fieldset><legend>Combine the contributions</legend><div class="modes">${Object.entries(MODES).map(([mode, { label }]) =>
    html`<label class=${view.mode === mode ? "on" : ""}><input type="radio" name="mode" value=${mode} checked=${view.mode === mode} />${label}</label>`)}</div></fieldset>
    <label class="rate">learning rate <input id="do-rate" inputmode="decimal" size="6" value=${rate === undefined ? "" : plain(rate)} /></label>
    <button type="button" id="do-update" class="primary" disabled=${rate === undefined || !Object.keys(view.state.evaluation.weights).length} title="w ← w − learning rate × gradient">Update</button>
    <button type="button" id="do-undo" disabled=${!view.actions.length}>Undo</button>
    <button type="button" id="do-reset" disabled=${!view.actions.length}>Reset</button>
  </div><p class="says">${MODES[view.mode].says}</p>`;
}

/** What can be edited behind a cell: where the number is kept. @param {View} view @param {Call} call @param {Target} target
 *  @returns {{where: "x" | "weights" | "upstream" | "target", name: string, index: number[], value: number} | null} */
export function editable(view, call, { panel, cell }) {
  const { kind, number } = parsePanel(panel), { numbers } = view.state.example;
  const found = (/** @type {"x" | "weights" | "upstream" | "target"} */ where, /** @type {string} */ name, /** @type {number[]} */ shape, /** @type {any} */ nested) => {
    const index = unravel(cell, shape);
    return { where, name, index, value: index.reduce((/** @type {any} */ at, i) => at[i], nested) };
  };
  if (kind === "w") {
    const { weight } = call.slots[number];
    return found("weights", weight.name, weight.value.shape, nested(tied(weight)));
  }
  if (kind === "x" && call.given[number]) return found("x", call.inputs[number], call.sources[number].shape, numbers.x[call.inputs[number]]);
  if (kind === "dy" && numbers.upstream?.[call.name]) return found("upstream", call.name, call.y.shape, numbers.upstream[call.name]);
  if (kind === "t") {
    const entry = numbers.loss[number], shape = entry.name === "CrossEntropy" ? [call.y.shape[0], ...call.y.shape.slice(2)] : call.y.shape;
    return found("target", String(number), shape, entry.target);
  }
  return null;
}

/** The picture in which the number behind a target is guessed. @param {Target} target */
export function guessed({ panel, cell }) {
  return { panel: panel.replace(/^(?=[wx]:)/, "d"), cell };
}

/** @param {View} view @param {Target} target */
export function isCovered(view, target) {
  const { panel, cell } = guessed(target), key = `${panel},${cell}`;
  return (view.covered.has(panel) || view.covered.has(key)) && !view.told.has(key);
}

/** What another way to combine makes of a weight's terms, in words. @param {View} view @param {Call} call @param {Target} target */
function otherwise({ mode }, call, { panel, cell }) {
  const { kind, number } = parsePanel(panel);
  if (kind !== "w" || mode === "sum") return "";
  const { weight } = call.slots[number];
  if (mode !== "unshared") return ` “${MODES[mode].label}” makes ${show(combined(weight, mode).data[cell], 6)} of them.`;
  if (weight.count === 1) return "";
  const tiedNow = weight.copies ? ` Their mean is ${show(tied(weight).data[cell], 6)} now; an edit ties them again.` : "";
  return ` Un-shared, each of ${weight.count.toLocaleString("en")} private copies takes its own part.${tiedNow}`;
}

/** @param {Term[]} terms */
function sumOf(terms) {
  return terms.reduce((sum, { value }) => sum + value, 0);
}

/** What is being typed stays, whatever is drawn meanwhile. @param {string} id @param {string} value */
function typed(id, value) {
  const field = document.activeElement;
  return field instanceof HTMLInputElement && field.id === id ? field.value : value;
}

/** @param {{view: View, call: Call, target: Target | null, account: Account | null, dark: boolean}} props */
export function Inspector({ view, call, target, account, dark }) {
  if (!target || !account) {
    return html`<aside class="inspector" aria-label="The chosen number"><h2 class="unseen">The chosen number</h2><p class="hint"><b>Touch a number.</b> A weight shows every place where it is used. An input cell shows what flows back to it.
      An output cell shows its window. Click to hold it; then every term is listed here, and numbers that are given can be changed.</p></aside>`;
  }
  const edit = editable(view, call, target), covered = isCovered(view, target), asked = guessed(target), key = `${asked.panel},${asked.cell}`;
  const told = view.told.get(key), held = view.pin?.panel === target.panel && view.pin.cell === target.cell;
  const map = placeMap(account);
  const upTo = (/** @type {Term} */ term) => played(view, call, term);
  return html`<aside class=${held ? "inspector held" : "inspector"} aria-label="The chosen number">
    <h2><span class="name">${account.title}</span> <span class="result">= ${covered ? "?" : show(account.result, 6)}</span>
      ${view.step !== null && !covered && account.terms.length ? html`<span class="so-far">so far ${show(sumOf(account.terms.filter(upTo)), 6)}</span>` : null}</h2>
    <p class="what">${account.what}${otherwise(view, call, target)}</p>
    ${edit ? html`<label class="edit" key=${key}>${edit.where === "upstream" ? "upstream given here" : edit.where === "target" ? "target" : edit.where === "x" ? "the input cell" : "the weight itself"}
      <input id="do-value" inputmode="decimal" size="9" value=${typed("do-value", plain(edit.value))} disabled=${!held} title=${held ? "Change it: everything follows" : "Click the cell first"} /></label>` : null}
    ${account.kind !== "t" ? html`<div class="guess">${covered
      ? html`<label>your value <input id="do-guess" inputmode="decimal" size="9" disabled=${!held} /></label><button type="button" id="do-check" disabled=${!held}>Check</button><button type="button" class="quiet" data-tell=${key}>Show it</button>`
      : told === undefined ? html`<button type="button" class="quiet" data-cover=${key}>Cover this number and guess it</button>`
      : html`<p class=${told ? "verdict yes" : "verdict no"} role="status">${told ? "Right." : "Not yet."} It is ${show(account.result, 6)}, ${account.terms.length ? `made of the ${account.terms.length === 1 ? "one term" : `${account.terms.length} terms`} below` : "straight from its input"}.</p>`}</div>` : null}
    ${map && !covered ? html`<div class="places"><canvas aria-hidden="true" ref=${(/** @type {HTMLCanvasElement | null} */ canvas) => canvas && colourOf(canvas, map, 0, dark)}></canvas>
      <span>What every position contributes, one pixel a position: orange below zero, blue above.</span></div>` : null}
    <${Ledger} account=${account} view=${view} covered=${covered} upTo=${upTo} />
  </aside>`;
}

/** Whether playback has come to a term: calls behind this one come first on the way back. @param {View} view @param {Call} call @param {Term} term */
function played(view, call, { call: user, use }) {
  if (view.step === null || !user) return true;
  const names = view.state.evaluation.calls.map(({ name }) => name);
  return user.name === call.name ? use < view.step : names.indexOf(user.name) > names.indexOf(call.name);
}
