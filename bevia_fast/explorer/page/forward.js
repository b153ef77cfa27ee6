"use strict";

// The transformer once more: the model of bevia_fast/model/ on the kernels of kernels.js. Tests in a browser compare every
// stage with NumPy.

(() => {
  const { add, causalScores, embedding, head, layernorm, linear, mix, rotate, softmax } = Bevia.kernels;

  /** @typedef {import("./types").Affine} Affine */
  /** @typedef {import("./types").BlockTrace} BlockTrace */
  /** @typedef {import("./types").Config} Config */
  /** @typedef {Record<string, Float64Array>} Weights */

  /** A model: sizes and weights, by the names of docs/model.md. */
  class Model {
    /**
     * @param {Config} config
     * @param {Weights} weights
     */
    constructor(config, weights) {
      this.config = config;
      this.weights = weights;
      this.head = weights[config.tie ? "wte.weight" : "lm_head.weight"];
    }

    /**
     * Compute all stages of a text of 1 to ctx tokens.
     * @param {ArrayLike<number>} tokens
     */
    forward(tokens) {
      return new Trace(this, Array.from(tokens));
    }

    /**
     * Return the weight and the bias of a linear layer or a layer normalization.
     * @param {string} name
     * @returns {Affine}
     */
    affine(name) {
      return { weight: this.weights[`${name}.weight`], bias: this.weights[`${name}.bias`] };
    }

    /**
     * Return what the head makes of a stage of the stream at a position, as probabilities (V,): the logit lens. ln_f
     * takes mean and variance of this stage.
     * @param {Float64Array} stream (T,C): the embedding, or stream1 or stream2 of a block
     * @param {number} position
     */
    lens(stream, position) {
      const { dim: C, vocab: V, epsilon } = this.config;
      const final = new Float64Array(C);
      layernorm(final, stream.subarray(position * C, (position + 1) * C), this.affine("ln_f"), epsilon, 0);
      const logits = new Float64Array(V);
      head(logits, final, this.head, C, 0);
      softmax(logits, logits, V, 1, 0);
      return logits;
    }

    /**
     * Return the trace of a text with one more token. Where the context is full, the model goes on with the last half of
     * it, as in bevia_fast/model/writing.py.
     * @param {Trace} trace
     * @param {number} token
     */
    follow(trace, token) {
      const { ctx } = this.config;
      if (trace.length < ctx) return trace.extend(token);
      return this.forward([...trace.tokens, token].slice(-Math.max(1, Math.floor(ctx / 2))));
    }
  }

  /** All stages of the forward pass of one text, which can be extended. */
  class Trace {
    /**
     * @param {Model} model
     * @param {number[]} tokens
     */
    constructor(model, tokens) {
      this.model = model;
      /** @type {number[]} */
      this.tokens = [];
      const none = /** @type {Float64Array} */ (new Float64Array(0));
      this.embedding = this.final = this.logits = this.probabilities = none;
      /** @type {BlockTrace[]} */
      this.blocks = [];
      this.append(tokens);
    }

    get length() {
      return this.tokens.length;
    }

    /**
     * Append a token, and compute its rows only. Returns this trace; its arrays are new ones.
     * @param {number} token
     */
    extend(token) {
      this.append([token]);
      return this;
    }

    /** @param {number[]} tokens */
    append(tokens) {
      const { model } = this;
      const { dim: C, vocab: V, ctx, layers, epsilon } = model.config;
      const first = this.length;
      const T = first + tokens.length;
      if (!tokens.length || T > ctx) throw new RangeError(`a text of ${T} tokens; the context is ${ctx}`);
      if (!tokens.every((token) => Number.isInteger(token) && token >= 0 && token < V)) {
        throw new RangeError(`a token is not from 0 to ${V - 1}`);
      }
      this.tokens = [...this.tokens, ...tokens];

      // x = wte[tokens] + wpe
      this.embedding = grown(this.embedding, T * C);
      embedding(this.embedding, this.tokens, model.weights["wte.weight"], model.weights["wpe.weight"], C, first);

      // x = block(x)
      let x = this.embedding;
      for (let layer = 0; layer < layers; layer++) x = this.block(layer, x, first);

      // logits = ln_f(x) @ head^T
      this.final = grown(this.final, T * C);
      layernorm(this.final, x, model.affine("ln_f"), epsilon, first);
      this.logits = grown(this.logits, T * V);
      head(this.logits, this.final, model.head, C, first);
      this.probabilities = grown(this.probabilities, T * V);
      softmax(this.probabilities, this.logits, V, T, first);
    }

    /**
     * Compute one block, and return the stream after it.
     *
     *     pre-norm                     post-norm
     *     x = x + attn(ln_1(x))        x = ln_1(x + attn(x))
     *     x = x + mlp(ln_2(x))         x = ln_2(x + mlp(x))
     *
     * Without `residual`, an option of the lab, x = attn(ln_1(x)) and so on.
     *
     * @param {number} layer
     * @param {Float64Array} x (T,C)
     * @param {number} first
     */
    block(layer, x, first) {
      const { model } = this;
      const { dim: C, heads: NH, hidden, norm, activation, epsilon, rotary, windows, scale, residual } = model.config;
      const T = this.length;
      const pre = norm === "pre";
      const name = `h.${layer}`;
      const b = this.blocks[layer] = grownBlock(this.blocks[layer] ?? {}, T, C, hidden, NH);

      if (pre) layernorm(b.norm1, x, model.affine(`${name}.ln_1`), epsilon, first);
      const qkv = new Float64Array(T * 3 * C);
      linear(qkv, pre ? b.norm1 : x, model.affine(`${name}.attn.c_attn`), C, first);
      for (let t = first; t < T; t++) {
        [b.q, b.k, b.v].forEach((each, i) => each.set(qkv.subarray((t * 3 + i) * C, (t * 3 + i + 1) * C), t * C));
        if (rotary) for (const each of [b.q, b.k]) rotate(each.subarray(t * C, t * C + C), t, C / NH);
      }
      causalScores(b.scores, b.scaled, b.q, b.k, NH, C, first, windows[layer], scale);
      softmax(b.weights, b.scaled, T, T, first);
      mix(b.mixed, b.weights, b.v, NH, C, first);
      linear(b.attention, b.mixed, model.affine(`${name}.attn.c_proj`), C, first);
      if (residual) add(b.sum1, x, b.attention, C, first);
      else b.sum1.set(b.attention);
      if (!pre) layernorm(b.norm1, b.sum1, model.affine(`${name}.ln_1`), epsilon, first);
      b.stream1 = pre ? b.sum1 : b.norm1;

      if (pre) layernorm(b.norm2, b.stream1, model.affine(`${name}.ln_2`), epsilon, first);
      linear(b.hidden, pre ? b.norm2 : b.stream1, model.affine(`${name}.mlp.c_fc`), C, first);
      const activate = Bevia.kernels[activation];
      for (let i = first * hidden; i < b.hidden.length; i++) b.activated[i] = activate(b.hidden[i]);
      linear(b.mlp, b.activated, model.affine(`${name}.mlp.c_proj`), hidden, first);
      if (residual) add(b.sum2, b.stream1, b.mlp, C, first);
      else b.sum2.set(b.mlp);
      if (!pre) layernorm(b.norm2, b.sum2, model.affine(`${name}.ln_2`), epsilon, first);
      b.stream2 = pre ? b.sum2 : b.norm2;
      return b.stream2;
    }
  }

  // ----------------------------------------------------------------------------------------------------------- arrays

  /**
   * Return a block for T rows that begins with the rows of `old`.
   * @param {Partial<BlockTrace>} old without arrays, if there are no rows yet
   * @param {number} T
   * @param {number} C
   * @param {number} hidden
   * @param {number} NH
   * @returns {BlockTrace}
   */
  function grownBlock(old, T, C, hidden, NH) {
    const none = /** @type {Float64Array} */ (new Float64Array(0));
    const rows = (values = none) => grown(values, T * C);
    const wide = (values = none) => grown(values, T * hidden);
    const square = (values = none) => grownSquare(values, T, NH);
    return {
      norm1: rows(old.norm1), q: rows(old.q), k: rows(old.k), v: rows(old.v), scores: square(old.scores),
      scaled: square(old.scaled), weights: square(old.weights), mixed: rows(old.mixed), attention: rows(old.attention),
      sum1: rows(old.sum1), stream1: none, norm2: rows(old.norm2), hidden: wide(old.hidden),
      activated: wide(old.activated), mlp: rows(old.mlp), sum2: rows(old.sum2), stream2: none,
    };
  }

  /**
   * @param {Float64Array} values
   * @param {number} size
   */
  function grown(values, size) {
    const result = new Float64Array(size);
    result.set(values);
    return result;
  }

  /**
   * Return matrices (NH,T,T) that begin with smaller ones.
   * @param {Float64Array} values
   * @param {number} T
   * @param {number} NH
   */
  function grownSquare(values, T, NH) {
    const old = Math.round(Math.sqrt(values.length / NH));
    const result = new Float64Array(NH * T * T);
    for (let row = 0; row < NH * old; row++) {
      const h = Math.floor(row / old);
      result.set(values.subarray(row * old, (row + 1) * old), (h * T + row % old) * T);
    }
    return result;
  }

  Bevia.forward = { Model };
})();
