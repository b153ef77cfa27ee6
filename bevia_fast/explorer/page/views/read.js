"use strict";

// Read: what the model expects after the cursor, how it would draw from that, and its own writing.

(() => {
  const { caption, card, el, put } = Bevia.dom;
  const { probability } = Bevia.glyphs;

  /** @typedef {import("./../views").App} App */

  const SHOWN = 12;

  const bars = Bevia.bars.group("The next character");
  const nodes = {
    title: el("h3"),
    caption: caption(),
    rest: caption(),
    temperature: slider("temperature", "Temperature", 0, 2, 0.05),
    topK: slider("top-k", "Top-k", 0, 1, 1),
    topP: slider("top-p", "Top-p", 0.05, 1, 0.05),
    seed: el("input", { id: "seed", type: "number", min: 0, step: 1, inputmode: "numeric" }),
    length: el("input", { id: "length", type: "number", min: 1, max: 1000, step: 1, inputmode: "numeric" }),
    write: el("button", { type: "button", class: "primary" }),
    undo: el("button", { type: "button", class: "quiet" }, "Take it back"),
    command: el("code", { class: "command" }),
    filmed: caption(),
  };
  let writing = 0;

  /**
   * @param {string} id
   * @param {string} label
   * @param {number} least
   * @param {number} most
   * @param {number} step
   */
  function slider(id, label, least, most, step) {
    const input = el("input", { type: "range", id, min: least, max: most, step });
    const output = el("output", { for: id });
    return { input, output, row: el("div", { class: "slider" }, el("label", { for: id }, label), input, output) };
  }

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  function build(root, app) {
    nodes.topK.input.max = String(app.header.config.vocab);
    for (const name of /** @type {("temperature" | "topK" | "topP")[]} */ (["temperature", "topK", "topP"])) {
      nodes[name].input.addEventListener("input", () => app.set({ [name]: Number(nodes[name].input.value) }));
    }
    nodes.seed.addEventListener("change", () => app.set({ seed: Number(nodes.seed.value) }));
    nodes.length.addEventListener("change", () => app.set({ length: Number(nodes.length.value) }));
    nodes.write.addEventListener("click", () => write(app));
    nodes.undo.addEventListener("click", () => Bevia.text.extend(app, []));
    root.append(
      el(
        "p",
        { class: "lead" },
        `The model reads one character after another and guesses the next. The stronger the shade, the more a character surprised it. Choose one to see what the model expects after it.`,
      ),
      el(
        "div",
        { class: "columns two" },
        card(nodes.title, nodes.caption, bars, nodes.rest),
        el(
          "div",
          { class: "stack" },
          card(
            el("h3", {}, "How it draws"),
            caption(
              `To write, the model draws a character at random, as often as the bars say. These reshape the bars; the thin line marks what they were.`,
            ),
            nodes.temperature.row,
            nodes.topK.row,
            nodes.topP.row,
            nodes.filmed,
          ),
          card(
            el("h3", {}, "Let it write"),
            caption("The same seed writes the same text again, here and, up to rounding, on the command line:"),
            el(
              "div",
              { class: "row fields" },
              el("label", { for: "seed" }, "Seed"),
              nodes.seed,
              el("label", { for: "length" }, `Characters`),
              nodes.length,
              nodes.write,
              nodes.undo,
            ),
            nodes.command,
          ),
        ),
      ),
    );
  }

  /** @param {App} app */
  function update(app) {
    const { scene, state, glyphs } = app;
    const { temperature, topK, topP } = state;
    const usual = temperature === 1 && (topK === 0 || topK >= app.header.config.vocab) && topP === 1;
    const token = scene.tokens[state.at];
    const next = scene.tokens[state.at + 1];
    nodes.title.replaceChildren(
      "What comes after ",
      el("bdi", { class: "glyph" }, glyphs.signs[token]),
      el("span", { class: "where" }, ` position ${state.at}`),
    );
    put(nodes.caption, `Probability of each next character, from 0 to 1: the likeliest first.`);
    const plain = scene.guesses(state.at);
    const drawn = scene.kind === "film" || usual ? plain : scene.guesses(state.at, { temperature, topK, topP });
    const was = new Map(plain.tokens.map((each, index) => [each, plain.p[index]]));
    const listed = drawn.tokens.slice(0, SHOWN);
    if (next !== undefined && drawn.full && !listed.includes(next)) listed[listed.length - 1] = next;
    const p = new Map(drawn.tokens.map((each, index) => [each, drawn.p[index]]));
    Bevia.bars.draw(
      bars,
      listed.map((each) => ({
        label: glyphs.signs[each],
        name: glyphs.names[each],
        value: p.get(each) ?? 0,
        text: probability(p.get(each) ?? 0),
        ghost: usual ? undefined : was.get(each),
        mark: each === next ? "came next" : "",
        number: usual || scene.kind === "film" ? `probability.${state.at}.${each}` : `drawn.${state.at}.${each}`,
      })),
    );
    const left = 1 - listed.reduce((total, each) => total + (p.get(each) ?? 0), 0);
    const others = app.header.config.vocab - listed.length;
    put(nodes.rest, others > 0 ? `The other ${others} characters share ${probability(Math.max(0, left))}.` : "");
    for (const name of /** @type {("temperature" | "topK" | "topP")[]} */ (["temperature", "topK", "topP"])) {
      nodes[name].input.value = String(state[name]);
      nodes[name].input.disabled = scene.kind === "film";
    }
    put(nodes.temperature.output, temperature === 0 ? "0 · always the likeliest" : temperature.toFixed(2));
    put(nodes.topK.output, topK === 0 || topK >= app.header.config.vocab ? "off" : `the best ${topK}`);
    put(nodes.topP.output, topP === 1 ? "off" : topP.toFixed(2));
    put(
      nodes.filmed,
      scene.kind === "film"
        ? `The film keeps the eight likeliest characters only; move it to its end to use these.`
        : "",
    );
    nodes.filmed.hidden = scene.kind !== "film";
    if (document.activeElement !== nodes.seed) nodes.seed.value = String(state.seed);
    if (document.activeElement !== nodes.length) nodes.length.value = String(state.length);
    put(nodes.write, writing ? "Stop" : "Write");
    nodes.undo.disabled = !state.typed.length || writing > 0;
    put(nodes.command, command(app));
  }

  /**
   * Return the command that writes the same text.
   * @param {App} app
   */
  function command(app) {
    const { state, header, scenes, glyphs } = app;
    const tokens = scenes.tokens(state).slice(-header.config.ctx);
    const text = glyphs.decode(tokens);
    if (glyphs.unlike?.(tokens)) return "No prompt has these.";
    if (/[\0\p{Cs}]/u.test(text)) return "This text has characters that no command line can hold.";
    const options = [
      `--prompt=${word(text)}`,
      `--length ${state.length}`,
      `--seed ${state.seed}`,
      `--temperature ${state.temperature}`,
    ];
    if (state.topK) options.push(`--top-k ${state.topK}`);
    if (state.topP < 1) options.push(`--top-p ${state.topP}`);
    const run = /^[\w./-]+$/.test(header.run) ? header.run : word(header.run);
    return `bevia-fast generate ${run} ${options.join(" ")}`;
  }

  /**
   * Write a text as one word for a shell.
   * @param {string} text
   */
  function word(text) {
    return /^[\x20-\x26\x28-\x7e]*$/.test(text) ? `'${text}'` : `$'${Array.from(text, quoted).join("")}'`;
  }

  /**
   * Write a character for a shell, between $' and '.
   * @param {string} character
   */
  function quoted(character) {
    if (character === "\n") return "\\n";
    if (character === "'" || character === "\\") return `\\${character}`;
    if (/^[\x20-\x7e]$/.test(character)) return character;
    return `\\U${(character.codePointAt(0) || 0).toString(16).padStart(8, "0")}`;
  }

  /**
   * Write the wanted number of characters from the seed, one a frame of the screen; or stop.
   * @param {App} app
   */
  function write(app) {
    if (writing) {
      writing = 0;
      app.redraw();
      return;
    }
    const { header } = app;
    const { seed, length, temperature, topK, topP } = app.state;
    const key = Bevia.rng.streamKey(seed, "sampling");
    let typed = app.state.typed;
    // a text that is longer than the context goes on from its end, as `generate` does with a prompt
    if (app.scenes.tokens(app.state).length > header.config.ctx) {
      typed = app.scenes.tokens(app.state).slice(-header.config.ctx);
      app.set({ text: -2, typed });
    }
    const mine = (writing = Date.now());
    let done = 0;
    const step = () => {
      if (writing !== mine || (app.state.typed !== typed && app.state.typed.join() !== typed.join())) {
        if (writing === mine) writing = 0;
        return app.redraw();
      }
      if (app.scene.kind === "film") app.set({ frame: app.last });
      const logits = app.scene.logits(app.scene.tokens.length - 1);
      const token = logits
        ? Bevia.sampling.draw(logits, { temperature, topK, topP }, Bevia.rng.uniform(key, done))
        : -1;
      if (token < 0) {
        writing = 0;
        app.announce("The model's numbers are not finite.");
        return app.redraw();
      }
      done++;
      typed = [...typed, token];
      if (done >= length) writing = 0;
      Bevia.text.extend(app, typed);
      if (writing) requestAnimationFrame(step);
      else app.announce(`Wrote ${length} characters.`);
      return undefined;
    };
    step();
  }

  Bevia.views.read = { build, update };
})();
