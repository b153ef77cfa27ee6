"use strict";

// All heads of all layers, as small pictures.

(() => {
  const { el, reach, repeat } = Bevia.dom;
  const { number } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  /**
   * Draw a picture of each head.
   * @param {HTMLElement} root
   * @param {App} app
   */
  function draw(root, app) {
    const { scene, state } = app;
    const { layers, heads } = app.header.config;
    const T = scene.tokens.length;
    const size = Math.max(20, Math.min(80, Math.floor(((root.clientWidth || 300) - 22) / heads) - 6));
    const rows = repeat(root, layers + 1, () => el("div", { role: "row", class: "line" }));
    rows.forEach((row, index) => {
      const layer = index - 1;
      const cells = repeat(row, heads + 1, (column) =>
        column
          ? index
            ? el(
                "div",
                { role: "gridcell", class: "head", tabindex: -1, "data-layer": layer, "data-head": column - 1 },
                el("canvas", { "aria-hidden": "true" }),
              )
            : el("div", { role: "columnheader", class: "over" }, String(column - 1))
          : el(
              "div",
              { role: index ? "rowheader" : "columnheader", class: "side" },
              index ? String(layer) : el("span", { class: "unseen" }, "layer"),
            ),
      );
      if (!index) {
        for (const cell of cells.slice(1)) cell.style.width = `${size}px`;
        return;
      }
      const weights = scene.weights(layer);
      cells.slice(1).forEach((cell, head) => {
        const here = layer === state.layer && head === state.head;
        cell.classList.toggle("chosen", here);
        cell.setAttribute("aria-selected", String(here));
        cell.setAttribute("aria-label", `layer ${layer}, head ${head}`);
        const canvas = /** @type {HTMLCanvasElement} */ (cell.firstElementChild);
        Bevia.heatmap.small(
          canvas,
          {
            values: weights,
            start: head * T * T,
            rows: T,
            columns: T,
            kind: "sequential",
            low: 0,
            high: 0.6,
            causal: true,
          },
          size,
        );
        if (here) reach(root, ".head", cell);
      });
    });
  }

  /**
   * Say how the head attends on the whole, on this text.
   * @param {HTMLElement} line
   * @param {App} app
   */
  function habit(line, { scene, state }) {
    const T = scene.tokens.length;
    const weights = scene.weights(state.layer);
    let itself = 0;
    let one = 0;
    let back = 0;
    for (let i = 1; i < T; i++) {
      for (let j = 0; j <= i; j++) {
        const weight = weights[(state.head * T + i) * T + j] / (T - 1);
        if (j === i) itself += weight;
        if (j === i - 1) one += weight;
        back += weight * (i - j);
      }
    }
    line.hidden = T < 2;
    line.replaceChildren(
      el("strong", {}, `Head ${state.head} of layer ${state.layer}`),
      ` on this text, on average: ${itself.toFixed(2)} of its weight goes to the position itself, ${one.toFixed(2)} to the one before, and it looks ${number(back, 2)} positions back.`,
    );
  }

  Bevia.heads = { draw, habit };
})();
