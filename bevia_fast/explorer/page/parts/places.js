"use strict";

// Where the characters lie on the map of their embeddings.

(() => {
  /** @typedef {import("./../views").App} App */

  /** @type {Float64Array | undefined} */
  let basis;

  /**
   * Return the places (V, 2) of the characters in a frame: those of the film, or for a run without one, made here.
   * @param {App} app
   * @param {number} frame
   */
  function places(app, frame) {
    const name = `film/${frame}/embedding`;
    if (app.data.has(name)) return app.data.tensor(name);
    basis ??= principal(Float64Array.from(app.data.tensor("model/wte.weight")), app.header.config.dim);
    return basis;
  }

  /**
   * Project the rows of a table (V,C) on the two directions in which they differ most, found by power iteration.
   * @param {Float64Array} table
   * @param {number} C
   */
  function principal(table, C) {
    const V = table.length / C;
    const rows = Float64Array.from(table);
    for (let c = 0; c < C; c++) {
      let mean = 0;
      for (let v = 0; v < V; v++) mean += table[v * C + c] / V;
      for (let v = 0; v < V; v++) rows[v * C + c] -= mean;
    }
    const result = new Float64Array(2 * V);
    for (let axis = 0; axis < 2; axis++) {
      let direction = Float64Array.from({ length: C }, (_, c) => Math.cos(1 + c * (axis + 1)));
      let along = new Float64Array(V);
      for (let turn = 0; turn < 200; turn++) {
        along = along.map((_, v) => direction.reduce((sum, x, c) => sum + x * rows[v * C + c], 0));
        const next = direction.map((_, c) => along.reduce((sum, x, v) => sum + x * rows[v * C + c], 0));
        const size = Math.hypot(...next) || 1;
        direction = next.map((x) => x / size);
      }
      along = along.map((_, v) => direction.reduce((sum, x, c) => sum + x * rows[v * C + c], 0));
      along.forEach((x, v) => {
        result[2 * v + axis] = x;
        direction.forEach((part, c) => {
          rows[v * C + c] -= x * part;
        });
      });
    }
    return result;
  }

  /**
   * Return where a place lies in the box, in percent. The scales are the same for the whole film, so that it shows how
   * the characters move apart.
   * @param {App} app
   */
  function scale(app) {
    const all = places(app, app.last);
    const low = [0, 0];
    const high = [0, 0];
    all.forEach((value, index) => {
      low[index % 2] = Math.min(low[index % 2], value);
      high[index % 2] = Math.max(high[index % 2], value);
    });
    const size = low.map((value, axis) => high[axis] - value || 1);
    const [least, most] = [low, high].map((ends, end) =>
      ends.map((value, axis) => value + (end - 0.5) * 0.2 * size[axis]),
    );
    /** @param {number} value @param {number} axis */
    const share = (value, axis) =>
      Math.max(1, Math.min(99, (100 * (value - least[axis])) / (most[axis] - least[axis])));
    return {
      left: (/** @type {number} */ x) => share(x, 0),
      top: (/** @type {number} */ y) => 100 - share(y, 1),
      low: least,
      high: most,
    };
  }

  Bevia.places = { of: places, scale };
})();
