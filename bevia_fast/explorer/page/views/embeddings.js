"use strict";

// Embeddings: which characters, and which positions, the model holds to be alike.

(() => {
  const { caption, card, el, numeral, put, reach, repeat, roving, svg } = Bevia.dom;
  const { number, whole } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const NEAREST = 8;

  const KINDS = [
    ["lower", "small letters"],
    ["upper", "capital letters"],
    ["digit", "digits"],
    ["sign", "signs"],
    ["space", "spaces"],
  ];

  const bars = Bevia.bars.group("Nearest characters");
  const nodes = {
    map: el("div", { class: "scatter", role: "listbox", "aria-label": "Map of the characters" }),
    trail: svg("svg", { class: "trail", "aria-hidden": "true" }),
    title: el("h3"),
    caption: caption(),
    positions: el("canvas", { class: "map", role: "img", "aria-label": "Similarity of the positions" }),
    box: el("div", { class: "map-box" }),
    positionText: el("p", { class: "readout" }),
    legend: el("canvas", { "aria-hidden": "true" }),
    across: el("span", { class: "along across" }),
    down: el("span", { class: "along down" }),
    mapCaption: caption(),
    key: el("p", { class: "kinds" }),
  };
  /** @type {Float64Array | undefined} */
  let positions;

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  function build(root, app) {
    const pick = (/** @type {HTMLElement} */ element) => app.set({ token: Number(element.dataset.token) });
    roving(nodes.map, ".point", pick);
    nodes.map.addEventListener("click", (event) => {
      const point = /** @type {HTMLElement} */ (event.target).closest(".point");
      if (point) pick(/** @type {HTMLElement} */ (point));
    });
    const present = new Set(app.glyphs.kinds);
    nodes.key.append(
      ...KINDS.filter(([kind]) => present.has(kind)).map(([kind, label]) => el("span", { class: kind }, label)),
    );
    nodes.positions.addEventListener("click", (event) => {
      const box = nodes.positions.getBoundingClientRect();
      const at = Math.floor(((event.clientY - box.top) / box.height) * app.header.config.ctx);
      if (at >= 0 && at < app.scene.tokens.length) app.set({ at, token: -1 });
    });
    nodes.box.append(nodes.positions);
    root.append(
      el(
        "p",
        { class: "lead" },
        `The model turns each character into a list of numbers, its embedding. Characters that are used alike get lists that are alike: here, they come to lie near each other. Choose one.`,
      ),
      el(
        "div",
        { class: "columns map-and-list" },
        card(
          el("div", { class: "row spread" }, el("h3", {}, `Map of the characters`), nodes.key),
          el("div", { class: "scatter-box" }, nodes.trail, nodes.map, nodes.across, nodes.down),
          nodes.mapCaption,
        ),
        el(
          "div",
          { class: "stack" },
          card(nodes.title, nodes.caption, bars),
          app.header.config.rotary ? "" : card(
            el("h3", {}, "Positions"),
            caption(
              "Each position has an embedding of its own. Row and column are positions, from 0 at the upper left; the shade is how alike they are, after training.",
            ),
            nodes.box,
            el(
              "div",
              { class: "legend" },
              el("span", {}, "cosine −1"),
              el("span", { class: "ramp" }, nodes.legend),
              el("span", {}, "1"),
            ),
            nodes.positionText,
          ),
        ),
      ),
    );
  }

  /** @param {App} app */
  function update(app) {
    const { scene, state } = app;
    const token = state.token >= 0 ? state.token : scene.tokens[state.at];
    drawMap(app, token);
    drawNearest(app, token);
    if (!app.header.config.rotary) drawPositions(app);
  }

  /**
   * @param {App} app
   * @param {number} token
   */
  function drawMap(app, token) {
    const { glyphs, state } = app;
    const { vocab: V } = app.header.config;
    const now = Bevia.places.of(app, state.frame);
    const { left, top, low, high } = Bevia.places.scale(app);
    const points = repeat(nodes.map, V, (each) =>
      el(
        "span",
        {
          class: `point ${glyphs.kinds[each]}`,
          role: "option",
          tabindex: -1,
          "data-token": each,
          "aria-label": glyphs.names[each],
        },
        glyphs.signs[each],
      ),
    );
    points.forEach((point, each) => {
      point.style.left = `${left(now[2 * each])}%`;
      point.style.top = `${top(now[2 * each + 1])}%`;
      point.classList.toggle("chosen", each === token);
      point.setAttribute("aria-selected", String(each === token));
    });
    reach(nodes.map, ".point", points[token]);
    nodes.trail.setAttribute("viewBox", "0 0 100 100");
    nodes.trail.setAttribute("preserveAspectRatio", "none");
    const frames = Array.from({ length: state.frame + 1 }, (_, frame) => Bevia.places.of(app, frame));
    nodes.trail.replaceChildren(
      svg("path", { d: `M${left(0)} 0V100M0 ${top(0)}H100`, class: "cross" }),
      svg("path", {
        class: "way",
        d: Bevia.lines.path(frames.map((place) => [left(place[2 * token]), top(place[2 * token + 1])])),
      }),
    );
    put(nodes.across, `first direction, from ${number(low[0], 2)} to ${number(high[0], 2)}`);
    put(nodes.down, `second direction, from ${number(low[1], 2)} to ${number(high[1], 2)}`);
    put(
      nodes.mapCaption,
      `The two directions, of ${app.header.config.dim}, in which the embeddings differ most after training, in the embeddings' own units.${app.last ? ` They stay the same through the film; the line is the way of the chosen character.` : ""}`,
    );
  }

  /**
   * @param {App} app
   * @param {number} token
   */
  function drawNearest(app, token) {
    const { glyphs, state } = app;
    const { vocab: V, dim: C } = app.header.config;
    const exact = state.frame === app.last;
    nodes.title.replaceChildren(
      "Nearest to ",
      el("bdi", { class: "glyph" }, glyphs.signs[token]),
      el("span", { class: "where" }, glyphs.names[token] === glyphs.signs[token] ? "" : ` ${glyphs.names[token]}`),
    );
    put(
      nodes.caption,
      exact
        ? `Cosine of the angle between two embeddings of ${C} numbers: 1 is the same direction, 0 is unrelated.`
        : "At this frame the page knows the map only: these are the nearest there, by distance.",
    );
    const table = exact ? app.data.tensor("model/wte.weight") : Bevia.places.of(app, state.frame);
    const width = exact ? C : 2;
    const near = Array.from({ length: V }, (_, other) => ({
      other,
      value: exact
        ? cosine(table, token, other, width)
        : Math.hypot(table[2 * token] - table[2 * other], table[2 * token + 1] - table[2 * other + 1]),
    }))
      .filter(({ other }) => other !== token)
      .sort((a, b) => (exact ? b.value - a.value : a.value - b.value))
      .slice(0, NEAREST);
    const most = exact ? 1 : near.reduce((size, { value }) => Math.max(size, value), 1e-9);
    Bevia.bars.draw(
      bars,
      near.map(({ other, value }) => ({
        label: glyphs.signs[other],
        name: glyphs.names[other],
        value: Math.max(0, value),
        text: number(value, 3),
        number: exact ? `cosine.${token}.${other}` : "",
      })),
      most,
    );
  }

  /**
   * Return the cosine of the angle between two rows.
   * @param {ArrayLike<number>} table
   * @param {number} a
   * @param {number} b
   * @param {number} width
   */
  function cosine(table, a, b, width) {
    let product = 0;
    let one = 0;
    let other = 0;
    for (let c = 0; c < width; c++) {
      product += table[a * width + c] * table[b * width + c];
      one += table[a * width + c] ** 2;
      other += table[b * width + c] ** 2;
    }
    return product / (Math.sqrt(one * other) || 1);
  }

  /** @param {App} app */
  function drawPositions(app) {
    const { ctx, dim: C } = app.header.config;
    if (!positions) {
      const table = app.data.tensor("model/wpe.weight");
      positions = new Float64Array(ctx * ctx);
      for (let a = 0; a < ctx; a++)
        for (let b = 0; b <= a; b++) positions[a * ctx + b] = positions[b * ctx + a] = cosine(table, a, b, C);
    }
    const width = Math.max(160, Math.min(nodes.box.clientWidth || 240, 240));
    nodes.positions.style.width = nodes.positions.style.height = `${width}px`;
    const context = Bevia.heatmap.draw(
      nodes.positions,
      { values: positions, start: 0, rows: ctx, columns: ctx, kind: "diverging", low: -1, high: 1 },
      { width, height: width },
    );
    const { at } = app.state;
    if (context) {
      context.strokeStyle = Bevia.colors.named("--accent");
      context.lineWidth = 1.5;
      context.strokeRect(0.75, (at * width) / ctx, width - 1.5, width / ctx);
    }
    Bevia.colors.legend(nodes.legend, "diverging");
    const all = positions;
    const near = Array.from({ length: ctx }, (_, other) => other)
      .filter((other) => other !== at)
      .sort((a, b) => all[at * ctx + b] - all[at * ctx + a])
      .slice(0, 3);
    nodes.positionText.replaceChildren(
      `Position ${whole(at)} is most like `,
      ...near.flatMap((other, index) => [
        index ? ", " : "",
        numeral(`alike.${at}.${other}`, `${other} (${number(all[at * ctx + other], 3)})`),
      ]),
    );
    nodes.positionText.hidden = !near.length;
  }

  Bevia.views.embeddings = { build, update, cosine };
})();
