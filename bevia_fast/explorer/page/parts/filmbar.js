"use strict";

// The film below the text: a slider over its frames, in every view but the film's own.

(() => {
  const { el, put, byId } = Bevia.dom;
  const { number, whole } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const SECOND = 450; // milliseconds that a frame is shown

  const nodes = {
    play: el("button", { type: "button", class: "quiet play" }),
    slider: el("input", { type: "range", id: "film-slider", min: 0, step: 1, "aria-label": "Frame of the film" }),
    text: el("p"),
  };
  let timer = 0;

  /** @param {App} app */
  function build(app) {
    nodes.slider.max = String(app.last);
    nodes.slider.addEventListener("input", () => {
      stop();
      show(app, Number(nodes.slider.value));
    });
    nodes.play.addEventListener("click", () => play(app));
    byId("film-bar").append(el("h2", {}, "Film"), nodes.play, nodes.slider, nodes.text);
  }

  /**
   * Show a frame. The film knows the prompts only, so that what was typed goes.
   * @param {App} app
   * @param {number} frame
   */
  function show(app, frame) {
    const text = app.state.text < 0 ? 0 : app.state.text;
    const at = Math.min(app.state.at, app.header.prompts[text].tokens.length - 1);
    app.set(frame < app.last ? { frame, text, typed: [], at } : { frame });
  }

  /**
   * Show one frame after another, or stop.
   * @param {App} app
   */
  function play(app) {
    if (timer) {
      stop();
    } else {
      show(app, app.state.frame >= app.last ? 0 : app.state.frame + 1);
      timer = window.setInterval(() => {
        show(app, Math.min(app.last, app.state.frame + 1));
        if (app.state.frame >= app.last) stop();
        app.redraw();
      }, SECOND);
    }
    app.redraw();
  }

  function stop() {
    window.clearInterval(timer);
    timer = 0;
  }

  /**
   * Describe a frame.
   * @param {App} app
   * @param {number} index
   */
  function describe(app, index) {
    const frame = app.header.film[index];
    if (!frame) return "";
    const losses = [];
    if (frame.train_loss !== null) losses.push(`training loss ${number(frame.train_loss, 3)}`);
    if (frame.validation_loss !== null) losses.push(`validation loss ${number(frame.validation_loss, 3)}`);
    return [`step ${whole(frame.step)}`, ...losses].join(" · ");
  }

  /** @param {App} app */
  function update(app) {
    byId("film-bar").hidden = app.last === 0 || app.state.view === "film";
    nodes.slider.value = String(app.state.frame);
    nodes.slider.setAttribute("aria-valuetext", describe(app, app.state.frame));
    label(nodes.play);
    const end = app.state.frame === app.last;
    put(nodes.text, `${describe(app, app.state.frame)}${end ? " · the end" : ""}`);
  }

  /** @param {HTMLElement} button */
  function label(button) {
    put(button, timer ? "❚❚" : "▶");
    button.setAttribute("aria-label", timer ? "Stop the film" : "Play the film");
  }

  Bevia.filmbar = { build, describe, label, play, show, stop, update };
})();
