"use strict";

// The loss curve, on which the frames of the film lie.

(() => {
  const { svg } = Bevia.dom;
  const { number, whole } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  /**
   * Draw the curve, the frames, and the one that is shown. Returns where a point lies.
   * @param {SVGSVGElement} drawing
   * @param {App} app
   */
  function draw(drawing, app) {
    const { curve, film } = app.header;
    const { state } = app;
    const blind = Math.log(app.header.config.vocab);
    const losses = [...curve.train, ...curve.validation].filter((loss) => loss !== null);
    const steps = [...curve.steps, ...film.map(({ step }) => step), 1];
    const end = steps.reduce((most, step) => Math.max(most, step), 1);
    const high = Math.max(1, blind * 1.06, losses.reduce((most, loss) => Math.max(most, loss), 0) * 1.02);
    const low = Math.max(0, Math.floor(2 * losses.reduce((least, loss) => Math.min(least, loss), high)) / 2 - 0.5);
    const first = film.length > 1 ? film[1].step : 10;
    // A model changes most at the beginning: log(1 + step/first) spreads the frames, and keeps step 0.
    const log = (/** @type {number} */ step) => Math.log1p(step / first) / Math.log1p(end / first);
    const place = state.axis === "log" ? log : (/** @type {number} */ step) => step / end;
    const ticks = (
      state.axis === "log"
        ? [0, ...[1, 2, 5].flatMap((each) => [1, 10, 100, 1e3, 1e4, 1e5].map((power) => each * power))]
            .sort((a, b) => a - b)
            .filter((step) => step < end && (step === 0 || step > first / 2))
        : Bevia.lines.round(0, end, 6)
    ).filter((step) => step === 0 || place(end) - place(step) > 0.06);
    const plot = Bevia.lines.frame(
      drawing,
      {
        label: `training step${state.axis === "log" ? ", logarithmic" : ""}`,
        place,
        ticks: [...ticks, end].map((value) => ({ value, text: whole(value) })),
      },
      {
        label: `loss, nats a character`,
        place: (loss) => (loss - low) / (high - low),
        ticks: Bevia.lines.round(low, high, 5).map((value) => ({ value, text: number(value, 2) })),
      },
      280,
    );
    const { across, down, box, width, height } = plot;
    const points = (/** @type {(number | null)[]} */ list) =>
      list.flatMap((loss, index) =>
        loss === null ? [] : [/** @type {[number, number]} */ ([across(curve.steps[index]), down(loss)])],
      );
    drawing.append(
      svg("line", { class: "blind", x1: box.left, x2: width - box.right, y1: down(blind), y2: down(blind) }),
      svg(
        "text",
        { class: "tick", x: width - box.right - 12, y: down(blind) - 5, "text-anchor": "end" },
        `a blind guess: ln ${app.header.config.vocab} = ${number(blind, 3)}`,
      ),
      svg("path", { class: "line train", d: Bevia.lines.path(points(curve.train)) }),
      svg("path", { class: "line validation", d: Bevia.lines.path(points(curve.validation)) }),
      ...points(curve.validation).map(([x, y]) => svg("circle", { class: "dot validation", cx: x, cy: y, r: 3 })),
    );
    if (app.last) {
      film.forEach(({ step }, index) =>
        drawing.append(
          svg("line", {
            class: index === state.frame ? "frame chosen" : index === state.pin ? "frame pinned" : "frame",
            x1: across(step),
            x2: across(step),
            y1: index === state.frame || index === state.pin ? box.top : height - box.bottom - 8,
            y2: height - box.bottom,
          }),
        ),
      );
      const { step, validation_loss: validation, train_loss: train } = film[state.frame];
      drawing.append(
        svg("circle", { class: "knob", cx: across(step), cy: down(validation ?? train ?? nearest(curve, step)), r: 8 }),
      );
      if (state.pin >= 0)
        drawing.append(
          svg("text", { class: "tick pinned", x: across(film[state.pin].step) + 4, y: box.top + 10 }, "pinned"),
        );
    }
    Bevia.dom.assign(
      drawing,
      app.last
        ? {
            role: "slider",
            tabindex: 0,
            "aria-label": "Frame of the film, on the loss curve",
            "aria-valuemin": 0,
            "aria-valuemax": app.last,
            "aria-valuenow": state.frame,
            "aria-valuetext": Bevia.filmbar.describe(app, state.frame),
          }
        : { role: "img", "aria-label": `Loss curve: ${curve.steps.length} points` },
    );
    return plot;
  }

  /**
   * Return the training loss that is nearest to a step.
   * @param {App["header"]["curve"]} curve
   * @param {number} step
   */
  function nearest(curve, step) {
    let best = NaN;
    let distance = Infinity;
    curve.train.forEach((loss, index) => {
      if (loss === null || Math.abs(curve.steps[index] - step) >= distance) return;
      [best, distance] = [loss, Math.abs(curve.steps[index] - step)];
    });
    return best;
  }

  Bevia.losses = { draw };
})();
