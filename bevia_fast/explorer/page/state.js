"use strict";

// The state of the page, and how the address keeps it: "#view=read&at=12". An address may hold anything, so that every
// value is checked against the model.

(() => {
  /** @typedef {import("./views").State} State */
  /** @typedef {import("./types").Header} Header */

  const VIEWS = ["read", "attention", "stream", "embeddings", "film", "number"];
  const MAPS = ["weights", "scaled", "scores"];
  const LONGEST = 4000; // tokens that an address holds

  /**
   * @param {Header} header
   * @returns {State}
   */
  function initial(header) {
    const T = header.prompts.length ? header.prompts[0].tokens.length : 1;
    return {
      view: "read",
      text: header.prompts.length ? 0 : -1,
      typed: [],
      at: T >> 1,
      layer: 0,
      head: 0,
      frame: Math.max(0, header.film.length - 1),
      pin: -1,
      stage: 2 * header.config.layers + 1,
      token: -1,
      temperature: 1,
      topK: 0,
      topP: 1,
      seed: 1337,
      length: 100,
      number: "",
      map: "weights",
      axis: "log",
      theme: "",
      tour: 0,
    };
  }

  /**
   * Return a state in which every value fits the model.
   * @param {State} state
   * @param {Header} header
   * @returns {State}
   */
  function fitting(state, header) {
    const { layers, heads, vocab, ctx } = header.config;
    const start = initial(header);
    const typed = state.typed
      .filter((token) => Number.isInteger(token) && token >= 0 && token < vocab)
      .slice(0, LONGEST);
    let text = whole(state.text, -2, header.prompts.length - 1, start.text);
    if (text === -2 && !typed.length) text = -1;
    const length = (text === -2 ? 0 : text < 0 ? 1 : header.prompts[text].tokens.length) + typed.length;
    const frames = Math.max(1, header.film.length);
    return {
      view: VIEWS.includes(state.view) ? state.view : start.view,
      text,
      typed,
      at: whole(state.at, 0, length - Bevia.traces.windowStart(length, ctx) - 1, 0),
      layer: whole(state.layer, 0, layers - 1, 0),
      head: whole(state.head, 0, heads - 1, 0),
      frame: whole(state.frame, 0, frames - 1, frames - 1),
      pin: whole(state.pin, -1, header.film.length - 1, -1),
      stage: whole(state.stage, 0, 2 * layers + 1, 2 * layers + 1),
      token: whole(state.token, -1, vocab - 1, -1),
      temperature: real(state.temperature, 0, 5, 1),
      topK: whole(state.topK, 0, vocab, 0),
      topP: real(state.topP, 0.01, 1, 1),
      seed: whole(state.seed, 0, Number.MAX_SAFE_INTEGER, start.seed),
      length: whole(state.length, 1, 1000, start.length),
      number: /^[a-z0-9]+(\.\d+)*$/.test(state.number) ? state.number : "",
      map: MAPS.includes(state.map) ? state.map : "weights",
      axis: state.axis === "linear" ? "linear" : "log",
      theme: state.theme === "light" || state.theme === "dark" ? state.theme : "",
      tour: whole(state.tour, 0, 99, 0),
    };
  }

  /**
   * @param {number} value
   * @param {number} least
   * @param {number} most
   * @param {number} otherwise
   */
  function whole(value, least, most, otherwise) {
    return Number.isFinite(value) ? Math.min(Math.max(Math.round(value), least), most) : otherwise;
  }

  /**
   * @param {number} value
   * @param {number} least
   * @param {number} most
   * @param {number} otherwise
   */
  function real(value, least, most, otherwise) {
    return Number.isFinite(value) ? Math.min(Math.max(value, least), most) : otherwise;
  }

  /**
   * Write what differs from the initial state.
   * @param {State} state
   * @param {Header} header
   */
  function write(state, header) {
    const usual = initial(header);
    const parts = [];
    for (const [name, value] of Object.entries(state)) {
      const text = Array.isArray(value) ? value.join(".") : String(value);
      const other = Reflect.get(usual, name);
      if (text !== (Array.isArray(other) ? other.join(".") : String(other))) parts.push(`${name}=${text}`);
    }
    return parts.length ? `#${parts.join("&")}` : "";
  }

  /**
   * Read the state from an address.
   * @param {string} hash
   * @param {Header} header
   */
  function read(hash, header) {
    const state = /** @type {Record<string, any>} */ (initial(header));
    for (const part of hash.replace(/^#/, "").split("&")) {
      const [name, value = ""] = part.split("=", 2);
      if (!Object.hasOwn(state, name)) continue;
      if (Array.isArray(state[name])) state[name] = value === "" ? [] : value.split(".").map(Number);
      else if (typeof state[name] === "number") state[name] = value === "" ? NaN : Number(value);
      else state[name] = value;
    }
    return fitting(/** @type {State} */ (state), header);
  }

  Bevia.state = { fitting, initial, read, write };
})();
