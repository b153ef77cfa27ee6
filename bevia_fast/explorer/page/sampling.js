"use strict";

// Draw a token from the softmax of its logits: kernels/numpy_ref/sampling.py.

(() => {
  /** @typedef {import("./types").Sampling} Sampling */

  /**
   * Return the tokens that can be drawn, the likeliest first, with their weights added up one by one, and the total.
   * @param {Float64Array} logits (V,)
   * @param {Sampling} options
   */
  function running(logits, { temperature, topK, topP }) {
    const largest = maximum(logits);
    let order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    if (topK) order = order.slice(0, topK);
    const sums = new Float64Array(order.length);
    const weights = new Float64Array(logits.length);
    // The weights of a softmax, without the division by their total: only each weight's share of it counts.
    for (const token of order) weights[token] = Math.exp((logits[token] - largest) / temperature);
    // added in the order of numpy_ref: one by one
    let total = 0;
    for (const weight of weights) total += weight;
    let soFar = 0;
    order.forEach((token, place) => { sums[place] = soFar += weights[token]; });
    let count = order.length;
    if (topP < 1) {
      const kept = Math.min(sums.findIndex((sum) => sum >= topP * total), count - 1);
      count = (kept < 0 ? count - 1 : kept) + 1;
      total = sums[count - 1];
    }
    return { order, weights, sums, count, total };
  }

  /**
   * Return the probabilities (V,) with which tokens are drawn.
   * @param {Float64Array} logits (V,)
   * @param {Sampling} options
   */
  function probabilities(logits, options) {
    const result = new Float64Array(logits.length);
    if (options.temperature === 0) {
      result[logits.indexOf(maximum(logits))] = 1;
      return result;
    }
    const { order, weights, count, total } = running(logits, options);
    for (const token of order.slice(0, count)) result[token] = weights[token] / total;
    return result;
  }

  /**
   * Draw a token; `noise` is uniform in [0, 1). Returns -1 if a logit is not finite.
   * @param {Float64Array} logits (V,)
   * @param {Sampling} options
   * @param {number} noise
   */
  function draw(logits, options, noise) {
    if (!logits.every(Number.isFinite)) return -1;
    if (options.temperature === 0) return logits.indexOf(maximum(logits));
    const { order, sums, total } = running(logits, options);
    const drawn = sums.findIndex((sum) => sum > noise * total);
    return order[drawn < 0 ? order.length - 1 : drawn];
  }

  /** @param {Float64Array} values */
  function maximum(values) {
    return values.reduce((largest, value) => Math.max(largest, value), -Infinity);
  }

  Bevia.sampling = { draw, probabilities };
})();
