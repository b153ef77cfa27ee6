"use strict";

// The kinds of numbers from the embedding to the end of the last block, in the order of the forward pass; see numbers.js.

(() => {
  const { at, define, engine, f, g, linear, norm, percent, share, sibling, sum, terms } = Bevia.numbers;
  const { turn } = Bevia.kernels;

  define("embedding", "tc", (x, t, c) => {
    const { W, C, trace, app } = x;
    const token = trace.tokens[t];
    const a = W["wte.weight"][token * C + c];
    const b = W["wpe.weight"]?.[t * C + c] ?? 0;
    return {
      title: "Embedding",
      of: `${at(x, t)}, channel ${c}`,
      value: a + b,
      operation: "embedding",
      filled: `${f(a)} + ${g(b)}`,
      engine: engine(x, "embedding", t * C + c),
      parts: [
        { label: `wte: what “${app.glyphs.signs[token]}” means, learned`, value: a },
        { label: `wpe: what position ${t} means, learned`, value: b },
      ],
    };
  });

  /**
   * The address of the stream before a block.
   * @param {number} l
   * @param {number} t
   * @param {number} c
   */
  const before = (l, t, c) => (l ? `stream2.${l - 1}.${t}.${c}` : `embedding.${t}.${c}`);

  define("norm1", "ltc", (x, l, t, c) =>
    norm(x, {
      title: "Layer normalization",
      of: `before the attention of layer ${l}, ${at(x, t)}, channel ${c}`,
      input: x.pre ? (l ? x.trace.blocks[l - 1].stream2 : x.trace.embedding) : x.trace.blocks[l].sum1,
      t,
      c,
      ref: x.pre ? before(l, t, c) : `sum1.${l}.${t}.${c}`,
      name: `h.${l}.ln_1`,
      operation: "layernorm",
    }),
  );

  for (const [index, [kind, word]] of [
    ["q", "Query"],
    ["k", "Key"],
    ["v", "Value"],
  ].entries()) {
    define(kind, "ltc", (x, l, t, c) => {
      const { trace, C, HS, pre, app } = x;
      const block = trace.blocks[l];
      const of = `layer ${l}, head ${Math.floor(c / HS)}, ${at(x, t)}, channel ${c}`;
      const value = block[/** @type {"q"} */ (kind)][t * C + c];
      if (app.header.config.rotary && kind !== "v") {
        // the pair before its rotation, from the pair after it
        const sign = c % HS < HS / 2 ? 1 : -1;
        const other = block[/** @type {"q"} */ (kind)][t * C + c + (sign * HS) / 2];
        const [cos, sin] = [Math.cos(t * turn(c, HS)), sign * Math.sin(t * turn(c, HS))];
        const found = terms("Two products", ["before", "rotation"], 2, (i) =>
          i ? { label: "its pair", a: other * cos - value * sin, b: -sin } : { label: of, a: value * cos + other * sin, b: cos },
        );
        return { title: word, of, value, operation: "rotary", filled: sum(found), terms: found };
      }
      return linear(x, {
        title: word,
        of,
        input: pre ? block.norm1 : l ? trace.blocks[l - 1].stream2 : trace.embedding,
        start: t * C,
        count: C,
        ref: (i) => (pre ? `norm1.${l}.${t}.${i}` : before(l, t, i)),
        name: `h.${l}.attn.c_attn`,
        column: index * C + c,
        columns: 3 * C,
        value,
        operation: "qkv",
        inputs: "input",
      });
    });
  }

  /**
   * @param {number} l
   * @param {number} h
   */
  const head = (l, h) => `layer ${l}, head ${h}`;

  define("score", "lhtj", (x, l, h, t, j) => {
    const { trace, C, HS, T } = x;
    const block = trace.blocks[l];
    const found = terms(`The largest of ${HS} products`, ["query", "key"], HS, (i) => ({
      label: `channel ${h * HS + i}`,
      a: block.q[t * C + h * HS + i],
      aRef: `q.${l}.${t}.${h * HS + i}`,
      b: block.k[j * C + h * HS + i],
      bRef: `k.${l}.${j}.${h * HS + i}`,
    }));
    return {
      title: "Attention score",
      of: `${head(l, h)}: ${at(x, t)} and ${at(x, j)}`,
      value: block.scores[(h * T + t) * T + j],
      operation: "scores",
      filled: sum(found),
      terms: found,
      engine: engine(x, `block.${l}.scores`, (h * T + t) * T + j),
    };
  });

  define("scaled", "lhtj", (x, l, h, t, j) => {
    const place = (h * x.T + t) * x.T + j;
    const score = x.trace.blocks[l].scores[place];
    const value = x.trace.blocks[l].scaled[place];
    const { scale } = x.config;
    const hidden = value === -Infinity;
    return {
      title: "Scaled score",
      of: `${head(l, h)}: ${at(x, t)} and ${at(x, j)}`,
      value,
      operation: hidden ? "mask" : scale ? "scale" : "no_scale",
      filled: hidden
        ? `position j ${j > t ? "comes later than" : "lies before the window of"} i: −∞`
        : scale
          ? `${f(score)} / √${x.HS}`
          : f(score),
      parts: [
        { label: "score", value: score, ref: `score.${l}.${h}.${t}.${j}` },
        ...(scale ? [{ label: "channels of a head", value: x.HS }] : []),
      ],
    };
  });

  define("weight", "lhtj", (x, l, h, t, j) => {
    const { T } = x;
    const row = x.trace.blocks[l].scaled.subarray((h * T + t) * T, (h * T + t) * T + T);
    const found = share(row, j);
    return {
      title: "Attention weight",
      of: `${head(l, h)}: how much ${at(x, t)} looks at ${at(x, j)}`,
      value: found.value,
      unit: percent(found.value),
      operation: "softmax",
      filled: row[j] < -1e99 ? "exp(−∞) / …" : found.filled,
      parts: [
        { label: "scaled score", value: row[j], ref: `scaled.${l}.${h}.${t}.${j}` },
        {
          label: "max: the largest score of the row",
          value: found.top,
          ref: `scaled.${l}.${h}.${t}.${row.indexOf(found.top)}`,
        },
        { label: `sum over the ${Math.min(t + 1, x.config.windows[l] || T)} positions that are seen`, value: found.total },
      ],
      engine: engine(x, `block.${l}.weights`, (h * T + t) * T + j),
    };
  });

  define("mixed", "ltc", (x, l, t, c) => {
    const { C, T, HS, trace } = x;
    const block = trace.blocks[l];
    const h = Math.floor(c / HS);
    const found = terms(`The largest of ${t + 1} products`, ["weight", "value"], t + 1, (j) => ({
      label: at(x, j),
      a: block.weights[(h * T + t) * T + j],
      aRef: `weight.${l}.${h}.${t}.${j}`,
      b: block.v[j * C + c],
      bRef: `v.${l}.${j}.${c}`,
    }));
    return {
      title: "Mixed values",
      of: `${head(l, h)}, ${at(x, t)}, channel ${c}`,
      value: block.mixed[t * C + c],
      operation: "mix",
      filled: sum(found),
      terms: found,
    };
  });

  define("attention", "ltc", (x, l, t, c) =>
    linear(x, {
      title: "Output of the attention",
      of: `layer ${l}, ${at(x, t)}, channel ${c}`,
      input: x.trace.blocks[l].mixed,
      start: t * x.C,
      count: x.C,
      ref: (i) => `mixed.${l}.${t}.${i}`,
      name: `h.${l}.attn.c_proj`,
      column: c,
      columns: x.C,
      value: x.trace.blocks[l].attention[t * x.C + c],
      operation: "projection",
      inputs: "mixed value",
    }),
  );

  define("norm2", "ltc", (x, l, t, c) =>
    norm(x, {
      title: "Layer normalization",
      of: `of layer ${l}'s MLP, ${at(x, t)}, channel ${c}`,
      input: x.pre ? x.trace.blocks[l].stream1 : x.trace.blocks[l].sum2,
      t,
      c,
      ref: x.pre ? `stream1.${l}.${t}.${c}` : `sum2.${l}.${t}.${c}`,
      name: `h.${l}.ln_2`,
      operation: "layernorm",
    }),
  );

  define("hidden", "ltk", (x, l, t, k) => {
    const { hidden } = x.config;
    const rows = x.pre ? "norm2" : "stream1";
    return linear(x, {
      title: "Hidden unit, before its activation",
      of: `layer ${l}'s MLP, ${at(x, t)}, unit ${k} of ${hidden}`,
      input: x.trace.blocks[l][rows],
      start: t * x.C,
      count: x.C,
      ref: (i) => `${rows}.${l}.${t}.${i}`,
      name: `h.${l}.mlp.c_fc`,
      column: k,
      columns: hidden,
      value: x.trace.blocks[l].hidden[t * hidden + k],
      operation: "mlp_in",
      inputs: "input",
    });
  });

  define("activated", "ltk", (x, l, t, k) => {
    const { hidden, activation } = x.config;
    const value = x.trace.blocks[l].hidden[t * hidden + k];
    return {
      title: "Hidden unit",
      of: `layer ${l}'s MLP, ${at(x, t)}, unit ${k} of ${hidden}`,
      value: x.trace.blocks[l].activated[t * hidden + k],
      operation: activation,
      filled: {
        gelu: `${f(value)} / 2 · (1 + tanh(0.7979 · (${f(value)} + 0.044715 · ${g(value)}³)))`,
        gelu_erf: `${f(value)} / 2 · (1 + erf(${f(value)} / sqrt(2)))`,
        relu: `max(${f(value)}, 0)`,
      }[activation],
      parts: [{ label: "x: before the activation", value, ref: `hidden.${l}.${t}.${k}` }],
    };
  });

  define("mlp", "ltc", (x, l, t, c) => {
    const { hidden } = x.config;
    return linear(x, {
      title: "Output of the MLP",
      of: `layer ${l}, ${at(x, t)}, channel ${c}`,
      input: x.trace.blocks[l].activated,
      start: t * hidden,
      count: hidden,
      ref: (i) => `activated.${l}.${t}.${i}`,
      name: `h.${l}.mlp.c_proj`,
      column: c,
      columns: x.C,
      value: x.trace.blocks[l].mlp[t * x.C + c],
      operation: "mlp_out",
      inputs: "hidden unit",
    });
  });

  /**
   * The stream after a half of a block, which is the sum of the stream before it and what its branch adds, or without the
   * residual, an option of the lab, the branch alone.
   * @param {1 | 2} half
   * @param {"attention" | "mlp"} branch
   * @param {string} what
   */
  function stream(half, branch, what) {
    define(`sum${half}`, "ltc", (x, l, t, c) => {
      const place = t * x.C + c;
      const block = x.trace.blocks[l];
      const rows = half > 1 ? block.stream1 : l ? x.trace.blocks[l - 1].stream2 : x.trace.embedding;
      const value = rows[place];
      const added = block[branch][place];
      const { residual } = x.config;
      const ref = half > 1 ? `stream1.${l}.${t}.${c}` : before(l, t, c);
      return {
        title: x.pre ? "Stream" : "Stream, before its norm",
        of: `after ${what} of layer ${l}, ${at(x, t)}, channel ${c}`,
        value: block[`sum${half}`][place],
        operation: residual ? "residual" : "no_residual",
        filled: residual ? `${f(value)} + ${g(added)}` : f(added),
        parts: [
          ...(residual ? [{ label: "x: the stream before", value, ref }] : []),
          { label: `branch: what ${what} adds`, value: added, ref: `${branch}.${l}.${t}.${c}` },
        ],
        ...(x.pre ? { engine: engine(x, `block.${l}.${branch}`, place) } : {}),
      };
    });
    define(`stream${half}`, "ltc", (x, l, t, c) =>
      x.pre
        ? sibling(x, `sum${half}`, l, t, c)
        : {
            ...sibling(x, `norm${half}`, l, t, c),
            of: `the stream after ${what} of layer ${l}, ${at(x, t)}, channel ${c}`,
            engine: engine(x, `block.${l}.${branch}`, t * x.C + c),
          },
    );
  }

  stream(1, "attention", "the attention");
  stream(2, "mlp", "the MLP");
})();
