"use strict";

// Colors of numbers. Each ramp goes from the page's own background to its contrast, in lightness that only ever rises or
// falls, so that it reads the same in every kind of color vision, and in grey.

(() => {
  const STEPS = 256;

  const SEQUENTIAL = {
    light: ["#f6f4ee", "#d3e3d7", "#9cc7bf", "#5aa0ac", "#2f7398", "#28477d", "#1f1f54"],
    dark: ["#161b22", "#1b3148", "#20506e", "#2c7789", "#54a397", "#a0cfa5", "#f2f4c8"],
  };
  const DIVERGING = {
    light: ["#7a4a10", "#b98442", "#e2c9a2", "#f6f4ee", "#a9cdd6", "#4a8fa8", "#14506e"],
    dark: ["#f2c27a", "#b07f36", "#5c441f", "#161b22", "#1f4a5c", "#3c8aa3", "#a4dff0"],
  };

  /**
   * Return STEPS colors, as bytes: red, green, blue of each.
   * @param {string[]} anchors
   */
  function ramp(anchors) {
    const points = anchors.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
    const result = new Uint8ClampedArray(3 * STEPS);
    for (let step = 0; step < STEPS; step++) {
      const place = (step / (STEPS - 1)) * (points.length - 1);
      const low = Math.min(Math.floor(place), points.length - 2);
      for (let part = 0; part < 3; part++) {
        result[3 * step + part] = points[low][part] + (place - low) * (points[low + 1][part] - points[low][part]);
      }
    }
    return result;
  }

  const RAMPS = {
    light: { sequential: ramp(SEQUENTIAL.light), diverging: ramp(DIVERGING.light) },
    dark: { sequential: ramp(SEQUENTIAL.dark), diverging: ramp(DIVERGING.dark) },
  };

  /** Whether the page is dark now. */
  function dark() {
    return document.documentElement.dataset.theme === "dark";
  }

  /**
   * Return the ramp of the theme.
   * @param {"sequential" | "diverging"} [kind]
   */
  function current(kind = "sequential") {
    return RAMPS[dark() ? "dark" : "light"][kind];
  }

  /**
   * @param {number} share from 0 to 1
   */
  function index(share) {
    return 3 * Math.round(Math.min(1, Math.max(0, share || 0)) * (STEPS - 1));
  }

  /**
   * Color an element, and its text in black or white, whichever contrasts more (by the formula of WCAG).
   * @param {HTMLElement} element
   * @param {number} share from 0 to 1; NaN: no color
   */
  function paint(element, share) {
    if (Number.isNaN(share)) {
      element.style.backgroundColor = "";
      element.style.color = "";
      return;
    }
    const colors = current();
    const at = index(share);
    element.style.backgroundColor = `rgb(${colors[at]}, ${colors[at + 1]}, ${colors[at + 2]})`;
    element.style.color = luminance(colors, at) > 0.179 ? "#000" : "#fff";
  }

  /**
   * @param {Uint8ClampedArray} colors
   * @param {number} at
   */
  function luminance(colors, at) {
    const [red, green, blue] = [0, 1, 2].map((part) => {
      const value = colors[at + part] / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }

  /**
   * Draw the ramp from left to right.
   * @param {HTMLCanvasElement} canvas
   * @param {"sequential" | "diverging"} [kind]
   */
  function legend(canvas, kind = "sequential") {
    canvas.width = STEPS;
    canvas.height = 1;
    const context = canvas.getContext("2d");
    if (!context) return;
    const image = context.createImageData(STEPS, 1);
    const colors = current(kind);
    for (let step = 0; step < STEPS; step++) {
      for (let part = 0; part < 3; part++) image.data[4 * step + part] = colors[3 * step + part];
      image.data[4 * step + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  /**
   * Return a color of the style sheet.
   * @param {string} name such as "--ink"
   */
  function named(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  Bevia.colors = { current, dark, index, legend, named, paint };
})();
