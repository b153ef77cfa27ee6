"use strict";

// Matrices on a canvas: one cell for each number.

(() => {
  /** @typedef {import("./../views").Numbers} Numbers */
  /** @typedef {import("./../views").Matrix} Matrix */

  const scratch = document.createElement("canvas");

  /**
   * Draw a matrix onto a canvas of width x height pixels of the page, from (left, top) on.
   * @param {HTMLCanvasElement} canvas
   * @param {Matrix} matrix
   * @param {{width: number, height: number, left?: number, top?: number}} box
   */
  function draw(canvas, matrix, { width, height, left = 0, top = 0 }) {
    const scale = window.devicePixelRatio || 1;
    resize(canvas, Math.round(width * scale), Math.round(height * scale));
    const context = canvas.getContext("2d");
    if (!context) return null;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    fill(scratch, matrix);
    context.drawImage(scratch, left, top, width - left, height - top);
    return context;
  }

  /**
   * Draw a matrix onto a canvas of one point for each cell, which the browser stretches to `size` pixels.
   * @param {HTMLCanvasElement} canvas
   * @param {Matrix} matrix
   * @param {number} size
   */
  function small(canvas, matrix, size) {
    canvas.style.width = canvas.style.height = `${size}px`;
    canvas.style.imageRendering = matrix.columns > size ? "auto" : "pixelated";
    fill(canvas, matrix);
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {number} width
   * @param {number} height
   */
  function resize(canvas, width, height) {
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Matrix} matrix
   */
  function fill(canvas, { values, start, rows, columns, kind, low, high, causal }) {
    resize(canvas, columns, rows);
    const context = canvas.getContext("2d");
    if (!context) return;
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
      for (let column = 0; column <= row; column++)
        size = Math.max(size, Math.abs(values[start + row * rows + column]));
    }
    return size || 1;
  }

  Bevia.heatmap = { draw, extent, small };
})();
