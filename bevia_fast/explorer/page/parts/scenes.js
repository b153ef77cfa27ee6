"use strict";

// What a model computed for a text at a frame of the film, from one of three sources: the engine's numbers, the film, or
// the page's own model for what was typed.

(() => {
  /** @typedef {import("./../views").Scene} Scene */
  /** @typedef {import("./../views").State} State */
  /** @typedef {import("./../types").Data} Data */
  /** @typedef {import("./../types").Trace} Trace */
  /** @typedef {import("./../types").Model} Model */
  /** The best guess of each stage at a position. @typedef {{token: number, p: number}[]} Column */

  /**
   * @param {Data} data
   * @returns {import("./../views").Scenes}
   */
  function open(data) {
    const { header } = data;
    const { ctx } = header.config;
    const last = Math.max(0, header.film.length - 1);
    const newline = header.newline;
    /** @type {Model | undefined} */
    let made;
    /** @type {Trace | undefined} */
    let live;
    let shown = "";
    /** @type {Map<string, Scene>} */
    const kept = new Map();
    /** Best guesses of what was typed. @type {Column[]} */
    let columns = [];

    function model() {
      made ??= new Bevia.forward.Model(header.config, data.weights());
      return made;
    }

    /**
     * Return what a text begins with: a prompt; for the blank page (-1) a newline, as `generate` does; or nothing (-2).
     * @param {number} text
     */
    function base(text) {
      if (text === -2) return [];
      return text < 0 ? [newline] : header.prompts[text].tokens;
    }

    /** @param {State} state */
    function tokens(state) {
      return [...base(state.text), ...state.typed];
    }

    /**
     * Return the trace of a window, from the last one as far as they agree.
     * @param {number[]} wanted
     */
    function traced(wanted) {
      let same = 0;
      live ??= begun();
      if (live) while (same < Math.min(live.length, wanted.length) && live.tokens[same] === wanted[same]) same++;
      columns = columns.slice(0, same);
      if (!live || same === 0) {
        live = model().forward(wanted);
      } else {
        if (same < live.length) live = Bevia.traces.shortened(live, same);
        for (const token of wanted.slice(same)) live.extend(token);
      }
      return live;
    }

    /** Return a copy of the trace of the prompt that is shown, from which one types on. */
    function begun() {
      const whole = kept.get(shown)?.trace();
      return whole ? Bevia.traces.shortened(whole, whole.length) : undefined;
    }

    /**
     * @param {State} state
     * @param {number} frame
     * @returns {Scene}
     */
    function at(state, frame) {
      if (state.text >= 0 && !state.typed.length) {
        const name = `${state.text}/${frame}`;
        shown = `${state.text}/${last}`;
        let found = kept.get(name);
        if (!found) {
          found = frame < last ? filmed(data, state.text, frame) : computed(data, state.text, model);
          kept.set(name, found);
        }
        return found;
      }
      if (shown !== `${state.text}/${last}`) live = undefined;
      shown = `${state.text}/${last}`;
      const all = tokens(state);
      const start = Bevia.traces.windowStart(all.length, ctx);
      const trace = traced(all.slice(start));
      return typed(trace, all.slice(0, start), last, columns);
    }

    return { model, base, tokens, at, of: (state) => at(state, state.frame) };
  }

  /**
   * A prompt at the end of the training: the engine's numbers.
   * @param {Data} data
   * @param {number} text
   * @param {() => Model} model
   * @returns {Scene}
   */
  function computed(data, text, model) {
    const { header } = data;
    const { layers, vocab: V, dim: C } = header.config;
    const { tokens } = header.prompts[text];
    const name = `prompt/${text}`;
    const logits = Float64Array.from(data.tensor(`${name}/logits`));
    const streams = ["embedding"];
    for (let layer = 0; layer < layers; layer++) streams.push(`block.${layer}.attention`, `block.${layer}.mlp`);
    /** @type {Trace | undefined} */
    let whole;
    return fromLogits(
      {
        kind: "engine",
        frame: Math.max(0, header.film.length - 1),
        tokens,
        before: [],
        weights: (layer) => data.tensor(`${name}/block.${layer}.weights`),
        scores: (layer) => data.tensor(`${name}/block.${layer}.scores`),
        trace: () => (whole ??= model().forward(tokens)),
      },
      logits,
      V,
      streams.length,
      (stage, position) => {
        const row = data.tensor(`${name}/${streams[stage]}`).subarray(position * C, (position + 1) * C);
        return model().lens(Float64Array.from(row), 0);
      },
    );
  }

  /**
   * What was typed: the page's numbers.
   * @param {Trace} trace
   * @param {number[]} before
   * @param {number} frame
   * @param {Column[]} columns that are known already
   * @returns {Scene}
   */
  function typed(trace, before, frame, columns) {
    const streams = [trace.embedding, ...trace.blocks.flatMap((block) => [block.stream1, block.stream2])];
    return fromLogits(
      {
        kind: "page",
        frame,
        tokens: trace.tokens,
        before,
        weights: (layer) => trace.blocks[layer].weights,
        scores: (layer) => trace.blocks[layer].scores,
        trace: () => trace,
      },
      trace.logits,
      trace.model.config.vocab,
      streams.length,
      (stage, position) => trace.model.lens(streams[stage], position),
      columns,
    );
  }

  /**
   * Add what follows from the logits and the stages of the stream.
   * @param {Pick<Scene, "kind" | "frame" | "tokens" | "before" | "weights" | "scores" | "trace">} scene
   * @param {Float64Array} logits (T,V)
   * @param {number} V
   * @param {number} stages of the stream; the output comes on top
   * @param {(stage: number, position: number) => Float64Array} look
   * @param {Column[]} [columns] the best guesses at each position, which this extends
   * @returns {Scene}
   */
  function fromLogits(scene, logits, V, stages, look, columns = []) {
    const T = scene.tokens.length;
    const plain = { temperature: 1, topK: 0, topP: 1 };
    /** @param {number} position */
    const row = (position) => logits.subarray(position * V, (position + 1) * V);
    const surprise = new Float64Array(T).fill(NaN);
    for (let t = 1; t < T; t++) surprise[t] = Bevia.traces.minusLog(row(t - 1), scene.tokens[t]);
    /** @type {{token: Float64Array, probability: Float64Array} | undefined} */
    let seen;

    /**
     * @param {number} stage
     * @param {number} position
     */
    function stageOf(stage, position) {
      return stage < stages ? look(stage, position) : Bevia.sampling.probabilities(row(position), plain);
    }

    return {
      ...scene,
      surprise,
      logits: row,
      stage: stageOf,
      lens() {
        if (seen) return seen;
        seen = { token: new Float64Array((stages + 1) * T), probability: new Float64Array((stages + 1) * T) };
        for (let t = 0; t < T; t++) {
          const column = (columns[t] ??= Array.from({ length: stages + 1 }, (_, stage) => {
            const p = stageOf(stage, t);
            const token = Bevia.traces.largest(p);
            return { token, p: p[token] };
          }));
          for (let stage = 0; stage <= stages; stage++) {
            seen.token[stage * T + t] = column[stage].token;
            seen.probability[stage * T + t] = column[stage].p;
          }
        }
        return seen;
      },
      guesses(position, sampling = plain) {
        const p = Bevia.sampling.probabilities(row(position), sampling);
        const order = Array.from(row(position).keys()).sort(
          (a, b) => p[b] - p[a] || row(position)[b] - row(position)[a] || a - b,
        );
        return { tokens: order, p: order.map((token) => p[token]), full: true };
      },
    };
  }

  /**
   * A prompt at a frame before the last one: what the film keeps.
   * @param {Data} data
   * @param {number} text
   * @param {number} frame
   * @returns {Scene}
   */
  function filmed(data, text, frame) {
    const { header } = data;
    const { heads: NH, vocab: V } = header.config;
    const { tokens } = header.prompts[text];
    const T = tokens.length;
    const name = `film/${frame}/${text}`;
    const columns = Math.min(8, V);
    const surprise = new Float64Array(T).fill(NaN);
    surprise.set(data.tensor(`${name}/surprise`), 1);
    return {
      kind: "film",
      frame,
      tokens,
      before: [],
      surprise,
      weights: (layer) => data.tensor(`${name}/weights`).subarray(layer * NH * T * T, (layer + 1) * NH * T * T),
      scores: () => null,
      logits: () => null,
      stage: () => null,
      trace: () => null,
      lens: () => ({ token: data.tensor(`${name}/lens.token`), probability: data.tensor(`${name}/lens.probability`) }),
      guesses(position) {
        const part = [position * columns, (position + 1) * columns];
        return {
          tokens: Array.from(data.tensor(`${name}/top.token`).subarray(...part)),
          p: Array.from(data.tensor(`${name}/top.probability`).subarray(...part)),
          full: columns === V,
        };
      },
    };
  }

  Bevia.scenes = { open };
})();
