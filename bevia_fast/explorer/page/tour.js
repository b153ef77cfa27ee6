"use strict";

// The guided tour: a few stops, each of which sets the state, points at something, and says what it is.

(() => {
  const { byId, el } = Bevia.dom;

  /** @typedef {import("./views").App} App */
  /** @typedef {{title: string, text: string, show: Partial<import("./views").State>, at: string}} Stop */

  /** @type {HTMLElement | null} */
  let pointed = null;
  let shown = 0;
  /** @type {HTMLElement | null} */
  let before = null;

  /**
   * Return the stops for a model.
   * @param {App} app
   * @returns {Stop[]}
   */
  function stops(app) {
    const { config, prompts } = app.header;
    const text = prompts.length ? 0 : -1;
    const clean = { text, typed: [], frame: app.last, number: "", temperature: 1, topK: 0, topP: 1 };
    const at = Math.max(1, app.scenes.base(text).length >> 1);
    const found = [
      {
        title: "One model, one question",
        at: "#text-card",
        show: { ...clean, view: "read", at },
        text: `This is a language model with ${config.layers} ${config.layers === 1 ? "layer" : "layers"}, trained from nothing. It does one thing: it reads a text, and guesses the next character. A strong shade marks a character that surprised it.`,
      },
      {
        title: "What it expects",
        at: "#view-read .bars",
        show: { ...clean, view: "read", at },
        text: `These bars are its guess for what comes after the framed character. It never says one character; it gives each one a probability. Click any character in the text to see the guess after it, or walk with the arrow keys.`,
      },
      {
        title: "Cold and hot",
        at: "#view-read .stack .card",
        show: { ...clean, view: "read", at, temperature: 0.4 },
        text: "To write, the model draws from the bars. A low temperature sharpens them, and its writing becomes safe and dull; a high one flattens them, and it becomes wild. Move the slider, then let it write.",
      },
      {
        title: "Your own words",
        at: "#text-card .typing",
        show: { ...clean, view: "read", at },
        text: "Type something here: the model reads along with each key, in this page, without a network. Everything else on the page follows your text.",
      },
      {
        title: "Looking back",
        at: "#view-attention .columns > :nth-child(2)",
        show: { ...clean, view: "attention", at: Math.max(at, 2) },
        text: `To guess well, a position has to know what came before it. Each of the ${config.layers * config.heads} heads gathers from earlier positions in its own way. The framed row shows where the chosen character looks. The upper half is empty: no position sees the future.`,
      },
      {
        title: "Making up its mind",
        at: "#view-stream .card",
        show: { ...clean, view: "stream", at },
        text: `From top to bottom, each row asks the model too early: what would you say now? At first it hardly knows more than the last character; further down the guesses become right, which is underlined, and sure, which is a strong shade.`,
      },
      {
        title: "Alike",
        at: "#view-embeddings .scatter-box",
        show: { ...clean, view: "embeddings", at, token: app.glyphs.texts.indexOf("e") },
        text: `Nobody told the model what a vowel or a digit is. It gave each character a list of numbers, and those that are used alike ended up near each other.`,
      },
      ...(app.last
        ? [
            {
              title: "How it came about",
              at: "#view-film .card",
              show: { ...clean, view: /** @type {const} */ ("film"), at, pin: 0, frame: Math.round(app.last / 2) },
              text: "At step 0 the model guesses blindly. Drag along the curve, or press ▶: the loss falls, and the shades in the text fade as it learns. Two frames stand side by side here: before training, and half-way through the film.",
            },
          ]
        : []),
      {
        title: "No magic",
        at: "#view-number .card",
        show: {
          ...clean,
          view: "number",
          at,
          number: app.scenes.base(text).length > at + 1 ? `probability.${at}.${app.scenes.base(text)[at + 1]}` : "",
        },
        text: "Every number can be taken apart: its formula, the numbers put in, and the line of code. Click a number that was put in to go one step further back. That is all: now look around.",
      },
    ];
    return /** @type {Stop[]} */ (found);
  }

  /** @param {App} app */
  function build(app) {
    byId("tour-start").addEventListener("click", () => go(app, 1));
    byId("tour").addEventListener("keydown", (event) => {
      if (event.key === "Escape") go(app, 0);
      if (event.key === "ArrowRight") go(app, app.state.tour + 1);
      if (event.key === "ArrowLeft" && app.state.tour > 1) go(app, app.state.tour - 1);
    });
  }

  /**
   * @param {App} app
   * @param {number} stop from 1 on; 0 ends the tour
   */
  function go(app, stop) {
    const all = stops(app);
    if (stop > all.length) stop = 0;
    app.set(stop ? { ...all[stop - 1].show, tour: stop } : { tour: 0 });
  }

  /** @param {App} app */
  function update(app) {
    const root = byId("tour");
    const all = stops(app);
    const number = app.state.tour;
    const stop = all[number - 1];
    document.body.classList.toggle("touring", Boolean(stop));
    if (number === shown) return;
    shown = number;
    pointed?.classList.remove("pointed");
    pointed = null;
    if (!stop) {
      root.hidden = true;
      before?.focus();
      before = null;
      return;
    }
    if (root.hidden) before = /** @type {HTMLElement} */ (document.activeElement);
    const next = el(
      "button",
      { type: "button", class: "primary", click: () => go(app, number + 1) },
      number === all.length ? "Done" : "Next",
    );
    root.replaceChildren(
      el("p", { class: "count" }, `${number} of ${all.length}`),
      el("h2", { id: "tour-title" }, stop.title),
      el("p", { "aria-live": "polite" }, stop.text),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", class: "quiet", click: () => go(app, 0) }, "End the tour"),
        el("span", { class: "space" }),
        number > 1 ? el("button", { type: "button", class: "quiet", click: () => go(app, number - 1) }, "Back") : null,
        next,
      ),
    );
    root.hidden = false;
    next.focus({ preventScroll: true });
    pointed = document.querySelector(stop.at);
    if (!pointed) return;
    pointed.classList.add("pointed");
    reveal(pointed, root);
  }

  /**
   * Scroll as little as it takes to see an element between the tabs and the card of the tour.
   * @param {Element} element
   * @param {HTMLElement} card
   */
  function reveal(element, card) {
    const place = element.getBoundingClientRect();
    card.classList.toggle("left", place.left > window.innerWidth / 2);
    const free = card.getBoundingClientRect();
    // a card that is as wide as the window hides what is beside it
    const bottom = free.width > window.innerWidth / 2 ? free.top - 16 : window.innerHeight - 24;
    const most = place.top - byId("tabs").offsetHeight - 16;
    const top = place.top < byId("tabs").offsetHeight ? most : Math.max(0, Math.min(place.bottom - bottom, most));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    window.scrollBy({ top, behavior: still ? "auto" : "smooth" });
  }

  Bevia.tour = { build, update };
})();
