"use strict";

// This number: what any value is, its formula with the numbers put in, and the line of code that computes it.

(() => {
  const { byId, caption, card, el } = Bevia.dom;
  const { number } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

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
        card(trail, body),
        card(
          el("h3", {}, "On the way"),
          caption("The forward pass in order, at the cursor. Start anywhere."),
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
    body.replaceChildren(...Bevia.explanation.described(app, address, true));
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
      el("div", { class: "explained" }, ...Bevia.explanation.described(app, state.number, false)),
    );
    // the numbers put in are buttons, and following one must not lose the focus
    if (focused) /** @type {HTMLElement | null} */ (root.querySelector("button"))?.focus();
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
