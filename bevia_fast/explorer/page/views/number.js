"use strict";

// This number: what any value is, its formula with the numbers put in, and the line of code that computes it.

(() => {
  const { byId, el } = Bevia.dom;
  const { number } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */
  /** @typedef {import("./../views").Explained} Explained */

  const body = el("div", { class: "explained" });
  const layer = el("select", { id: "layer" });
  const head = el("select", { id: "head" });
  const chain = el("ol", { class: "chain" });
  const trail = el("nav", { class: "trail-of-numbers", "aria-label": "Numbers that led here" });
  /** Numbers that were asked for, one from within the other. @type {string[]} */
  let path = [];

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  function build(root, app) {
    root.append(
      el(
        "p",
        { class: "lead" },
        "Nothing in the model is magic: every number on this page is a few additions and multiplications of other numbers. Choose one here or in any view, then follow the numbers that were put in, down to the ones that the training learned.",
      ),
      el(
        "div",
        { class: "columns number" },
        el("div", { class: "card" }, trail, body),
        el(
          "div",
          { class: "card" },
          el("h3", {}, "On the way"),
          el("p", { class: "caption" }, "The forward pass in order, at the cursor. Start anywhere."),
          el(
            "div",
            { class: "row fields" },
            el("label", { for: "layer" }, "Layer"),
            layer,
            el("label", { for: "head" }, "Head"),
            head,
          ),
          chain,
        ),
      ),
    );
    for (const [select, name, count] of /** @type {[HTMLSelectElement, string, number][]} */ ([
      [layer, "layer", app.header.config.layers],
      [head, "head", app.header.config.heads],
    ])) {
      select.append(...Array.from({ length: count }, (_, index) => el("option", { value: index }, String(index))));
      select.addEventListener("change", () => app.set({ [name]: Number(select.value) }));
    }
    byId("dock").addEventListener("keydown", (event) => {
      if (event.key === "Escape") app.set({ number: "" });
    });
  }

  /** @param {App} app */
  function update(app) {
    const { state } = app;
    const address = state.number || usual(app);
    remember(address);
    trail.replaceChildren(...path.slice(-4, -1).flatMap((each) => link(app, each) || []));
    trail.hidden = path.length < 2;
    body.replaceChildren(...described(app, address, true));
    drawChain(app, address);
  }

  /**
   * The number that is shown if none was chosen.
   * @param {App} app
   */
  function usual({ state, scene }) {
    const { at } = state;
    return at + 1 < scene.tokens.length ? `probability.${at}.${scene.tokens[at + 1]}` : `surprise.${at}`;
  }

  /** @param {string} address */
  function remember(address) {
    const known = path.indexOf(address);
    if (known >= 0) path = path.slice(0, known + 1);
    else path = [...path.slice(-12), address];
  }

  /**
   * @param {App} app
   * @param {string} address
   */
  function link(app, address) {
    const found = Bevia.numbers.explain(app, address);
    return found && el("button", { type: "button", class: "quiet", "data-number": address }, `← ${found.title}`);
  }

  /**
   * Show the number below the other views.
   * @param {App} app
   */
  function dock(app) {
    const { state } = app;
    const root = byId("dock");
    const open = state.number !== "" && state.view !== "number";
    document.body.classList.toggle("docked", open);
    if (!open) {
      if (!root.hidden) {
        root.hidden = true;
        path = [];
      }
      return;
    }
    remember(state.number);
    const focused = root.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement).dataset.number
      : "";
    root.hidden = false;
    root.replaceChildren(
      el(
        "div",
        { class: "dock-actions" },
        path.length > 1 ? link(app, path[path.length - 2]) : null,
        el("button", { type: "button", class: "quiet", click: () => app.set({ view: "number" }) }, "Go deeper"),
        el(
          "button",
          { type: "button", class: "quiet", "aria-label": "Close", click: () => app.set({ number: "" }) },
          "✕",
        ),
      ),
      el("div", { class: "explained" }, ...described(app, state.number, false)),
    );
    // the numbers put in are buttons, and following one must not lose the focus
    if (focused) /** @type {HTMLElement | null} */ (root.querySelector("button"))?.focus();
  }

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
        el("p", { class: "caption" }, found.of),
        el(
          "p",
          { class: "big" },
          number(found.value, 6),
          found.unit ? el("span", { class: "unit" }, ` ${found.unit}`) : null,
        ),
        found.engine === undefined || !Number.isFinite(found.engine)
          ? null
          : el(
              "p",
              { class: "caption agrees" },
              `The engine computed ${exactly(found.engine, app.header.dtype)} in ${app.header.dtype}; this page, in double precision, ${exactly(found.value, "float64")}.`,
            ),
        found.note && all ? el("p", { class: "caption" }, found.note) : null,
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
        el(
          "div",
          {},
          el("dt", {}, label),
          el(
            "dd",
            {},
            ref ? el("button", { type: "button", class: "value", "data-number": ref }, number(value)) : number(value),
          ),
        ),
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
    const cell = (value, ref) =>
      el(
        "td",
        { class: "number" },
        ref ? el("button", { type: "button", class: "value", "data-number": ref }, number(value)) : number(value),
      );
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

  /**
   * List the operations of the forward pass at the cursor.
   * @param {App} app
   * @param {string} address
   */
  function drawChain(app, address) {
    const { at: t, layer: l, head: h } = app.state;
    const next = app.scene.tokens[t + 1] ?? app.scene.guesses(t).tokens[0];
    const c = h * (app.header.config.dim / app.header.config.heads);
    const norm = app.header.config.norm === "pre";
    const steps = [
      ["embedding", `embedding.${t}.${c}`],
      ...(norm ? [["layer norm", `norm1.${l}.${t}.${c}`]] : []),
      ["query", `q.${l}.${t}.${c}`],
      ["key", `k.${l}.${t}.${c}`],
      ["value", `v.${l}.${t}.${c}`],
      ["score", `score.${l}.${h}.${t}.${t}`],
      ["scaled score", `scaled.${l}.${h}.${t}.${t}`],
      ["attention weight", `weight.${l}.${h}.${t}.${t}`],
      ["mixed values", `mixed.${l}.${t}.${c}`],
      ["output of the attention", `attention.${l}.${t}.${c}`],
      ["stream after attention", `stream1.${l}.${t}.${c}`],
      ...(norm ? [["layer norm", `norm2.${l}.${t}.${c}`]] : []),
      ["hidden unit", `hidden.${l}.${t}.0`],
      [`${app.header.config.activation}`, `activated.${l}.${t}.0`],
      ["output of the MLP", `mlp.${l}.${t}.${c}`],
      ["stream after MLP", `stream2.${l}.${t}.${c}`],
      ["final norm", `final.${t}.${c}`],
      ["logit", `logit.${t}.${next}`],
      ["probability", `probability.${t}.${next}`],
      ...(app.scene.tokens.length > t + 1 ? [["surprise", `surprise.${t + 1}`]] : []),
    ];
    layer.value = String(l);
    head.value = String(h);
    const kind = address.split(".")[0];
    chain.replaceChildren(
      ...steps.map(([name, ref]) => {
        const inside = /^[a-z]+[12]?\.\d+\.\d+\.\d+/.test(ref) && !/^(final|embedding)/.test(ref);
        return el(
          "li",
          { class: inside ? "inside" : "" },
          el(
            "button",
            {
              type: "button",
              class: ref === address ? "step chosen" : ref.split(".")[0] === kind ? "step kin" : "step",
              "data-number": ref,
              "aria-current": ref === address && "step",
            },
            name,
            el("span", { class: "value-text" }, shortly(app, ref)),
          ),
        );
      }),
    );
  }

  /**
   * @param {App} app
   * @param {string} ref
   */
  function shortly(app, ref) {
    const found = Bevia.numbers.explain(app, ref);
    return found ? number(found.value, 4) : "–";
  }

  Bevia.views.number = { build, update, dock };
})();
