"use strict";

// The kinds of numbers after the last block: from the final norm to the surprise, and what only the page computes; see
// numbers.js.

(() => {
  const { at, define, engine, f, g, norm, percent, share, sibling, sum, terms } = Bevia.numbers;

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
      value: trace.logits[t * x.V + v],
      operation: "logits",
      filled: sum(found),
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
      formula: `p[v] = exp((logit[v] − max) / temperature) / sum over the characters that are kept`,
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
        { label: `characters that are kept`, value: kept.length },
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
      operation: "surprise",
      filled: `−ln ${f(p)}`,
      parts: [{ label: "p: the probability that the model gave it", value: p, ref: `probability.${t - 1}.${v}` }],
      note: `The mean surprise of many characters is the loss, which training makes small.`,
    };
  });

  const KIND_OF_FIRST = {
    title: "Surprise",
    of: `of the first character`,
    value: NaN,
    unit: "nats",
    operation: "surprise",
    filled: "nothing comes before it, so the model does not guess it",
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

  for (const [kind, limits, name] of [
    ["cosine", "vv", "wte.weight"],
    ["alike", "pp", "wpe.weight"],
  ]) {
    define(kind, limits, ({ app, C, W }, a, b) => {
      const table = W[name];
      const [one, other] = [a, b].map((row) => table.subarray(row * C, (row + 1) * C));
      const [first, second] = [a, b].map((row) =>
        kind === "cosine" ? `“${app.glyphs.signs[row]}”` : `position ${row}`,
      );
      const found = terms(`The largest of ${C} products`, [first, second], C, (c) => ({
        label: `channel ${c}`,
        a: one[c],
        b: other[c],
      }));
      const product = one.reduce((total, x, c) => total + x * other[c], 0);
      const [left, right] = [one, other].map((row) => Math.hypot(...row));
      return {
        title: "Cosine",
        of: `of the embeddings of ${first} and ${second}`,
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
  }

  for (const [kind, name] of /** @type {const} */ ([
    ["trainloss", "train_loss"],
    ["validloss", "validation_loss"],
  ])) {
    define(kind, "f", ({ app }, index) => {
      const frame = app.header.film[index];
      const { batch } = app.header.train_config;
      return {
        title: "Loss",
        of:
          kind === "trainloss" ? `of the batch of step ${frame.step}` : `of the validation text at step ${frame.step}`,
        value: frame[name] ?? NaN,
        unit: `nats a character`,
        operation: "surprise",
        formula: `loss = mean of −log p[next character]`,
        filled: "the mean surprise",
        parts: kind === "trainloss" && batch ? [{ label: "texts in a batch", value: Number(batch) }] : [],
        note: "Training measured it; the page has not those texts.",
      };
    });
  }
})();
