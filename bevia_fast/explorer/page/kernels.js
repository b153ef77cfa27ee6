"use strict";

// The kernels of kernels/numpy_ref/ in double precision, forward only: plain loops, line by line the same formulas.
//
// Letters, as there: T time · C channels · NH heads · HS channels of a head · V vocabulary. Arrays are row-major. A
// kernel computes the rows from `first` on, so that a longer text computes its new rows only.

(() => {
  /** @typedef {import("./types").Affine} Affine */

  /**
   * numpy_ref/embedding.py: (T,), (V,C), (ctx,C) -> (T,C); without a table of positions if they are rotary
   * @param {Float64Array} out
   * @param {number[]} tokens
   * @param {Float64Array} tokenTable
   * @param {Float64Array | undefined} positionTable
   * @param {number} C
   * @param {number} first
   */
  function embedding(out, tokens, tokenTable, positionTable, C, first) {
    for (let t = first; t < tokens.length; t++) {
      for (let c = 0; c < C; c++) out[t * C + c] = tokenTable[tokens[t] * C + c] + (positionTable?.[t * C + c] ?? 0);
    }
  }

  /**
   * numpy_ref/rotary.py: the heads (C,) of position t, in place
   * @param {Float64Array} heads
   * @param {number} t
   * @param {number} HS
   */
  function rotate(heads, t, HS) {
    for (let c = 0; c < heads.length; c++) {
      if (c % HS >= HS / 2) continue;
      const angle = t * turn(c, HS);
      const [a, b] = [heads[c], heads[c + HS / 2]];
      heads[c] = a * Math.cos(angle) - b * Math.sin(angle);
      heads[c + HS / 2] = b * Math.cos(angle) + a * Math.sin(angle);
    }
  }

  /**
   * By how much a channel turns with each position.
   * @param {number} c
   * @param {number} HS
   */
  const turn = (c, HS) => 10000 ** (-(c % (HS / 2)) / (HS / 2));

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
   * @param {number} window positions that are seen, or 0
   * @param {boolean} scale whether to divide by sqrt(HS), as every model does except in an experiment of the lab
   */
  function causalScores(scores, scaled, q, k, NH, C, first, window, scale) {
    const HS = C / NH;
    const T = q.length / C;
    for (let h = 0; h < NH; h++) {
      for (let i = 0; i < T; i++) {
        for (let j = i < first ? first : 0; j < T; j++) {
          let dot = 0;
          for (let c = h * HS; c < (h + 1) * HS; c++) dot += q[i * C + c] * k[j * C + c];
          const place = (h * T + i) * T + j;
          scores[place] = dot;
          // A position must not see later positions, which it has to predict, nor those before its window: exp(-inf) is 0
          scaled[place] =
            j > i || (window && i - j >= window) ? -Infinity : scale ? dot / Math.sqrt(HS) : dot;
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

  /**
   * numpy_ref/activation.py: x Φ(x), with Φ(x) - 1/2 = φ(x) (x + x^3/3 + x^5/(3*5) + ...)
   * @param {number} x
   */
  function gelu_erf(x) {
    const size = Math.min(Math.abs(x), 9);
    let [term, total] = [size, size];
    for (let odd = 3; term > total * 1e-17; odd += 2) total += term *= size * size / odd;
    return x * (0.5 + Math.sign(x) * total * Math.exp(-size * size / 2) / Math.sqrt(2 * Math.PI));
  }

  /** @param {number} x */
  function relu(x) {
    return Math.max(x, 0);
  }

  Bevia.kernels = { add, causalScores, embedding, gelu, gelu_erf, head, layernorm, linear, mix, relu, rotate, softmax, turn };
})();
