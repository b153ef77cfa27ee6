"use strict";

// Matrices on a canvas: one cell for each number.

(() => {
  /** @typedef {import("./../views").Numbers} Numbers */
  /** @typedef {import("./../views").Matrix} Matrix */

  /**
   * Draw a matrix onto a canvas of width x height pixels of the page, from (left, top) on.
   * @param {HTMLCanvasElement} canvas
   * @param {Matrix} matrix
   * @param {{width: number, height: number, left?: number, top?: number}} box
   */
  function draw(canvas, matrix, { width, height, left = 0, top = 0 }) {
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    if (!context) return null;
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture(matrix), left, top, width - left, height - top);
    return context;
  }

  /** @param {Matrix} matrix */
  function picture({ values, start, rows, columns, kind, low, high, causal }) {
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    if (!context) return canvas;
    const image = context.createImageData(columns, rows);
    const colors = Bevia.colors.current(kind);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        if (causal && column > row) continue;
        const place = row * columns + column;
        const at = Bevia.colors.index((values[start + place] - low) / (high - low));
        image.data[4 * place] = colors[at];
        image.data[4 * place + 1] = colors[at + 1];
        image.data[4 * place + 2] = colors[at + 2];
        image.data[4 * place + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /**
   * Return the largest size of the numbers of a causal matrix (rows, rows), for colors on both sides of 0.
   * @param {Numbers} values
   * @param {number} start
   * @param {number} rows
   */
  function extent(values, start, rows) {
    let size = 0;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column <= row; column++) size = Math.max(size, Math.abs(values[start + row * rows + column]));
    }
    return size || 1;
  }

  Bevia.heatmap = { draw, extent };
})();
