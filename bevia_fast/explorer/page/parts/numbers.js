"use strict";

// Any number of the forward pass, explained: what it is, its formula, and the numbers put in. A number has an address
// such as "weight.0.1.12.5": its kind, and its indices. The numbers put in have addresses of their own.

(() => {
  /** @typedef {import("./../views").App} App */
  /** @typedef {import("./../views").Explained} Explained */
  /** @typedef {import("./../views").Made} Made */
  /** @typedef {import("./../views").Terms} Terms */
  /** @typedef {import("./../views").Context} Context */

  const MOST = 6; // terms of a sum that are shown
  const { number } = Bevia.glyphs;
  const f = number;

  /**
   * Explain a number of the current scene, or return null if it has no such number.
   * @param {App} app
   * @param {string} address
   * @returns {Explained | null}
   */
  function explain(app, address) {
    const [kind, ...rest] = address.split(".");
    const indices = rest.map(Number);
    // a loss is known at every frame, and other numbers only where there is a model
    const trace = app.scene.trace() || (kind.endsWith("loss") ? app.scenes.at(app.state, app.last).trace() : null);
    const make = KINDS[kind];
    if (!make || !trace) return null;
    const { config } = app.header;
    const { dim: C, heads: NH, vocab: V } = config;
    const limits = LIMITS[kind];
    /** @type {Record<string, number>} */
    const sizes = {
      t: trace.length,
      j: trace.length,
      v: V,
      c: C,
      h: NH,
      l: config.layers,
      k: config.hidden,
      s: 2 * config.layers + 2,
      p: config.ctx,
      f: app.header.film.length,
    };
    if (indices.length !== limits.length || indices.some((index, i) => !(index >= 0 && index < sizes[limits[i]])))
      return null;
    const context = {
      app,
      config,
      trace,
      W: trace.model.weights,
      C,
      NH,
      HS: C / NH,
      T: trace.length,
      V,
      pre: config.norm === "pre",
    };
    return { unit: "", formula: "", parts: [], ...make(context, ...indices) };
  }

  /**
   * Write a number that stands in a formula: negative ones in brackets.
   * @param {number} value
   */
  function g(value) {
    return value < 0 ? `(${f(value)})` : f(value);
  }

  /**
   * @param {Context} context
   * @param {number} t
   */
  function at({ app }, t) {
    return `position ${t} “${app.glyphs.signs[app.scene.tokens[t]]}”`;
  }

  /**
   * The largest products of a sum of products, and what is left.
   * @param {string} caption
   * @param {[string, string]} names
   * @param {number} count
   * @param {(i: number) => import("./../views").Term} term
   * @returns {Terms}
   */
  function terms(caption, names, count, term) {
    const all = Array.from({ length: count }, (_, i) => {
      const { label, a, aRef, b, bRef } = term(i);
      return { label, a, aRef, b, bRef, product: a * b };
    }).sort((one, other) => Math.abs(other.product) - Math.abs(one.product));
    const rows = all.slice(0, MOST);
    return {
      caption,
      names,
      rows,
      rest: all.slice(MOST).reduce((total, { product }) => total + product, 0),
      left: all.length - rows.length,
    };
  }

  /** @param {Terms} found */
  function sum({ rows, rest, left }) {
    const shown = rows
      .slice(0, 3)
      .map(({ a, b }) => `${g(a)}·${g(b)}`)
      .join(" + ");
    const others = rows.slice(3).reduce((total, { product }) => total + product, rest);
    const count = left + Math.max(0, rows.length - 3);
    return count ? `${shown} + ${g(others)} from ${count} more` : shown;
  }

  /**
   * A number of a linear layer: a row times a column of a weight, plus a bias.
   * @param {Context} context
   * @param {import("./../views").Linear} what
   * @returns {Explained}
   */
  function linear({ W }, { title, of, input, start, count, ref, name, column, columns, value, operation, inputs }) {
    const weight = W[`${name}.weight`];
    const bias = W[`${name}.bias`];
    const found = terms(`The largest of ${count} products`, [inputs, `${name}.weight`], count, (c) => ({
      label: `channel ${c}`,
      a: input[start + c],
      aRef: ref(c),
      b: weight[c * columns + column],
    }));
    return {
      title,
      of,
      value,
      unit: "",
      formula: "",
      operation,
      filled: sum(found) + (bias ? ` + ${g(bias[column])}` : ""),
      parts: bias ? [{ label: `bias: ${name}.bias[${column}], learned`, value: bias[column] }] : [],
      terms: found,
    };
  }

  /**
   * A number of a layer normalization.
   * @param {Context} context
   * @param {import("./../views").Normalized} what
   * @returns {Explained}
   */
  function norm({ W, C, app }, { title, of, input, t, c, ref, name, operation }) {
    const row = input.subarray(t * C, (t + 1) * C);
    const mean = row.reduce((total, x) => total + x, 0) / C;
    const variance = row.reduce((total, x) => total + (x - mean) ** 2, 0) / C;
    const weight = W[`${name}.weight`][c];
    const bias = W[`${name}.bias`] ? W[`${name}.bias`][c] : 0;
    const { epsilon } = app.header.config;
    return {
      title,
      of,
      unit: "",
      formula: "",
      operation,
      value: ((row[c] - mean) / Math.sqrt(variance + epsilon)) * weight + bias,
      filled: `(${f(row[c])} − ${g(mean)}) / √(${f(variance)} + ${epsilon}) · ${g(weight)} + ${g(bias)}`,
      parts: [
        { label: `x: the stream in channel ${c}`, value: row[c], ref },
        { label: `mean of the ${C} channels`, value: mean },
        { label: "variance of the channels", value: variance },
        { label: `${name}.weight[${c}], learned`, value: weight },
        ...(W[`${name}.bias`] ? [{ label: `${name}.bias[${c}], learned`, value: bias }] : []),
      ],
    };
  }

  /**
   * A share of a softmax over numbers.
   * @param {ArrayLike<number>} row
   * @param {number} index
   */
  function share(row, index) {
    const top = Array.from(row).reduce((most, x) => Math.max(most, x), -Infinity);
    const total = Array.from(row).reduce((all, x) => all + Math.exp(x - top), 0);
    return {
      top,
      total,
      value: Math.exp(row[index] - top) / total,
      filled: `exp(${f(row[index])} − ${g(top)}) / ${f(total)}`,
    };
  }

  /** @type {Record<string, (context: any, ...indices: number[]) => Made>} */
  const KINDS = Object.create(null);
  /** What each index of a kind counts. @type {Record<string, string>} */
  const LIMITS = Object.create(null);

  /**
   * Add a kind of number.
   * @param {string} kind
   * @param {string} limits
   * @param {(context: Context, ...indices: number[]) => Made} make
   */
  function define(kind, limits, make) {
    KINDS[kind] = make;
    LIMITS[kind] = limits;
  }

  /** @param {number} part of 1 */
  const percent = (part) => `= ${f(100 * part, 3)} %`;

  /**
   * Another number, explained.
   * @param {Context} x
   * @param {string} kind
   * @param {...number} indices
   * @returns {Explained}
   */
  function sibling(x, kind, ...indices) {
    const found = explain(x.app, [kind, ...indices].join("."));
    if (!found) throw new Error(`there is no ${kind}`);
    return found;
  }

  /**
   * Return a number of the engine, if the page has those of this text.
   * @param {Context} x
   * @param {string} name
   * @param {number} place
   * @returns {number | undefined}
   */
  function engine({ app }, name, place) {
    if (app.scene.kind !== "engine") return undefined;
    return app.data.tensor(`prompt/${app.state.text}/${name}`)[place];
  }

  Bevia.numbers = { at, define, engine, explain, f, g, linear, norm, percent, share, sibling, sum, terms };
})();
