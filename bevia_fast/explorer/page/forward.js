"use strict";

// The transformer once more, in double precision: the model of bevia_fast/model/ with the kernels of kernels/numpy_ref/.
// Tests in a browser compare every stage with NumPy.
//
// Letters, as there: T time · C channels · NH heads · HS channels of a head · V vocabulary. Arrays are row-major. A
// function computes the rows from `first` on, so that a longer text computes its new rows only.

(() => {
  /** @typedef {import("./types").Config} Config */
  /** @typedef {import("./types").BlockTrace} BlockTrace */
  /** @typedef {Record<string, Float64Array>} Weights */
  /** @typedef {{weight: Float64Array, bias: Float64Array | undefined}} Affine */

  // ---------------------------------------------------------------------------------------------------------- kernels

  /**
   * numpy_ref/embedding.py: (T,), (V,C), (ctx,C) -> (T,C)
   * @param {Float64Array} out
   * @param {number[]} tokens
   * @param {Float64Array} tokenTable
   * @param {Float64Array} positionTable
   * @param {number} C
   * @param {number} first
   */
  function embedding(out, tokens, tokenTable, positionTable, C, first) {
    for (let t = first; t < tokens.length; t++) {
      for (let c = 0; c < C; c++) out[t * C + c] = tokenTable[tokens[t] * C + c] + positionTable[t * C + c];
    }
  }

  /**
   * numpy_ref/layernorm.py: (T,C), (C,), (C,) -> (T,C)
   * @param {Float64Array} out
   * @param {Float64Array} inp
   * @param {Affine} affine
   * @param {number} epsilon
   * @param {number} first
   */
  function layernorm(out, inp, { weight, bias }, epsilon, first) {
    const C = weight.length;
    for (let start = first * C; start < inp.length; start += C) {
      let mean = 0;
      for (let c = 0; c < C; c++) mean += inp[start + c];
      mean /= C;
      // The variance takes a second pass, over the centered row: mean(inp^2) - mean^2 would cancel.
      let variance = 0;
      for (let c = 0; c < C; c++) variance += (inp[start + c] - mean) ** 2;
      variance /= C;
      const rstd = 1 / Math.sqrt(variance + epsilon);
      for (let c = 0; c < C; c++) {
        const norm = (inp[start + c] - mean) * rstd;
        out[start + c] = norm * weight[c] + (bias ? bias[c] : 0);
      }
    }
  }

  /**
   * numpy_ref/linear.py: (T,C) @ (C,OC) + (OC,) -> (T,OC)
   * @param {Float64Array} out
   * @param {Float64Array} inp
   * @param {Affine} affine
   * @param {number} C
   * @param {number} first
   */
  function linear(out, inp, { weight, bias }, C, first) {
    const OC = weight.length / C;
    const T = inp.length / C;
    for (let t = first; t < T; t++) {
      const row = out.subarray(t * OC, (t + 1) * OC);
      row.fill(0);
      for (let c = 0; c < C; c++) {
        const value = inp[t * C + c];
        const start = c * OC;
        for (let oc = 0; oc < OC; oc++) row[oc] += value * weight[start + oc];
      }
      if (bias) for (let oc = 0; oc < OC; oc++) row[oc] += bias[oc];
    }
  }

  /**
   * The head, whose weight is transposed: (T,C) @ (V,C)^T -> (T,V)
   * @param {Float64Array} out
   * @param {Float64Array} inp
   * @param {Float64Array} weight
   * @param {number} C
   * @param {number} first
   */
  function head(out, inp, weight, C, first) {
    const V = weight.length / C;
    const T = inp.length / C;
    for (let t = first; t < T; t++) {
      for (let v = 0; v < V; v++) {
        let sum = 0;
        for (let c = 0; c < C; c++) sum += inp[t * C + c] * weight[v * C + c];
        out[t * V + v] = sum;
      }
    }
  }

  /**
   * out = a + b, of rows of C numbers
   * @param {Float64Array} out
   * @param {Float64Array} a
   * @param {Float64Array} b
   * @param {number} C
   * @param {number} first
   */
  function add(out, a, b, C, first) {
    for (let i = first * C; i < out.length; i++) out[i] = a[i] + b[i];
  }

  /**
   * numpy_ref/attention.py, causal_scores: the products (NH,T,T), and what the softmax gets. Those of earlier rows with
   * the new columns are there too, although the mask hides them.
   * @param {Float64Array} scores
   * @param {Float64Array} scaled
   * @param {Float64Array} q (T,C)
   * @param {Float64Array} k (T,C)
   * @param {number} NH
   * @param {number} C
   * @param {number} first
   */
  function causalScores(scores, scaled, q, k, NH, C, first) {
    const HS = C / NH;
    const T = q.length / C;
    for (let h = 0; h < NH; h++) {
      for (let i = 0; i < T; i++) {
        for (let j = i < first ? first : 0; j < T; j++) {
          let dot = 0;
          for (let c = h * HS; c < (h + 1) * HS; c++) dot += q[i * C + c] * k[j * C + c];
          const place = (h * T + i) * T + j;
          scores[place] = dot;
          // A position must not see later positions, which it has to predict: exp(-inf) is 0.
          scaled[place] = j > i ? -Infinity : dot / Math.sqrt(HS);
        }
      }
    }
  }

  /**
   * numpy_ref/attention.py, softmax, of rows of `width` numbers from row `first` of each `height` rows on.
   * @param {Float64Array} out
   * @param {Float64Array} scores
   * @param {number} width
   * @param {number} height
   * @param {number} first
   */
  function softmax(out, scores, width, height, first) {
    for (let row = 0; row < scores.length / width; row++) {
      if (row % height < first) continue;
      const start = row * width;
      // exp overflows; dividing numerator and denominator by exp(max) leaves the quotient unchanged
      let largest = -Infinity;
      for (let j = 0; j < width; j++) largest = Math.max(largest, scores[start + j]);
      let total = 0;
      for (let j = 0; j < width; j++) {
        out[start + j] = Math.exp(scores[start + j] - largest);
        total += out[start + j];
      }
      for (let j = 0; j < width; j++) out[start + j] /= total;
    }
  }

  /**
   * numpy_ref/attention.py, weights @ v with the heads merged: (NH,T,T), (T,C) -> (T,C)
   * @param {Float64Array} out
   * @param {Float64Array} weights
   * @param {Float64Array} v
   * @param {number} NH
   * @param {number} C
   * @param {number} first
   */
  function mix(out, weights, v, NH, C, first) {
    const HS = C / NH;
    const T = v.length / C;
    for (let h = 0; h < NH; h++) {
      for (let i = first; i < T; i++) {
        for (let c = h * HS; c < (h + 1) * HS; c++) {
          let sum = 0;
          for (let j = 0; j <= i; j++) sum += weights[(h * T + i) * T + j] * v[j * C + c];
          out[i * C + c] = sum;
        }
      }
    }
  }

  /**
   * numpy_ref/activation.py: x/2 (1 + tanh(u)),  u = sqrt(2/pi) (x + 0.044715 x^3)
   * @param {number} x
   */
  function gelu(x) {
    const u = Math.sqrt(2 / Math.PI) * (x + 0.044715 * (x * x * x));
    return 0.5 * x * (1 + Math.tanh(u));
  }

  /** @param {number} x */
  function relu(x) {
    return Math.max(x, 0);
  }

  // ------------------------------------------------------------------------------------------------------------ model

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
      this.blocks = Array.from({ length: model.config.layers }, emptyBlock);
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
     * @param {number} layer
     * @param {Float64Array} x (T,C)
     * @param {number} first
     */
    block(layer, x, first) {
      const { model } = this;
      const { dim: C, heads: NH, hidden, norm, activation, epsilon } = model.config;
      const T = this.length;
      const pre = norm === "pre";
      const name = `h.${layer}`;
      const b = this.blocks[layer] = grownBlock(this.blocks[layer], T, C, hidden, NH);

      if (pre) layernorm(b.norm1, x, model.affine(`${name}.ln_1`), epsilon, first);
      const qkv = new Float64Array(T * 3 * C);
      linear(qkv, pre ? b.norm1 : x, model.affine(`${name}.attn.c_attn`), C, first);
      for (let t = first; t < T; t++) {
        b.q.set(qkv.subarray(t * 3 * C, t * 3 * C + C), t * C);
        b.k.set(qkv.subarray(t * 3 * C + C, t * 3 * C + 2 * C), t * C);
        b.v.set(qkv.subarray(t * 3 * C + 2 * C, t * 3 * C + 3 * C), t * C);
      }
      causalScores(b.scores, b.scaled, b.q, b.k, NH, C, first);
      softmax(b.weights, b.scaled, T, T, first);
      mix(b.mixed, b.weights, b.v, NH, C, first);
      linear(b.attention, b.mixed, model.affine(`${name}.attn.c_proj`), C, first);
      add(b.sum1, x, b.attention, C, first);
      if (!pre) layernorm(b.norm1, b.sum1, model.affine(`${name}.ln_1`), epsilon, first);
      b.stream1 = pre ? b.sum1 : b.norm1;

      if (pre) layernorm(b.norm2, b.stream1, model.affine(`${name}.ln_2`), epsilon, first);
      linear(b.hidden, pre ? b.norm2 : b.stream1, model.affine(`${name}.mlp.c_fc`), C, first);
      const activate = activation === "gelu" ? gelu : relu;
      for (let i = first * hidden; i < b.hidden.length; i++) b.activated[i] = activate(b.hidden[i]);
      linear(b.mlp, b.activated, model.affine(`${name}.mlp.c_proj`), hidden, first);
      add(b.sum2, b.stream1, b.mlp, C, first);
      if (!pre) layernorm(b.norm2, b.sum2, model.affine(`${name}.ln_2`), epsilon, first);
      b.stream2 = pre ? b.sum2 : b.norm2;
      return b.stream2;
    }
  }

  // ----------------------------------------------------------------------------------------------------------- arrays

  /** @returns {BlockTrace} */
  function emptyBlock() {
    const none = new Float64Array(0);
    return {
      norm1: none, q: none, k: none, v: none, scores: none, scaled: none, weights: none, mixed: none, attention: none,
      sum1: none, stream1: none, norm2: none, hidden: none, activated: none, mlp: none, sum2: none, stream2: none,
    };
  }

  /**
   * Return a block for T rows that begins with the rows of `old`.
   * @param {BlockTrace} old
   * @param {number} T
   * @param {number} C
   * @param {number} hidden
   * @param {number} NH
   * @returns {BlockTrace}
   */
  function grownBlock(old, T, C, hidden, NH) {
    /** @param {Float64Array} values */
    const rows = (values) => grown(values, T * C);
    /** @param {Float64Array} values */
    const wide = (values) => grown(values, T * hidden);
    /** @param {Float64Array} values */
    const square = (values) => grownSquare(values, T, NH);
    return {
      norm1: rows(old.norm1), q: rows(old.q), k: rows(old.k), v: rows(old.v), scores: square(old.scores),
      scaled: square(old.scaled), weights: square(old.weights), mixed: rows(old.mixed), attention: rows(old.attention),
      sum1: rows(old.sum1), stream1: old.stream1, norm2: rows(old.norm2), hidden: wide(old.hidden),
      activated: wide(old.activated), mlp: rows(old.mlp), sum2: rows(old.sum2), stream2: old.stream2,
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
