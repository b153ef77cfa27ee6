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

  Bevia.pieces = { coder };
})();
