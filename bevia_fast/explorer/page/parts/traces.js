"use strict";

// What scenes need of traces and logits.

(() => {
  /** @typedef {import("./../views").Numbers} Numbers */
  /** @typedef {import("./../types").Trace} Trace */

  /**
   * Return where the model's window begins in a text: when the context is full, it goes on with the last half.
   * @param {number} length
   * @param {number} ctx
   */
  function windowStart(length, ctx) {
    const jump = ctx + 1 - Math.max(1, Math.floor(ctx / 2));
    return length <= ctx ? 0 : jump * Math.ceil((length - ctx) / jump);
  }

  /**
   * -log of the softmax of logits, at a token
   * @param {Float64Array} logits
   * @param {number} token
   */
  function minusLog(logits, token) {
    const top = logits[largest(logits)];
    let total = 0;
    for (const logit of logits) total += Math.exp(logit - top);
    return Math.log(total) - (logits[token] - top);
  }

  /** @param {Numbers} values */
  function largest(values) {
    let best = 0;
    for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
    return best;
  }

  /**
   * Return the trace of the first `length` tokens: no row depends on later ones.
   * @param {Trace} trace
   * @param {number} length
   * @returns {Trace}
   */
  function shortened(trace, length) {
    const old = trace.length;
    const { heads: NH } = trace.model.config;
    /** @param {Float64Array} values */
    const rows = (values) => values.subarray(0, (values.length / old) * length);
    /** @param {Float64Array} values */
    const square = (values) => {
      const result = new Float64Array(NH * length * length);
      for (let row = 0; row < NH * length; row++) {
        const start = (Math.floor(row / length) * old + (row % length)) * old;
        result.set(values.subarray(start, start + length), row * length);
      }
      return result;
    };
    const squares = new Set(["scores", "scaled", "weights"]);
    const blocks = trace.blocks.map((block) =>
      Object.fromEntries(
        Object.entries(block).map(([name, values]) => [name, squares.has(name) ? square(values) : rows(values)]),
      ),
    );
    return Object.assign(Object.create(Object.getPrototypeOf(trace)), {
      model: trace.model,
      tokens: trace.tokens.slice(0, length),
      blocks,
      embedding: rows(trace.embedding),
      final: rows(trace.final),
      logits: rows(trace.logits),
      probabilities: rows(trace.probabilities),
    });
  }

  Bevia.traces = { largest, minusLog, shortened, windowStart };
})();
