"use strict";

// The text, on every page of the views: the shared cursor moves in it, and each view colors it in its own way.

(() => {
  const { byId, el, numeral, put, reach, repeat, roving } = Bevia.dom;
  const { number } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const WHOSE = {
    engine: "computed by the training engine, exact",
    film: "kept in the film",
    page: "computed in this page, in double precision",
  };

  const nodes = {
    select: el("select", { id: "text-select", "aria-label": "Which text" }),
    origin: el("p", { class: "origin" }),
    before: el("span", { class: "before", title: "outside of the model's window" }),
    characters: el("div", {
      class: "characters",
      role: "listbox",
      "aria-label": "The text",
      "aria-orientation": "horizontal",
    }),
    legend: el("canvas", { "aria-hidden": "true" }),
    low: el("span"),
    high: el("span"),
    meaning: el("span", { class: "meaning" }),
    readout: el("p", { class: "readout" }),
    blind: el("span", { class: "blind" }),
    guess: el("span", { class: "blind-guess" }, "a blind guess"),
    typing: el("textarea", {
      id: "typing",
      rows: 1,
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      placeholder: "type here, and the model reads along",
    }),
    refused: el("p", { class: "refused", role: "status" }),
  };

  /** @param {App} app */
  function build(app) {
    const { header } = app;
    header.prompts.forEach((prompt, index) =>
      nodes.select.append(el("option", { value: index }, `${index + 1} · ${start(app, prompt.tokens)}`)),
    );
    nodes.select.append(el("option", { value: -1 }, "a blank page"));
    nodes.select.addEventListener("change", () => {
      const text = Number(nodes.select.value);
      app.set({ text, typed: [], at: Math.min(app.state.at, text < 0 ? 0 : header.prompts[text].tokens.length - 1) });
    });
    roving(nodes.characters, ".character", (element) => choose(app, element));
    nodes.characters.addEventListener("click", (event) => {
      const element = /** @type {HTMLElement} */ (event.target).closest(".character");
      if (element) choose(app, /** @type {HTMLElement} */ (element));
    });
    nodes.characters.addEventListener("pointerover", (event) => {
      const element = /** @type {HTMLElement} */ (event.target).closest(".character");
      if (element && event.pointerType === "mouse") app.hover(Number(/** @type {HTMLElement} */ (element).dataset.at));
    });
    nodes.characters.addEventListener("pointerleave", () => app.hover(-1));
    nodes.typing.addEventListener("input", () => type(app));
    byId("text-card").append(
      el(
        "div",
        { class: "row" },
        el("h2", { id: "text-title" }, "The text"),
        nodes.select,
        nodes.origin,
        el(
          "div",
          { class: "legend" },
          nodes.meaning,
          el(
            "span",
            { class: "scale" },
            nodes.low,
            el("span", { class: "ramp" }, nodes.legend, nodes.blind),
            nodes.high,
          ),
          nodes.guess,
        ),
      ),
      el("div", { class: "page", dir: "ltr" }, nodes.before, nodes.characters),
      el(
        "div",
        { class: "row typing" },
        nodes.readout,
        el("label", { for: "typing" }, "Continue it"),
        nodes.typing,
        nodes.refused,
      ),
    );
  }

  /**
   * @param {App} app
   * @param {number[]} tokens
   */
  function start(app, tokens) {
    return `${tokens
      .slice(0, 18)
      .map((token) => (app.glyphs.texts[token] === " " ? " " : app.glyphs.signs[token]))
      .join("")} …`;
  }

  /**
   * @param {App} app
   * @param {HTMLElement} element
   */
  function choose(app, element) {
    const at = Number(element.dataset.at);
    app.set({ at, token: -1 });
  }

  /**
   * Take what is in the field as the continuation.
   * @param {App} app
   */
  function type(app) {
    const { known, unknown } = app.glyphs.encode(nodes.typing.value);
    if (unknown.length) {
      nodes.typing.value = field(app, known);
      put(
        nodes.refused,
        `This model does not know ${unknown.map((character) => `“${character}”`).join(", ")}: the text that it was trained on has none.`,
      );
    } else {
      put(nodes.refused, "");
    }
    extend(app, known);
  }

  /**
   * Return tokens as the field holds them: it knows no carriage return.
   * @param {App} app
   * @param {number[]} tokens
   */
  function field(app, tokens) {
    return app.glyphs.decode(tokens).replace(/\r/g, "␍");
  }

  /**
   * Make `typed` the continuation, with the cursor at its end.
   * @param {App} app
   * @param {number[]} typed
   */
  function extend(app, typed) {
    const text = app.state.text === -2 && !typed.length ? -1 : app.state.text;
    const length = app.scenes.base(text).length + typed.length;
    app.set({
      text,
      typed,
      frame: app.last,
      number: "",
      at: length - Bevia.traces.windowStart(length, app.header.config.ctx) - 1,
    });
  }

  /** @param {App} app */
  function update(app) {
    const { scene, state, glyphs } = app;
    nodes.select.value = String(Math.max(-1, state.text));
    const origin = state.text < 0 ? "a blank page" : app.header.prompts[state.text].origin;
    put(nodes.origin, `${state.typed.length ? "continued" : origin} · ${app.half ? WHOSE[scene.kind].replace("exact", "rounded") : WHOSE[scene.kind]}`);
    const continued = field(app, state.typed);
    if (nodes.typing.value !== continued && document.activeElement !== nodes.typing) nodes.typing.value = continued;
    put(
      nodes.before,
      scene.before
        .map((token) => (glyphs.texts[token] === "\n" ? "↵" : glyphs.signs[token] === "␣" ? " " : glyphs.signs[token]))
        .join(""),
    );
    const looking = state.view === "attention";
    const from = looking && app.hovered >= 0 ? app.hovered : state.at;
    const cells = repeat(nodes.characters, scene.tokens.length, (at) =>
      el("span", { class: "character", role: "option", tabindex: -1, "data-at": at }),
    );
    const most = Math.max(1, Math.ceil(Math.log(app.header.config.vocab)));
    const T = scene.tokens.length;
    const weights = scene.weights(state.layer);
    // Shades of a row go up to its largest weight, or they would hardly be seen; but an even row stays pale.
    let strongest = 0.2;
    for (let at = 0; at <= from; at++) strongest = Math.max(strongest, weights[(state.head * T + from) * T + at]);
    cells.forEach((cell, at) => {
      const token = scene.tokens[at];
      const text = glyphs.signs[token];
      put(cell, glyphs.shown[token]);
      cell.classList.toggle("faint", text !== glyphs.texts[token]);
      cell.classList.toggle("wide", text.length > 2);
      cell.classList.toggle("turn", glyphs.texts[token].endsWith("\n"));
      const weight = weights[(state.head * T + from) * T + at];
      const value = looking ? (at > from ? NaN : weight / strongest) : scene.surprise[at] / most;
      Bevia.colors.paint(cell, value);
      cell.classList.toggle("chosen", at === state.at);
      cell.classList.toggle("hovered", looking && at === app.hovered);
      cell.classList.toggle("future", looking && at > from);
      cell.setAttribute("aria-selected", String(at === state.at));
      cell.setAttribute(
        "aria-label",
        `position ${at}, ${glyphs.names[token]}, ${
          looking
            ? at > from
              ? "not seen yet"
              : `weight ${Bevia.glyphs.probability(weight)}`
            : at
              ? `surprise ${number(scene.surprise[at], 3)} nats`
              : "the first one"
        }`,
      );
    });
    reach(nodes.characters, ".character", cells[state.at]);
    say(app, looking, from);
    Bevia.colors.legend(nodes.legend);
    put(nodes.low, "0");
    put(nodes.high, looking ? strongest.toFixed(2) : String(most));
    put(nodes.meaning, looking ? "attention weight" : "surprise, nats");
    const blind = Math.log(app.header.config.vocab);
    nodes.blind.style.left = `${(100 * blind) / most}%`;
    nodes.blind.hidden = nodes.guess.hidden = looking;
    nodes.guess.title = `ln ${app.header.config.vocab} = ${number(blind, 3)} nats: each character is as likely as the others`;
  }

  /**
   * Say in words what the cursor is at.
   * @param {App} app
   * @param {boolean} looking
   * @param {number} from
   */
  function say(app, looking, from) {
    const { scene, state, glyphs } = app;
    const token = scene.tokens[from];
    const where = [
      el("span", { class: "where" }, `position ${from}`),
      " ",
      el("bdi", { class: "glyph" }, glyphs.signs[token]),
      " ",
    ];
    if (looking) {
      nodes.readout.replaceChildren(
        ...where,
        `looks back at these characters, in layer ${state.layer}, head ${state.head}.`,
      );
      return;
    }
    const surprise = scene.surprise[from];
    nodes.readout.replaceChildren(
      ...where,
      ...(Number.isNaN(surprise)
        ? [`is the first character: the model has nothing to guess it from.`]
        : [
            "surprised the model by ",
            numeral(`surprise.${from}`, `${number(surprise, 3)} nats`),
            `: it had given it probability ${Bevia.glyphs.probability(Math.exp(-surprise))}.`,
          ]),
    );
  }

  Bevia.text = { build, extend, update };
})();
