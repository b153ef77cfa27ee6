"use strict";

// Attention: where each position looks, in each layer and head.

(() => {
  const { caption, card, el, put, repeat, roving } = Bevia.dom;
  const { number, probability } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const MAPS = /** @type {const} */ ({ weights: "Weights", scaled: "Scores / √head size", scores: "Scores" });
  const MARGIN = 22;

  const nodes = {
    heads: el("div", { class: "heads", role: "grid", "aria-label": "Layers and heads" }),
    choice: el("div", { class: "segments", role: "group", "aria-label": "What the map shows" }),
    map: el("canvas", { class: "map", role: "img" }),
    box: el("div", { class: "map-box" }),
    readout: el("p", { class: "readout", "aria-live": "off" }),
    legend: el("canvas", { "aria-hidden": "true" }),
    low: el("span"),
    high: el("span"),
    habit: el("p", { class: "habit" }),
    title: el("h3"),
    table: el("tbody"),
    caption: caption(),
    mapTitle: el("h3"),
  };
  let over = { row: -1, column: -1 };

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  function build(root, app) {
    roving(nodes.heads, ".head", (cell) => pick(app, cell));
    nodes.heads.addEventListener("click", (event) => {
      const cell = /** @type {HTMLElement} */ (event.target).closest(".head");
      if (cell) pick(app, /** @type {HTMLElement} */ (cell));
    });
    const { scale } = app.header.config;
    for (const [name, label] of Object.entries(MAPS)) {
      nodes.choice.append(
        el(
          "button",
          { type: "button", "data-map": name, click: () => app.set({ map: /** @type {"weights"} */ (name) }) },
          name === "scaled" && !scale ? "Scores, not scaled" : label,
        ),
      );
    }
    nodes.map.addEventListener("pointermove", (event) => point(app, event));
    nodes.map.addEventListener("pointerleave", () => {
      over = { row: -1, column: -1 };
      app.hover(-1);
      drawMap(app);
    });
    nodes.map.addEventListener("click", (event) => {
      const { row, column } = place(app, event);
      if (row < 0) return;
      const kind = { weights: "weight", scaled: "scaled", scores: "score" }[app.state.map];
      app.set({ at: row, token: -1, number: `${kind}.${app.state.layer}.${app.state.head}.${row}.${column}` });
    });
    nodes.box.append(nodes.map);
    root.append(
      el(
        "p",
        { class: "lead" },
        "Before it guesses, each position gathers from the positions before it. A head's weights say how much from where; every row of weights adds up to 1. ",
        el("em", {}, "Attention is not explanation: "),
        "a large weight says that something was gathered, not why, nor that the guess depends on it.",
      ),
      el(
        "div",
        { class: "columns attention" },
        card(
          el("h3", {}, "Layers × heads"),
          caption(
            "Each picture is one head. Down: layers; across: heads; shade: weights, full from 0.6 on. Choose one.",
          ),
          nodes.heads,
          nodes.habit,
        ),
        card(
          el("div", { class: "row spread" }, nodes.mapTitle, nodes.choice),
          nodes.box,
          nodes.readout,
          el("div", { class: "legend" }, nodes.low, el("span", { class: "ramp" }, nodes.legend), nodes.high),
        ),
        card(
          nodes.title,
          nodes.caption,
          el(
            "div",
            { class: "scroll tall", tabindex: 0, role: "group", "aria-label": "Weights of the position" },
            el(
              "table",
              {},
              el(
                "thead",
                {},
                el(
                  "tr",
                  {},
                  ...["looks at", "q · k", scale ? "/ √size" : "not scaled", "weight"].map((text, index) =>
                    el("th", { scope: "col", class: index ? "number" : "" }, text),
                  ),
                ),
              ),
              nodes.table,
            ),
          ),
        ),
      ),
    );
  }

  /**
   * @param {App} app
   * @param {HTMLElement} cell
   */
  function pick(app, cell) {
    app.set({ layer: Number(cell.dataset.layer), head: Number(cell.dataset.head) });
  }

  /**
   * Return the row and the column of the map at the pointer, or -1 outside of it.
   * @param {App} app
   * @param {MouseEvent} event
   */
  function place(app, event) {
    const T = app.scene.tokens.length;
    const box = nodes.map.getBoundingClientRect();
    const cell = (box.width - MARGIN) / T;
    const column = Math.floor((event.clientX - box.left - MARGIN) / cell);
    const row = Math.floor((event.clientY - box.top - MARGIN) / cell);
    const inside = row >= 0 && column >= 0 && row < T && column <= row;
    return inside ? { row, column } : { row: -1, column: -1 };
  }

  /**
   * @param {App} app
   * @param {MouseEvent} event
   */
  function point(app, event) {
    over = place(app, event);
    app.hover(over.row);
    drawMap(app);
  }

  /** @param {App} app */
  function update(app) {
    Bevia.heads.draw(nodes.heads, app);
    Bevia.heads.habit(nodes.habit, app);
    drawMap(app);
    drawTable(app);
  }

  /**
   * Return what scores are divided by: √size, or 1 in a model of the lab that leaves it out.
   * @param {App} app
   */
  function divisor(app) {
    const { dim, heads, scale } = app.header.config;
    return scale ? Math.sqrt(dim / heads) : 1;
  }

  /**
   * Return the numbers that the map shows.
   * @param {App} app
   */
  function shown(app) {
    const { scene, state } = app;
    const T = scene.tokens.length;
    const scores = scene.scores(state.layer);
    const start = state.head * T * T;
    if (state.map === "weights" || !scores)
      return { values: scene.weights(state.layer), start, kind: /** @type {const} */ ("sequential"), low: 0, high: 1 };
    const scale = state.map === "scaled" ? 1 / divisor(app) : 1;
    // both maps of scores have the colors of the unscaled ones, so that one sees what the scale does
    const size = Bevia.heatmap.extent(scores, start, T);
    const values = Float64Array.from(scores.subarray(start, start + T * T), (score) => score * scale);
    return { values, start: 0, kind: /** @type {const} */ ("diverging"), low: -size, high: size };
  }

  /** @param {App} app */
  function drawMap(app) {
    const { scene, state, glyphs } = app;
    const T = scene.tokens.length;
    const width = Math.max(200, Math.min(nodes.box.clientWidth || 480, 560));
    const matrix = shown(app);
    nodes.map.style.width = nodes.map.style.height = `${width}px`;
    const context = Bevia.heatmap.draw(
      nodes.map,
      { ...matrix, rows: T, columns: T, causal: true },
      { width, height: width, left: MARGIN, top: MARGIN },
    );
    if (!context) return;
    const cell = (width - MARGIN) / T;
    if (over.row >= T) over = { row: -1, column: -1 };
    const row = over.row >= 0 ? over.row : state.at;
    context.font = `${Math.min(12, Math.max(8, cell))}px ui-monospace, "DejaVu Sans Mono", monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const every = Math.ceil(9 / cell);
    const ink = Bevia.colors.named("--ink-2");
    const accent = Bevia.colors.named("--accent");
    scene.tokens.forEach((token, at) => {
      const chosen = at === row || at === over.column;
      if (at % every && !chosen) return;
      context.fillStyle = chosen ? accent : ink;
      const sign = glyphs.brief[token];
      if (every === 1 || at % every === 0) {
        context.fillText(sign, MARGIN + (at + 0.5) * cell, MARGIN / 2 + 2);
        context.fillText(sign, MARGIN / 2, MARGIN + (at + 0.5) * cell);
      }
    });
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    context.strokeRect(MARGIN + 0.75, MARGIN + row * cell, (row + 1) * cell - 0.75, cell);
    if (over.column >= 0) context.strokeRect(MARGIN + over.column * cell, MARGIN + over.row * cell, cell, cell);
    describeMap(app, matrix, row);
  }

  /**
   * @param {App} app
   * @param {ReturnType<typeof shown>} matrix
   * @param {number} row
   */
  function describeMap(app, matrix, row) {
    const { scene, state, glyphs } = app;
    const T = scene.tokens.length;
    const film = scene.kind === "film";
    for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (nodes.choice.querySelectorAll("button"))) {
      const on = button.dataset.map === (film ? "weights" : state.map);
      button.setAttribute("aria-pressed", String(on));
      button.disabled = film && button.dataset.map !== "weights";
    }
    put(nodes.mapTitle, `Layer ${state.layer}, head ${state.head}`);
    const column = over.column;
    const value = column >= 0 ? matrix.values[matrix.start + row * T + column] : NaN;
    const written = film ? value.toFixed(2) : matrix.kind === "sequential" ? probability(value) : number(value);
    put(
      nodes.readout,
      column < 0
        ? "Down: the position that looks. Across: the position that it looks at."
        : `${row} “${glyphs.signs[scene.tokens[row]]}” looks at ${column} “${glyphs.signs[scene.tokens[column]]}”: ${written}`,
    );
    nodes.map.setAttribute(
      "aria-label",
      `Map of layer ${state.layer}, head ${state.head}: ${T} by ${T} positions. The table has its numbers.`,
    );
    Bevia.colors.legend(nodes.legend, matrix.kind);
    put(nodes.low, matrix.kind === "sequential" ? "weight 0" : `score ${number(matrix.low, 3)}`);
    put(nodes.high, matrix.kind === "sequential" ? "1" : number(matrix.high, 3));
  }

  /** @param {App} app */
  function drawTable(app) {
    const { scene, state, glyphs } = app;
    const { layer, head } = state;
    const from = app.hovered >= 0 ? app.hovered : state.at;
    const T = scene.tokens.length;
    const first = (head * T + from) * T;
    const weights = scene.weights(layer);
    const scores = scene.scores(layer);
    const size = app.header.config.dim / app.header.config.heads;
    nodes.title.replaceChildren(
      "Where ",
      el("bdi", { class: "glyph" }, glyphs.signs[scene.tokens[from]]),
      " looks",
      el("span", { class: "where" }, ` position ${from}`),
    );
    put(
      nodes.caption,
      scores
        ? `Query times key, ${app.header.config.scale ? `divided by √${size} (the head's size)` : "not scaled"}, through a softmax: the weight.`
        : "The film keeps the weights, to within 0.002, and no scores.",
    );
    const order = Array.from({ length: from + 1 }, (_, j) => j).sort(
      (a, b) => weights[first + b] - weights[first + a] || a - b,
    );
    const rows = repeat(nodes.table, order.length, () =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }),
        ...[1, 2, 3].map(() => el("td", { class: "number" }, el("button", { type: "button", class: "value" }))),
      ),
    );
    rows.forEach((row, index) => {
      const j = order[index];
      row.children[0].replaceChildren(
        el("span", { class: "where" }, String(j)),
        " ",
        el("bdi", { class: "glyph" }, glyphs.signs[scene.tokens[j]]),
      );
      const values = [
        ["score", scores ? number(scores[first + j]) : "–"],
        ["scaled", scores ? number(scores[first + j] / divisor(app)) : "–"],
        ["weight", scores ? probability(weights[first + j]) : weights[first + j].toFixed(2)],
      ];
      values.forEach(([kind, text], at) => {
        const button = /** @type {HTMLButtonElement} */ (row.children[at + 1].firstElementChild);
        put(button, text);
        button.dataset.number = `${kind}.${layer}.${head}.${from}.${j}`;
        button.disabled = text === "–";
        button.setAttribute("aria-label", `${kind} ${text}, at position ${j}, ${glyphs.names[scene.tokens[j]]}`);
      });
    });
  }

  Bevia.views.attention = { build, update };
})();
