"use strict";

// Stream: what the model would say if it stopped after each stage, the "logit lens".

(() => {
  const { caption, card, el, put, svg } = Bevia.dom;
  const { probability } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const bars = Bevia.bars.group("Best guesses at this stage");
  const nodes = {
    title: el("h3"),
    caption: caption(),
    drawing: svg("svg", { class: "lines", role: "img" }),
    legend: el("canvas", { "aria-hidden": "true" }),
    way: el("h3"),
    wayCaption: caption(),
  };
  /** @type {ReturnType<typeof Bevia.guesses.make>} */
  let grid;

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  function build(root, app) {
    grid = Bevia.guesses.make("Best guess of each stage at each position", "stage", (stage, at) => {
      const { token } = app.scene.lens();
      const T = app.scene.tokens.length;
      app.set({ stage, at, token: -1, number: `lens.${stage}.${at}.${token[stage * T + at]}` });
    });
    root.append(
      el(
        "p",
        { class: "lead" },
        `A stream of numbers flows through the model, and each attention and each MLP ${app.header.config.residual ? "adds to" : "replaces"} it. Here every stage is read as if it were the last one: each cell is the character that it would guess next, shaded by its probability. Watch guesses form from top to bottom.`,
      ),
      card(
        el(
          "div",
          { class: "row spread" },
          el("h3", {}, "Best guess after each stage"),
          el(
            "div",
            { class: "legend" },
            el("span", { class: "key" }, "underlined: it came next"),
            el("span", { class: "scale" }, "probability 0", el("span", { class: "ramp" }, nodes.legend), "1"),
          ),
        ),
        grid.box,
      ),
      el(
        "div",
        { class: "columns two" },
        card(nodes.title, nodes.caption, bars),
        card(nodes.way, nodes.wayCaption, nodes.drawing),
      ),
    );
  }

  /**
   * Return the names of the stages.
   * @param {App} app
   */
  function names(app) {
    const list = ["embedding"];
    for (let layer = 0; layer < app.header.config.layers; layer++) list.push(`${layer} attention`, `${layer} MLP`);
    return [...list, "output"];
  }

  /** @param {App} app */
  function update(app) {
    const { scene, state } = app;
    const T = scene.tokens.length;
    const { token, probability: p } = scene.lens();
    Bevia.colors.legend(nodes.legend);
    Bevia.guesses.draw(
      grid,
      app,
      names(app).map((label, stage) => ({ label, tokens: token, p, start: stage * T })),
      { row: state.stage, column: state.at, truth: (column) => scene.tokens[column + 1] ?? -1 },
    );
    drawBars(app);
    drawWay(app);
  }

  /** @param {App} app */
  function drawBars(app) {
    const { scene, state, glyphs } = app;
    const all = names(app);
    nodes.title.replaceChildren(
      all[state.stage],
      el("span", { class: "where" }, " after position "),
      String(state.at),
      " ",
      el("bdi", { class: "glyph" }, glyphs.signs[scene.tokens[state.at]]),
    );
    const found = scene.stage(state.stage, state.at);
    const T = scene.tokens.length;
    const { token, probability: best } = scene.lens();
    const next = scene.tokens[state.at + 1];
    const order = found
      ? Array.from(found.keys())
          .sort((a, b) => found[b] - found[a] || a - b)
          .slice(0, 6)
      : [token[state.stage * T + state.at]];
    put(
      nodes.caption,
      found
        ? `Probability of each next character at this stage, from 0 to 1.`
        : "The film keeps the best guess of each stage only.",
    );
    Bevia.bars.draw(
      bars,
      order.map((each) => {
        const value = found ? found[each] : best[state.stage * T + state.at];
        return {
          label: glyphs.signs[each],
          name: glyphs.names[each],
          value,
          text: probability(value),
          mark: each === next ? "came next" : "",
          number: `lens.${state.stage}.${state.at}.${each}`,
        };
      }),
    );
  }

  /**
   * Draw how the probability of the character that came next changes from stage to stage.
   * @param {App} app
   */
  function drawWay(app) {
    const { scene, state, glyphs } = app;
    const all = names(app);
    const T = scene.tokens.length;
    const next = scene.tokens[state.at + 1];
    const exact = scene.kind !== "film" && next !== undefined;
    const { token, probability: best } = scene.lens();
    const shown = exact ? next : token[(all.length - 1) * T + state.at];
    nodes.way.replaceChildren(
      exact ? "The way of " : "The best guess",
      exact ? el("bdi", { class: "glyph" }, glyphs.signs[shown]) : "",
      exact ? ", which came next" : ", whichever it is",
    );
    put(
      nodes.wayCaption,
      exact
        ? "Its probability after each stage: where does the model make up its mind?"
        : "Its probability after each stage.",
    );
    const values = all.map((_, stage) => {
      if (!exact) return best[stage * T + state.at];
      const found = scene.stage(stage, state.at);
      return found ? found[shown] : NaN;
    });
    const narrow = nodes.drawing.clientWidth < 480;
    const ticks = all.map((label, value) => ({
      value,
      text: narrow
        ? label.replace("attention", "a").replace("MLP", "m").replace("embedding", "in").replace("output", "out")
        : label.replace("attention", "attn").replace("embedding", "embed"),
    }));
    const plot = Bevia.lines.frame(
      nodes.drawing,
      {
        label: narrow ? "stage (a: attention, m: MLP)" : "stage",
        place: (stage) => 0.03 + (0.94 * stage) / (all.length - 1),
        ticks,
      },
      {
        label: "probability",
        place: (value) => value,
        ticks: [0, 0.25, 0.5, 0.75, 1].map((value) => ({ value, text: String(value) })),
      },
      220,
    );
    const points = values.map(
      (value, stage) => /** @type {[number, number]} */ ([plot.across(stage), plot.down(value)]),
    );
    nodes.drawing.append(svg("path", { class: "line main", d: Bevia.lines.path(points) }));
    points.forEach(([x, y], stage) =>
      nodes.drawing.append(
        svg("circle", {
          class: stage === state.stage ? "dot chosen" : "dot",
          cx: x,
          cy: y,
          r: stage === state.stage ? 6 : 3.5,
        }),
      ),
    );
    nodes.drawing.setAttribute(
      "aria-label",
      `Probability after each stage: ${all.map((label, stage) => `${label} ${probability(values[stage])}`).join(", ")}`,
    );
  }

  Bevia.views.stream = { build, update };
})();
