"use strict";

// Tokens that are no single characters: bytes, or byte pairs. What each stands for, and how typed text becomes tokens.

(() => {
  // Unicode's white space, which JavaScript's \s is not; the words are those of GPT-2.
  const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
  const WORDS = new RegExp(
    `'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`,
    "gu",
  );
  const SHIFT = 2 ** 21; // more than there are tokens

  /**
   * Return the bytes of a token, which the page holds as characters below U+0100.
   * @param {string} token
   */
  const bytesOf = (token) => Uint8Array.from(token, (character) => character.charCodeAt(0));

  /**
   * Return the text of bytes, or nothing if they are no characters.
   * @param {string} token
   */
  function textOf(token) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytesOf(token));
    } catch {
      return undefined;
    }
  }

  /**
   * Return what makes tokens of text and text of tokens.
   * @param {import("./types").Pieces} pieces
   */
  function coder(pieces) {
    /** For two tokens, how early they are joined, and what they become. @type {Map<number, [number, number]>} */
    const joined = new Map(
      (pieces.merges || []).map(([left, right, whole], rank) => [left * SHIFT + right, [rank, whole]]),
    );
    const whole = new Map(pieces.whole ? pieces.bytes.map((token, id) => [token, id]) : []);
    const special = Object.keys(pieces.special).sort((one, other) => other.length - one.length);

    /** @param {string} word */
    function encodeWord(word) {
      const bytes = new TextEncoder().encode(word);
      const known = whole.get(String.fromCharCode(...bytes));
      if (known !== undefined) return [known];
      const ids = Array.from(bytes, (byte) => pieces.single[byte]);
      for (;;) {
        let best = -1;
        let least = Infinity;
        for (let at = 0; at + 1 < ids.length; at++) {
          const rank = joined.get(ids[at] * SHIFT + ids[at + 1])?.[0] ?? Infinity;
          if (rank < least) [least, best] = [rank, at];
        }
        if (best < 0) return ids;
        const pair = joined.get(ids[best] * SHIFT + ids[best + 1]);
        ids.splice(best, 2, pair ? pair[1] : 0);
      }
    }

    /**
     * @param {string} text
     * @returns {number[]}
     */
    function encode(text) {
      for (const token of special) {
        const at = text.indexOf(token);
        if (at >= 0)
          return [...encode(text.slice(0, at)), pieces.special[token], ...encode(text.slice(at + token.length))];
      }
      return (text.match(WORDS) || []).flatMap(encodeWord);
    }

    /** @param {number[]} list */
    function decode(list) {
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytesOf(list.map((id) => pieces.bytes[id]).join("")));
    }

    return { encode, decode, texts: pieces.bytes.map(textOf) };
  }

  /**
   * Take back what was typed: this page cannot cut it into the tokens of its model.
   * @param {Event} event
   */
  function refuse(event) {
    const field = /** @type {HTMLTextAreaElement} */ (event.target);
    if (field.id !== "typing") return;
    event.stopPropagation();
    field.value = "";
    field.setCustomValidity("This page cannot cut text into the tokens of this model; bevia-fast explore --prompt can.");
    field.reportValidity();
  }

  /**
   * Return signs and names of tokens; one that is no text has its bytes as a sign. `written` is how characters are.
   * @param {import("./types").Pieces} pieces
   * @param {import("./views").Written} written
   */
  function glyphs(pieces, { sign, name, kind }) {
    const { encode, decode, texts } = coder(pieces);
    document.documentElement.classList.add("chips");
    document.styleSheets[0].insertRule(
      ".chips .character { font-size: 1em; padding: 0.2em 0.1em; margin-right: 2px; box-shadow: 0 0 0 1px var(--line); }",
    );
    if (!pieces.merges) document.addEventListener("input", refuse, true);
    const hexadecimals = pieces.bytes.map((token) =>
      Array.from(token, (character) => character.charCodeAt(0).toString(16).padStart(2, "0")).join("·"),
    );
    const signs = texts.map((text, token) =>
      text ? Array.from(text, (character) => sign(character.codePointAt(0) || 0)).join("") : hexadecimals[token] || "∅",
    );
    return {
      signs,
      names: texts.map((text, token) => {
        if (text === undefined) return `bytes ${hexadecimals[token]}`;
        return [...text].length === 1 ? name(text.codePointAt(0) || 0) : signs[token];
      }),
      texts: texts.map((text) => text ?? "\ufffd"),
      /** @param {string} text */
      encode: (text) => ({ known: encode(text), unknown: /** @type {string[]} */ ([]) }),
      decode,
      kinds: texts.map((text) => kind([...(text || "").trimStart()][0] || (text ? " " : "?"))),
      brief: signs.map((text) => [...(text.replace(/^␣(?=.)/, "") || text)].slice(0, 2).join("")),
      shown: signs.map((text) => text.replace(/␣/g, " ")),
      /** @param {number[]} list */
      unlike: (list) => pieces.merges !== null && encode(decode(list)).join() !== list.join(),
    };
  }

  Bevia.pieces = { glyphs };
})();
