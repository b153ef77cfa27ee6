"use strict";

// The data of the page: the header, and the tensors as bevia_fast/explorer/encoding.py stores them.

/** What the page's scripts have in common: each adds an object to it. */
const Bevia = /** @type {import("./types").Bevia} */ (/** @type {unknown} */ ({ views: {} }));

(() => {
  /** @typedef {import("./types").Header} Header */
  /** @typedef {import("./types").Entry} Entry */
  /** @typedef {import("./types").Data} Data */

  const PARTS = 255;  // uint8 holds shares of one in so many steps

  /**
   * Read the header and the tensors of a page.
   * @param {Document} page
   * @returns {Promise<Data>}
   */
  async function read(page) {
    /** @type {Header} */
    const header = JSON.parse(text(page, "header"));
    const bytes = await inflate(fromBase64(text(page, "tensors")));
    /** @type {Map<string, Float32Array | Float64Array>} */
    const known = new Map();

    /** @param {string} name */
    function tensor(name) {
      const found = known.get(name);
      if (found) return found;
      const entry = header.tensors[name];
      if (!entry) throw new Error(`the page has no tensor ${name}`);
      const values = decode(bytes, entry);
      known.set(name, values);
      return values;
    }

    return {
      header,
      tensor,
      has: (name) => Object.hasOwn(header.tensors, name),
      weights: () => {
        /** @type {Record<string, Float64Array>} */
        const weights = {};
        for (const name of Object.keys(header.tensors)) {
          if (name.startsWith("model/")) weights[name.slice("model/".length)] = Float64Array.from(tensor(name));
        }
        return weights;
      },
    };
  }

  /**
   * @param {Document} page
   * @param {string} id
   */
  function text(page, id) {
    const element = page.getElementById(id);
    if (!element) throw new Error(`the page has no element ${id}`);
    return element.textContent || "";
  }

  /** @param {string} coded */
  function fromBase64(coded) {
    const binary = atob(coded);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  /**
   * Decompress the format of zlib.
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  async function inflate(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /**
   * Return the numbers of a tensor, in row-major order of its shape.
   * @param {Uint8Array} bytes
   * @param {Entry} entry
   */
  function decode(bytes, entry) {
    const values = numbers(together(bytes, entry), entry.dtype);
    return entry.lower ? square(values, entry.shape) : values;
  }

  /**
   * Put the bytes of each element together again: first bytes, second bytes and so on were stored apart.
   * @param {Uint8Array} bytes
   * @param {Entry} entry
   */
  function together(bytes, entry) {
    const size = { float64: 8, float32: 4, float16: 2, uint16: 2, uint8: 1 }[entry.dtype];
    const count = entry.bytes / size;
    const result = new Uint8Array(entry.bytes);
    for (let part = 0; part < size; part++) {
      const start = entry.offset + part * count;
      for (let i = 0; i < count; i++) result[i * size + part] = bytes[start + i];
    }
    return result;
  }

  /**
   * @param {Uint8Array} bytes
   * @param {Entry["dtype"]} dtype
   */
  function numbers(bytes, dtype) {
    // typed arrays have the byte order of the machine, which is little-endian wherever a browser runs
    if (dtype === "float64") return new Float64Array(bytes.buffer);
    if (dtype === "float32") return new Float32Array(bytes.buffer);
    if (dtype === "float16") return Float32Array.from(new Uint16Array(bytes.buffer), fromHalf);
    if (dtype === "uint16") return Float32Array.from(new Uint16Array(bytes.buffer));
    return Float32Array.from(bytes, (part) => part / PARTS);
  }

  /**
   * Return the number whose bits in half precision are given (IEEE 754: 1 sign, 5 exponent, 10 fraction).
   * @param {number} bits
   */
  function fromHalf(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  /**
   * Put matrices (..., T, T) together that were stored without the zeros above their diagonals.
   * @param {Float32Array | Float64Array} values
   * @param {number[]} shape
   */
  function square(values, shape) {
    const T = shape[shape.length - 1];
    const count = shape.slice(0, -2).reduce((product, size) => product * size, 1);
    const result = values instanceof Float64Array ? new Float64Array(count * T * T) : new Float32Array(count * T * T);
    let place = 0;
    for (let row = 0; row < count * T; row++) {
      for (let column = 0; column <= row % T; column++) result[row * T + column] = values[place++];
    }
    return result;
  }

  Bevia.data = { read };
})();
