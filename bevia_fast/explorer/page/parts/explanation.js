"use strict";

// A number, explained in words, formula, numbers put in, and the line of code.

(() => {
  const { caption, el, numeral } = Bevia.dom;
  const { number } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */
  /** @typedef {import("./../views").Explained} Explained */

  /**
   * @param {App} app
   * @param {string} address
   * @param {boolean} all
   * @returns {Node[]}
   */
  function described(app, address, all) {
    const found = Bevia.numbers.explain(app, address);
    if (!found) {
      if (app.scene.kind === "film") {
        return [
          el("h3", {}, "A number of the film"),
          el(
            "p",
            {},
            "Of this step, the page holds results, and not the numbers that were put in. At the end of the training it holds both.",
          ),
          el(
            "button",
            { type: "button", class: "primary", click: () => app.set({ frame: app.last }) },
            "Go to the end of the training",
          ),
        ];
      }
      return [
        el("h3", {}, "No such number"),
        el("p", {}, "This text has no number at this place. Choose another one."),
      ];
    }
    const source = app.header.sources[found.operation];
    const formula = found.formula || (source ? source.formula : "");
    return [
      el(
        "div",
        { class: "what" },
        el("h3", {}, found.title),
        caption(found.of),
        el(
          "p",
          { class: "big" },
          number(found.value, 6),
          found.unit ? el("span", { class: "unit" }, ` ${found.unit}`) : null,
        ),
        found.engine === undefined || !Number.isFinite(found.engine)
          ? null
          : caption(
              app.half
                ? `The engine computed about ${number(found.engine)}, which this page has in half precision. From weights in half precision, it computes ${number(found.value)}.`
                : `The engine computed ${exactly(found.engine, app.header.dtype)} in ${app.header.dtype}; this page, in double precision, ${exactly(found.value, "float64")}.`,
            ),
        found.note && all ? caption(found.note) : null,
      ),
      el(
        "div",
        { class: "how" },
        formula
          ? el("p", { class: "formula" }, el("span", { class: "tag" }, "formula"), el("code", {}, formula))
          : null,
        el(
          "p",
          { class: "formula filled" },
          el("span", { class: "tag" }, "put in"),
          el("code", {}, `${found.filled} = ${number(found.value, 5)}`),
        ),
        source
          ? el(
              "p",
              { class: "formula source" },
              el("span", { class: "tag" }, "code"),
              el(
                "span",
                {},
                el("code", {}, source.snippet),
                el("span", { class: "file" }, `${source.file} · ${source.function} · line ${source.line}`),
              ),
            )
          : null,
      ),
      el("div", { class: "inputs" }, parts(found), found.terms ? table(found.terms, all) : null),
    ];
  }

  /**
   * @param {number} value
   * @param {string} dtype
   */
  function exactly(value, dtype) {
    return value
      .toPrecision(dtype === "float32" ? 9 : 12)
      .replace("-", "−")
      .replace(/e(.+)/, "×10^$1");
  }

  /** @param {Explained} found */
  function parts(found) {
    if (!found.parts.length) return null;
    return el(
      "dl",
      {},
      ...found.parts.map(({ label, value, ref }) =>
        el("div", {}, el("dt", {}, label), el("dd", {}, ref ? numeral(ref, number(value)) : number(value))),
      ),
    );
  }

  /**
   * @param {import("./../views").Terms} terms
   * @param {boolean} all
   */
  function table(terms, all) {
    const rows = all ? terms.rows : terms.rows.slice(0, 3);
    const hidden = terms.rows.slice(rows.length);
    const rest = hidden.reduce((sum, { product }) => sum + product, terms.rest);
    const left = terms.left + hidden.length;
    /** @param {number} value @param {string | undefined} ref */
    const cell = (value, ref) => el("td", { class: "number" }, ref ? numeral(ref, number(value)) : number(value));
    return el(
      "div",
      { class: "scroll", tabindex: 0, role: "group", "aria-label": terms.caption },
      el(
        "table",
        {},
        el("caption", {}, terms.caption),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td"),
            ...[...terms.names, "product"].map((name) => el("th", { scope: "col", class: "number" }, name)),
          ),
        ),
        el(
          "tbody",
          {},
          ...rows.map(({ label, a, aRef, b, bRef, product }) =>
            el("tr", {}, el("th", { scope: "row" }, label), cell(a, aRef), cell(b, bRef), cell(product, undefined)),
          ),
          left
            ? el("tr", {}, el("th", { scope: "row" }, `${left} more`), el("td"), el("td"), cell(rest, undefined))
            : null,
        ),
      ),
    );
  }

  Bevia.explanation = { described };
})();
