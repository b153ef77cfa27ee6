"use strict";

// Film: how the model came about. The loss curve is the scrubber, and all views follow.

(() => {
  const { caption, card, el, numeral, put, svg } = Bevia.dom;
  const { number, probability, whole } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const nodes = {
    drawing: svg("svg", { class: "lines scrubber" }),
    key: el("p", { class: "kinds" }),
    play: el("button", { type: "button", class: "quiet play" }),
    axis: el("button", { type: "button", class: "quiet" }),
    pin: el("button", { type: "button", class: "quiet" }),
    now: el("p", { class: "readout" }),
    sides: el("div", { class: "sides" }),
    legend: el("canvas", { "aria-hidden": "true" }),
    filmed: el("div", { class: "stack" }),
    curve: card(),
    none: el("p", { class: "card empty" }),
  };
  /** @type {ReturnType<typeof Bevia.guesses.make>} */
  let grid;
  /** @type {ReturnType<typeof Bevia.lines.frame> | undefined} */
  let plot;

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  function build(root, app) {
    grid = Bevia.guesses.make("Best guess at each frame of the film", "step", (frame, at) => {
      Bevia.filmbar.show(app, frame);
      app.set({ at, token: -1 });
    });
    nodes.play.addEventListener("click", () => Bevia.filmbar.play(app));
    nodes.axis.addEventListener("click", () => app.set({ axis: app.state.axis === "log" ? "linear" : "log" }));
    nodes.pin.addEventListener("click", () =>
      app.set({ pin: app.state.pin === app.state.frame ? -1 : app.state.frame }),
    );
    nodes.drawing.addEventListener("pointerdown", (event) => {
      nodes.drawing.setPointerCapture(event.pointerId);
      drag(app, event);
    });
    nodes.drawing.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) drag(app, event);
    });
    nodes.drawing.addEventListener("keydown", (event) => {
      const jump = {
        ArrowRight: 1,
        ArrowUp: 1,
        ArrowLeft: -1,
        ArrowDown: -1,
        PageUp: 4,
        PageDown: -4,
        Home: -Infinity,
        End: Infinity,
      }[event.key];
      if (jump === undefined || !app.last) return;
      event.preventDefault();
      Bevia.filmbar.show(app, Math.max(0, Math.min(app.last, app.state.frame + jump)));
    });
    nodes.key.append(
      el("span", { class: "train" }, "training, each step's batch"),
      el("span", { class: "validation" }, "validation"),
    );
    nodes.filmed.append(
      nodes.sides,
      card(
        el(
          "div",
          { class: "row spread" },
          el("h3", {}, "Best guess at each frame"),
          el(
            "div",
            { class: "legend" },
            el("span", { class: "key" }, "underlined: it came next"),
            el("span", { class: "scale" }, "probability 0", el("span", { class: "ramp" }, nodes.legend), "1"),
          ),
        ),
        caption(
          `Each row is the model at one step of its training; each cell is the character that it would guess next there. A row is a frame: choose one.`,
        ),
        grid.box,
      ),
    );
    nodes.curve.append(
      el("div", { class: "row spread" }, el("h3", {}, "Loss"), nodes.key),
      nodes.drawing,
      el("div", { class: "row" }, nodes.play, nodes.pin, nodes.axis, nodes.now),
    );
    root.append(
      el(
        "p",
        { class: "lead" },
        "Training nudges the weights again and again so that the text surprises the model less: the loss, its mean surprise, falls. Drag along the curve, and everything on this page shows the model as it was at that step.",
      ),
      nodes.curve,
      nodes.none,
      nodes.filmed,
    );
  }

  /**
   * Show the frame that is nearest to the pointer.
   * @param {App} app
   * @param {PointerEvent} event
   */
  function drag(app, event) {
    if (!plot || !app.last) return;
    const box = nodes.drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) * plot.width) / box.width;
    const { across } = plot;
    const distances = app.header.film.map(({ step }) => Math.abs(across(step) - x));
    Bevia.filmbar.show(app, distances.indexOf(Math.min(...distances)));
  }

  /** @param {App} app */
  function update(app) {
    const { last, state } = app;
    nodes.curve.hidden = !last && !app.header.curve.steps.length;
    plot = Bevia.losses.draw(nodes.drawing, app);
    Bevia.filmbar.label(nodes.play);
    put(nodes.axis, `Steps: ${state.axis === "log" ? "logarithmic" : "linear"}`);
    put(
      nodes.pin,
      state.pin === state.frame ? "Unpin" : state.pin >= 0 ? "Pin this one instead" : "Pin this frame to compare",
    );
    say(app);
    nodes.filmed.hidden = nodes.play.hidden = nodes.pin.hidden = last === 0;
    nodes.none.hidden = last > 0;
    put(nodes.none, app.header.notes.find((note) => note.includes("film")) || "This run has no film.");
    if (!last) return;
    Bevia.colors.legend(nodes.legend);
    drawSides(app);
    drawGuesses(app);
  }

  /**
   * Say at which step this is, and with which losses.
   * @param {App} app
   */
  function say({ header, state }) {
    const frame = header.film[state.frame];
    if (!frame) return;
    nodes.now.replaceChildren(`step ${whole(frame.step)}`);
    const losses = /** @type {[string, number | null][]} */ ([
      ["train", frame.train_loss],
      ["valid", frame.validation_loss],
    ]);
    for (const [kind, loss] of losses) {
      if (loss === null) continue;
      nodes.now.append(
        ` · ${kind === "train" ? "training" : "validation"} loss `,
        numeral(`${kind}loss.${state.frame}`, number(loss, 3)),
      );
    }
  }

  /**
   * Show one or two frames: the text by its surprise, the attention of the head, the best guesses.
   * @param {App} app
   */
  function drawSides(app) {
    const { state } = app;
    const frames = state.pin >= 0 && state.pin !== state.frame ? [state.pin, state.frame] : [state.frame];
    const sides = Bevia.dom.repeat(nodes.sides, frames.length, side);
    nodes.sides.classList.toggle("both", frames.length > 1);
    sides.forEach((element, index) => fill(app, element, frames[index]));
  }

  function side() {
    return el(
      "article",
      { class: "card side" },
      el("h3"),
      el("p", { class: "readout" }),
      el("div", { class: "characters small", "aria-hidden": "true" }),
      el(
        "div",
        { class: "halves" },
        el("div", {}, caption(), el("canvas", { class: "map", role: "img" })),
        el("div", {}, caption(), Bevia.bars.group("Best guesses at this frame")),
      ),
    );
  }

  /**
   * @param {App} app
   * @param {HTMLElement} element
   * @param {number} frame
   */
  function fill(app, element, frame) {
    const scene = app.scenes.at(app.state, frame);
    const { state, glyphs } = app;
    const T = scene.tokens.length;
    const [title, mean, characters, halves] = /** @type {HTMLElement[]} */ ([...element.children]);
    put(title, Bevia.filmbar.describe(app, frame));
    const surprises = scene.surprise.slice(1);
    const average = surprises.reduce((sum, value) => sum + value, 0) / (surprises.length || 1);
    put(mean, `Mean surprise of this text: ${number(average, 3)} nats. Shade: surprise of each character.`);
    const most = Math.max(1, Math.ceil(Math.log(app.header.config.vocab)));
    Bevia.dom
      .repeat(characters, T, () => el("span", { class: "character" }))
      .forEach((cell, at) => {
        put(cell, glyphs.shown[scene.tokens[at]]);
        Bevia.colors.paint(cell, scene.surprise[at] / most);
        cell.classList.toggle("chosen", at === state.at);
      });
    const [left, right] = /** @type {HTMLElement[]} */ ([...halves.children]);
    put(left.children[0], `Attention of layer ${state.layer}, head ${state.head}`);
    const canvas = /** @type {HTMLCanvasElement} */ (left.children[1]);
    const width = Math.max(120, Math.min(left.clientWidth || 200, 200));
    canvas.setAttribute(
      "aria-label",
      `Attention weights of layer ${state.layer}, head ${state.head} at ${Bevia.filmbar.describe(app, frame)}`,
    );
    Bevia.heatmap.small(
      canvas,
      {
        values: scene.weights(state.layer),
        start: state.head * T * T,
        rows: T,
        columns: T,
        kind: "sequential",
        low: 0,
        high: 0.6,
        causal: true,
      },
      width,
    );
    right.children[0].replaceChildren(
      `Expected after position ${state.at} `,
      el("bdi", { class: "glyph" }, glyphs.signs[scene.tokens[state.at]]),
    );
    const { tokens, p } = scene.guesses(state.at);
    const bars = /** @type {HTMLElement} */ (right.children[1]);
    Bevia.bars.draw(
      bars,
      tokens
        .slice(0, 6)
        .map((token, index) => ({
          label: glyphs.signs[token],
          name: glyphs.names[token],
          value: p[index],
          text: probability(p[index]),
          mark: token === scene.tokens[state.at + 1] ? "came next" : "",
          number: frame === state.frame ? `probability.${state.at}.${token}` : "",
        })),
    );
  }

  /** @param {App} app */
  function drawGuesses(app) {
    const { state } = app;
    const rows = app.header.film.map(({ step }, frame) => {
      const scene = app.scenes.at(
        state.typed.length || state.text < 0 ? { ...state, text: Math.max(0, state.text), typed: [] } : state,
        frame,
      );
      const { token, probability: p } = scene.lens();
      return { label: whole(step), tokens: token, p, start: token.length - scene.tokens.length };
    });
    const known = !state.typed.length && state.text >= 0;
    const box = /** @type {HTMLElement} */ (grid.box.parentElement);
    box.hidden = !known;
    if (!known) return;
    Bevia.guesses.draw(grid, app, rows, {
      row: state.frame,
      column: state.at,
      truth: (column) => app.scene.tokens[column + 1] ?? -1,
    });
  }

  Bevia.views.film = { build, update };
})();
