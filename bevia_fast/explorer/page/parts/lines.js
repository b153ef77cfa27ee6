"use strict";

// Drawings with two axes.

(() => {
  const { svg } = Bevia.dom;

  /** @typedef {import("./../views").Axis} Axis */

  /**
   * Draw a frame with both axes into a drawing of the width of its box. Returns where a point lies, in pixels.
   * @param {SVGSVGElement} drawing
   * @param {Axis} x
   * @param {Axis} y
   * @param {number} height
   */
  function frame(drawing, x, y, height) {
    const width = Math.max(240, drawing.clientWidth || 600);
    const box = { left: 48, right: 12, top: 12, bottom: 44 };
    const inner = { width: width - box.left - box.right, height: height - box.top - box.bottom };
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", String(height));
    drawing.replaceChildren();
    /** @param {number} value */
    const across = (value) => box.left + x.place(value) * inner.width;
    /** @param {number} value */
    const down = (value) => box.top + (1 - y.place(value)) * inner.height;
    for (const { value, text } of y.ticks) {
      drawing.append(
        svg("line", { class: "rule", x1: box.left, x2: width - box.right, y1: down(value), y2: down(value) }),
        svg("text", { class: "tick", x: box.left - 8, y: down(value) + 4, "text-anchor": "end" }, text),
      );
    }
    let free = -Infinity;
    for (const { value, text } of x.ticks) {
      const size = 7 * text.length;
      if (across(value) - size / 2 < free) continue; // labels do not touch
      free = across(value) + size / 2 + 6;
      const end = across(value) + size / 2 > width;
      drawing.append(
        svg(
          "text",
          {
            class: "tick",
            x: end ? width : across(value),
            y: height - box.bottom + 18,
            "text-anchor": end ? "end" : "middle",
          },
          text,
        ),
      );
    }
    drawing.append(
      svg("line", {
        class: "axis",
        x1: box.left,
        x2: width - box.right,
        y1: height - box.bottom,
        y2: height - box.bottom,
      }),
      svg("text", { class: "label", x: box.left + inner.width / 2, y: height - 6, "text-anchor": "middle" }, x.label),
      svg(
        "text",
        {
          class: "label",
          x: 0,
          y: 0,
          "text-anchor": "middle",
          transform: `translate(11 ${box.top + inner.height / 2}) rotate(-90)`,
        },
        y.label,
      ),
    );
    return { across, down, box, width, height };
  }

  /**
   * Return the path through points, broken where a value is missing.
   * @param {[number, number][]} points in pixels
   */
  function path(points) {
    let pen = "M";
    return points
      .map(([x, y]) => {
        if (!Number.isFinite(y)) {
          pen = "M";
          return "";
        }
        const part = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
        pen = "L";
        return part;
      })
      .join("");
  }

  /**
   * Return round numbers from 0 (or `least`) to `most`, about `count` of them.
   * @param {number} least
   * @param {number} most
   * @param {number} count
   */
  function round(least, most, count) {
    const rough = (most - least) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = /** @type {number} */ ([1, 2, 5, 10].find((each) => each * power >= rough)) * power;
    const found = [];
    for (let value = Math.ceil(least / step) * step; value <= most + step * 1e-9; value += step) found.push(value);
    return found;
  }

  Bevia.lines = { frame, path, round };
})();
