// The view library carried along in built form (see vendor/README.md): components as functions, markup as tagged templates.

/** @typedef {any} Markup */

/** @type {{html: (strings: TemplateStringsArray, ...values: any[]) => Markup, render: (markup: Markup, root: Element) => void, Component: any}} */
export const { html, render, Component } = /** @type {any} */ (globalThis).htmPreact;
