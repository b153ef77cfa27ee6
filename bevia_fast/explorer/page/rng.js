"use strict";

// Random numbers as a pure function of where they are used: kernels/rng.py, with BigInt for its 64-bit integers.

(() => {
  const MASK64 = (1n << 64n) - 1n;
  const GOLDEN64 = 0x9E3779B97F4A7C15n;  // 2^64 / golden ratio: spreads consecutive counters over all 64 bits

  /** What a stream is for: the one purpose of kernels/rng.py that a page has. */
  const PURPOSES = { sampling: 7n };

  /**
   * Hash a 64-bit integer: flipping one bit of x flips each bit of the result with probability 1/2.
   * @param {bigint} x
   */
  function mix64(x) {
    x &= MASK64;
    x = ((x ^ (x >> 30n)) * 0xBF58476D1CE4E5B9n) & MASK64;
    x = ((x ^ (x >> 27n)) * 0x94D049BB133111EBn) & MASK64;
    return x ^ (x >> 31n);
  }

  /**
   * Return the key of the stream for a purpose at some indices, in [0, 2^64).
   * @param {number | bigint} seed
   * @param {keyof typeof PURPOSES} purpose
   * @param {...number} indices
   */
  function streamKey(seed, purpose, ...indices) {
    let key = mix64(BigInt(seed));
    for (const part of [PURPOSES[purpose], ...indices.map(BigInt)]) key = mix64(key + GOLDEN64 + part);
    return key;
  }

  /**
   * Return number `index` of stream `key`, uniform in [0, 1), with 53 random bits.
   * @param {bigint} key
   * @param {number} index
   */
  function uniform(key, index) {
    return Number(mix64(key + GOLDEN64 * (BigInt(index) + 1n)) >> 11n) / 2 ** 53;
  }

  Bevia.rng = { mix64, streamKey, uniform };
})();
