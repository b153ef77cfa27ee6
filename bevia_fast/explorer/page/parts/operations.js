"use strict";

// Every kind of number in the order of the forward pass; see parts/numbers.js.

(() => {
  const { at, define, f, g, linear, norm, share, sum, terms } = Bevia.numbers;

  define("embedding", "tc", (x, t, c) => {
    const { W, C, trace, app } = x;
    const token = trace.tokens[t];
    const a = W["wte.weight"][token * C + c];
    const b = W["wpe.weight"][t * C + c];
    return {
      title: "Embedding",
      of: `${at(x, t)}, channel ${c}`,
      value: a + b,
      unit: "",
      operation: "embedding",
      formula: "",
      filled: `${f(a)} + ${g(b)}`,
      engine: engine(x, "embedding", t * C + c),
      parts: [
        { label: `wte: what “${app.glyphs.signs[token]}” means, learned`, value: a },
        { label: `wpe: what position ${t} means, learned`, value: b },
      ],
    };
  });

  /** @param {number} part of 1 */
  const percent = (part) => `= ${f(100 * part, 3)} %`;

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
      const { trace, C, pre } = x;
      const block = trace.blocks[l];
      return linear(x, {
        title: word,
        of: `layer ${l}, head ${Math.floor(c / x.HS)}, ${at(x, t)}, channel ${c}`,
        input: pre ? block.norm1 : l ? trace.blocks[l - 1].stream2 : trace.embedding,
        start: t * C,
        count: C,
        ref: (i) => (pre ? `norm1.${l}.${t}.${i}` : before(l, t, i)),
        name: `h.${l}.attn.c_attn`,
        column: index * C + c,
        columns: 3 * C,
        value: block[/** @type {"q"} */ (kind)][t * C + c],
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
      unit: "",
      formula: "",
      value: block.scores[(h * T + t) * T + j],
      operation: "scores",
      filled: sum(found),
      parts: [],
      terms: found,
      engine: engine(x, `block.${l}.scores`, (h * T + t) * T + j),
    };
  });

  define("scaled", "lhtj", (x, l, h, t, j) => {
    const place = (h * x.T + t) * x.T + j;
    const score = x.trace.blocks[l].scores[place];
    return {
      title: "Scaled score",
      of: `${head(l, h)}: ${at(x, t)} and ${at(x, j)}`,
      unit: "",
      formula: "",
      value: x.trace.blocks[l].scaled[place],
      operation: j > t ? "mask" : "scale",
      filled: j > t ? "position j comes later than i, and must not be seen: −∞" : `${f(score)} / √${x.HS}`,
      parts: [
        { label: "score", value: score, ref: `score.${l}.${h}.${t}.${j}` },
        { label: "channels of a head", value: x.HS },
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
      formula: "",
      operation: "softmax",
      filled: j > t ? "exp(−∞) / …" : found.filled,
      parts: [
        { label: "scaled score", value: row[j], ref: `scaled.${l}.${h}.${t}.${j}` },
        {
          label: "max: the largest score of the row",
          value: found.top,
          ref: `scaled.${l}.${h}.${t}.${row.indexOf(found.top)}`,
        },
        { label: `sum over the ${t + 1} positions that are seen`, value: found.total },
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
      unit: "",
      formula: "",
      operation: "mix",
      filled: sum(found),
      parts: [],
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

  define("sum1", "ltc", (x, l, t, c) => {
    const place = t * x.C + c;
    const stream = (l ? x.trace.blocks[l - 1].stream2 : x.trace.embedding)[place];
    const branch = x.trace.blocks[l].attention[place];
    return {
      title: x.pre ? "Stream" : "Stream, before its norm",
      of: `after the attention of layer ${l}, ${at(x, t)}, channel ${c}`,
      value: x.trace.blocks[l].sum1[place],
      unit: "",
      formula: "",
      operation: "residual",
      filled: `${f(stream)} + ${g(branch)}`,
      parts: [
        { label: "x: the stream before", value: stream, ref: before(l, t, c) },
        { label: "branch: what the attention adds", value: branch, ref: `attention.${l}.${t}.${c}` },
      ],
      ...(x.pre ? { engine: engine(x, `block.${l}.attention`, place) } : {}),
    };
  });

  define("stream1", "ltc", (x, l, t, c) =>
    x.pre
      ? sibling(x, "sum1", l, t, c)
      : {
          ...sibling(x, "norm1", l, t, c),
          of: `the stream after the attention of layer ${l}, ${at(x, t)}, channel ${c}`,
          engine: engine(x, `block.${l}.attention`, t * x.C + c),
        },
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
    const { hidden } = x.app.header.config;
    return linear(x, {
      title: "Hidden unit, before its activation",
      of: `layer ${l}'s MLP, ${at(x, t)}, unit ${k} of ${hidden}`,
      input: x.pre ? x.trace.blocks[l].norm2 : x.trace.blocks[l].stream1,
      start: t * x.C,
      count: x.C,
      ref: (i) => (x.pre ? `norm2.${l}.${t}.${i}` : `stream1.${l}.${t}.${i}`),
      name: `h.${l}.mlp.c_fc`,
      column: k,
      columns: hidden,
      value: x.trace.blocks[l].hidden[t * hidden + k],
      operation: "mlp_in",
      inputs: "input",
    });
  });

  define("activated", "ltk", (x, l, t, k) => {
    const { hidden, activation } = x.app.header.config;
    const value = x.trace.blocks[l].hidden[t * hidden + k];
    return {
      title: "Hidden unit",
      of: `layer ${l}'s MLP, ${at(x, t)}, unit ${k} of ${hidden}`,
      unit: "",
      formula: "",
      value: x.trace.blocks[l].activated[t * hidden + k],
      operation: activation,
      filled:
        activation === "gelu"
          ? `${f(value)} / 2 · (1 + tanh(0.7979 · (${f(value)} + 0.044715 · ${g(value)}³)))`
          : `max(${f(value)}, 0)`,
      parts: [{ label: "x: before the activation", value, ref: `hidden.${l}.${t}.${k}` }],
    };
  });

  define("mlp", "ltc", (x, l, t, c) => {
    const { hidden } = x.app.header.config;
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

  define("sum2", "ltc", (x, l, t, c) => {
    const place = t * x.C + c;
    const stream = x.trace.blocks[l].stream1[place];
    const branch = x.trace.blocks[l].mlp[place];
    return {
      title: x.pre ? "Stream" : "Stream, before its norm",
      of: `after the MLP of layer ${l}, ${at(x, t)}, channel ${c}`,
      value: x.trace.blocks[l].sum2[place],
      unit: "",
      formula: "",
      operation: "residual",
      filled: `${f(stream)} + ${g(branch)}`,
      parts: [
        { label: "x: the stream before", value: stream, ref: `stream1.${l}.${t}.${c}` },
        { label: "branch: what the MLP adds", value: branch, ref: `mlp.${l}.${t}.${c}` },
      ],
      ...(x.pre ? { engine: engine(x, `block.${l}.mlp`, place) } : {}),
    };
  });

  define("stream2", "ltc", (x, l, t, c) =>
    x.pre
      ? sibling(x, "sum2", l, t, c)
      : {
          ...sibling(x, "norm2", l, t, c),
          of: `the stream after the MLP of layer ${l}, ${at(x, t)}, channel ${c}`,
          engine: engine(x, `block.${l}.mlp`, t * x.C + c),
        },
  );

  define("final", "tc", (x, t, c) => ({
    ...norm(x, {
      title: "Final normalization",
      of: `${at(x, t)}, channel ${c}`,
      input: x.trace.blocks[x.trace.blocks.length - 1].stream2,
      t,
      c,
      ref: `stream2.${x.trace.blocks.length - 1}.${t}.${c}`,
      name: "ln_f",
      operation: "final_norm",
    }),
    engine: engine(x, "final", t * x.C + c),
  }));

  define("logit", "tv", (x, t, v) => {
    const { C, trace } = x;
    const found = terms(`The largest of ${C} products`, ["final", "head"], C, (c) => ({
      label: `channel ${c}`,
      a: trace.final[t * C + c],
      aRef: `final.${t}.${c}`,
      b: trace.model.head[v * C + c],
    }));
    return {
      title: "Logit",
      of: `the score of “${x.app.glyphs.signs[v]}” as the character after ${at(x, t)}`,
      unit: "",
      formula: "",
      value: trace.logits[t * x.V + v],
      operation: "logits",
      filled: sum(found),
      parts: [],
      terms: found,
      engine: engine(x, "logits", t * x.V + v),
    };
  });

  define("probability", "tv", (x, t, v) => {
    const row = x.trace.logits.subarray(t * x.V, (t + 1) * x.V);
    const found = share(row, v);
    return {
      title: "Probability",
      of: `that “${x.app.glyphs.signs[v]}” comes after ${at(x, t)}`,
      value: found.value,
      unit: percent(found.value),
      formula: "",
      operation: "probabilities",
      filled: found.filled,
      parts: [
        { label: "logit", value: row[v], ref: `logit.${t}.${v}` },
        { label: "max: the largest logit", value: found.top, ref: `logit.${t}.${row.indexOf(found.top)}` },
        { label: `sum over all ${x.V} characters`, value: found.total },
      ],
    };
  });

  define("drawn", "tv", (x, t, v) => {
    const { temperature, topK, topP } = x.app.state;
    const row = x.trace.logits.subarray(t * x.V, (t + 1) * x.V);
    const p = Bevia.sampling.probabilities(row, { temperature, topK, topP });
    const top = Math.max(...row);
    const kept = Array.from(p.keys()).filter((token) => p[token] > 0);
    const total = kept.reduce((all, token) => all + Math.exp((row[token] - top) / temperature), 0);
    return {
      title: "Probability of being drawn",
      of: `“${x.app.glyphs.signs[v]}” after ${at(x, t)}, with the sliders as they are`,
      value: p[v],
      unit: percent(p[v]),
      operation: "sampling",
      formula: "p[v] = exp((logit[v] − max) / temperature) / sum over the characters that are kept",
      filled:
        temperature === 0
          ? "temperature 0 always takes the largest logit"
          : p[v] === 0
            ? "cut off by top-k or top-p"
            : `exp((${f(row[v])} − ${g(top)}) / ${f(temperature, 3)}) / ${f(total)}`,
      parts: [
        { label: "logit", value: row[v], ref: `logit.${t}.${v}` },
        { label: "max: the largest logit", value: top, ref: `logit.${t}.${row.indexOf(top)}` },
        { label: "temperature", value: temperature },
        { label: "characters that are kept", value: kept.length },
      ],
    };
  });

  define("surprise", "t", (x, t) => {
    if (t === 0) return { ...KIND_OF_FIRST };
    const v = x.trace.tokens[t];
    const p = share(x.trace.logits.subarray((t - 1) * x.V, t * x.V), v).value;
    return {
      title: "Surprise",
      of: `of ${at(x, t)}, given the text before it`,
      value: -Math.log(p),
      unit: "nats",
      formula: "",
      operation: "surprise",
      filled: `−ln ${f(p)}`,
      parts: [{ label: "p: the probability that the model gave it", value: p, ref: `probability.${t - 1}.${v}` }],
      note: "The mean surprise of many characters is the loss, which training makes small.",
    };
  });

  const KIND_OF_FIRST = {
    title: "Surprise",
    of: "of the first character",
    value: NaN,
    unit: "nats",
    formula: "",
    operation: "surprise",
    filled: "nothing comes before it, so the model does not guess it",
    parts: [],
  };

  define("lens", "stv", (x, s, t, v) => {
    const stages = 2 * x.trace.blocks.length + 1;
    if (s === stages) return sibling(x, "probability", t, v);
    const p = x.app.scene.stage(s, t) || new Float64Array(x.V);
    const l = Math.floor((s - 1) / 2);
    const place = s === 0 ? "the embedding" : `the ${s % 2 ? "attention" : "MLP"} of layer ${l}`;
    const stream = s === 0 ? x.trace.embedding : x.trace.blocks[l][s % 2 ? "stream1" : "stream2"];
    const row = stream.subarray(t * x.C, (t + 1) * x.C);
    const largest = Array.from(row.keys())
      .sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]))
      .slice(0, 4);
    return {
      title: "Logit lens",
      of: `“${x.app.glyphs.signs[v]}” after ${at(x, t)}, as guessed right after ${place}`,
      value: p[v],
      unit: percent(p[v]),
      formula: "p = softmax(ln_f(stream) @ head)",
      operation: "final_norm",
      filled: `softmax(ln_f([${Array.from(row.subarray(0, 3))
        .map((value) => f(value))
        .join(", ")}, … ${x.C} numbers]) @ head)[${v}]`,
      parts: largest.map((c) => ({
        label: `the stream in channel ${c}, one of its largest`,
        value: row[c],
        ref: s === 0 ? `embedding.${t}.${c}` : `${s % 2 ? "stream1" : "stream2"}.${l}.${t}.${c}`,
      })),
      note: "The model never uses this number: the lens takes an early stage as if it were the last one.",
    };
  });

  define("cosine", "vv", ({ app, C, W }, a, b) => {
    const table = W["wte.weight"];
    const [one, other] = [a, b].map((v) => table.subarray(v * C, (v + 1) * C));
    const found = terms(
      `The largest of ${C} products`,
      [`embedding of “${app.glyphs.signs[a]}”`, `of “${app.glyphs.signs[b]}”`],
      C,
      (c) => ({ label: `channel ${c}`, a: one[c], b: other[c] }),
    );
    const product = one.reduce((total, x, c) => total + x * other[c], 0);
    const [left, right] = [one, other].map((row) => Math.hypot(...row));
    return {
      title: "Cosine",
      of: `of the embeddings of “${app.glyphs.signs[a]}” and “${app.glyphs.signs[b]}”`,
      value: Bevia.views.embeddings.cosine(table, a, b, C),
      unit: "from −1 to 1",
      operation: "",
      formula: "cosine = a · b / (|a| |b|)",
      filled: `${f(product)} / (${f(left)} · ${f(right)})`,
      parts: [
        { label: "length of a", value: left },
        { label: "length of b", value: right },
      ],
      terms: found,
      note: "The page computes it from the learned embeddings; the model itself does not.",
    };
  });

  /**
   * Another number, explained.
   * @param {any} x
   * @param {string} kind
   * @param {...number} indices
   * @returns {import("./../views").Explained}
   */
  function sibling(x, kind, ...indices) {
    const found = Bevia.numbers.explain(x.app, [kind, ...indices].join("."));
    if (!found) throw new Error(`there is no ${kind}`);
    return found;
  }

  /**
   * Return a number of the engine, if the page has those of this text.
   * @param {any} x
   * @param {string} name
   * @param {number} place
   * @returns {number | undefined}
   */
  function engine({ app }, name, place) {
    if (app.scene.kind !== "engine") return undefined;
    return app.data.tensor(`prompt/${app.state.text}/${name}`)[place];
  }
})();
