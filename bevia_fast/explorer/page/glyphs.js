"use strict";

// How tokens and numbers are written. A character of the alphabet may be anything: what cannot be seen gets a sign, and
// what would change the direction of the text around it stands alone.

(() => {
  const SIGNS = new Map([
    ["\n", "↵"],
    ["\t", "⇥"],
    ["\r", "␍"],
    [" ", "␣"],
    ["\u00a0", "⍽"],
    ["\u007f", "␡"],
  ]);
  const NAMES = new Map([
    ["\n", "newline"],
    ["\t", "tab"],
    ["\r", "carriage return"],
    [" ", "space"],
    ["\u00a0", "no-break space"],
    [",", "comma"],
    [".", "full stop"],
    [":", "colon"],
    [";", "semicolon"],
    ["'", "apostrophe"],
    ['"', "quotation mark"],
    ["-", "hyphen"],
    ["_", "underscore"],
    ["(", "left parenthesis"],
    [")", "right parenthesis"],
  ]);

  /**
   * Return signs and names of the tokens: the characters of an alphabet of code points, or `pieces`.
   * @param {number[]} alphabet
   * @param {import("./types").Pieces | null} [pieces]
   */
  function of(alphabet, pieces) {
    if (pieces) return Bevia.pieces.glyphs(pieces, { sign, name, kind });
    const signs = alphabet.map(sign);
    const names = alphabet.map(name);
    const texts = alphabet.map((code) => String.fromCodePoint(code));
    /** @type {Map<string, number>} */
    const tokens = new Map(texts.map((text, token) => [text, token]));
    return {
      signs,
      names,
      texts,
      /**
       * Return the tokens of a text, and the characters that are not in the alphabet.
       * @param {string} text
       */
      encode(text) {
        /** @type {number[]} */
        const known = [];
        /** @type {string[]} */
        const unknown = [];
        for (const character of text) {
          const token = tokens.get(character) ?? (character === "␍" ? tokens.get("\r") : undefined);
          if (token === undefined) unknown.push(character);
          else known.push(token);
        }
        return { known, unknown };
      },
      /** @param {number[]} list */
      decode: (list) => list.map((token) => texts[token]).join(""),
      kinds: alphabet.map((code) => kind(String.fromCodePoint(code))),
      brief: signs.map((s) => (s.length > 2 ? "□" : s)),
      shown: signs.map((s) => (s === "␣" ? " " : s)),
    };
  }

  /** @param {number} code */
  function sign(code) {
    const character = String.fromCodePoint(code);
    const known = SIGNS.get(character);
    if (known) return known;
    // Unicode has pictures of the control characters
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (/^[\p{C}\p{Z}]|[\ufe00-\ufe0f]$/u.test(character)) return hexadecimal(code);
    if (/^\p{M}$/u.test(character)) return `◌${character}`;
    return character;
  }

  /** @param {number} code */
  function hexadecimal(code) {
    return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  }

  /** @param {number} code */
  function name(code) {
    const character = String.fromCodePoint(code);
    return NAMES.get(character) || (/^[\p{C}\p{Z}\p{M}]$/u.test(character) ? hexadecimal(code) : character);
  }

  /** @param {string} character */
  function kind(character) {
    if (/^\p{Lu}$/u.test(character)) return "upper";
    if (/^\p{L}|\p{M}$/u.test(character)) return "lower";
    if (/^\p{N}$/u.test(character)) return "digit";
    if (/^[\p{Z}\p{C}]$/u.test(character)) return "space";
    return "sign";
  }

  /**
   * Write a number with about 4 digits.
   * @param {number} value
   * @param {number} [digits]
   */
  function number(value, digits = 4) {
    if (Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size < 1e-4 || size >= 1e6)
      return value
        .toExponential(digits - 2)
        .replace("e", "×10^")
        .replace(/-/g, "−")
        .replace("+", "");
    return value.toFixed(Math.max(0, digits - 1 - Math.max(-1, Math.floor(Math.log10(size))))).replace("-", "−");
  }

  /**
   * Write a probability with 3 decimals, or say that it is smaller.
   * @param {number} value
   */
  function probability(value) {
    if (value < 1e-12) return "0";
    if (value < 0.0005) return "<0.001";
    return value.toFixed(3);
  }

  /** @param {number} value */
  function whole(value) {
    return value.toLocaleString("en");
  }

  Bevia.glyphs = { number, of, probability, whole };
})();
