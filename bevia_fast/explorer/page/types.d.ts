// The types of the page's scripts, for `tsc --checkJs`; nothing of this is in the page.

import type { Parts } from "./views";

export interface Config {
  vocab: number; ctx: number; dim: number; layers: number; heads: number; hidden: number;
  norm: "pre" | "post"; activation: "gelu" | "gelu_erf" | "relu"; tie: boolean; bias: boolean; epsilon: number;
  rotary: boolean; windows: number[]; scale: boolean; residual: boolean;
}

export interface Entry {
  dtype: "float64" | "float32" | "float16" | "uint16" | "uint8";
  shape: number[]; offset: number; bytes: number; lower?: boolean;
}

export interface Source { formula: string; file: string; function: string; snippet: string; line: number }

/** Tokens that are bytes or byte pairs; a string has a character below U+0100 for each byte. */
export interface Pieces {
  unit: string; bytes: string[];
  /** The token of each byte. */
  single: number[];
  /** [left, right, joined] in the order in which they are joined; null if the page cannot make tokens of text. */
  merges: [number, number, number][] | null;
  /** Whether a word that is a token is taken as it is. */
  whole: boolean;
  special: Record<string, number>;
}

/** What bevia_fast/explorer/exploring.py writes into the page. */
export interface Header {
  format: number; program: string; run: string; made: string; backend: string; dtype: "float32" | "float64";
  step: number;
  config: Config;
  /** The code points of the tokens, if they are characters; `pieces` are other tokens. */
  alphabet: number[]; pieces: Pieces | null;
  /** The token that a blank page begins with. */
  newline: number;
  prompts: { tokens: number[]; origin: string }[];
  curve: { steps: number[]; train: (number | null)[]; validation: (number | null)[] };
  train_config: Record<string, number | string>;
  film: { step: number; train_loss: number | null; validation_loss: number | null }[];
  tensors: Record<string, Entry>;
  sources: Record<string, Source>;
  notes: string[];
}

export interface Data {
  header: Header;
  /** The numbers of a tensor, row-major; throws an Error for a name that the page does not have. */
  tensor(name: string): Float32Array | Float64Array;
  has(name: string): boolean;
  /** The weights of the final model by name, in double precision. */
  weights(): Record<string, Float64Array>;
}

export interface Sampling { temperature: number; topK: number; topP: number }

/** The stages of one block: (T,C), but scores, scaled and weights (NH,T,T), hidden and activated (T,hidden). */
export interface BlockTrace {
  norm1: Float64Array; q: Float64Array; k: Float64Array; v: Float64Array;
  scores: Float64Array; scaled: Float64Array; weights: Float64Array; mixed: Float64Array;
  attention: Float64Array; sum1: Float64Array; stream1: Float64Array;
  norm2: Float64Array; hidden: Float64Array; activated: Float64Array; mlp: Float64Array; sum2: Float64Array;
  stream2: Float64Array;
}

export interface Trace {
  model: Model; tokens: number[]; readonly length: number;
  embedding: Float64Array; blocks: BlockTrace[]; final: Float64Array; logits: Float64Array; probabilities: Float64Array;
  extend(token: number): Trace;
}

export interface Model {
  config: Config; weights: Record<string, Float64Array>; head: Float64Array;
  forward(tokens: ArrayLike<number>): Trace;
  lens(stream: Float64Array, position: number): Float64Array;
  follow(trace: Trace, token: number): Trace;
}

/** The object that all scripts share. The views describe what they add in a file of their own. */
export interface Bevia extends Numerics, Parts {}

/** The weight and the bias of a linear layer or of a layer normalization. */
export interface Affine { weight: Float64Array; bias: Float64Array | undefined }

/** The kernels; kernels.js says what each argument is. They compute the rows from `first` on. */
export interface Kernels {
  add(out: Float64Array, a: Float64Array, b: Float64Array, C: number, first: number): void;
  causalScores(
    scores: Float64Array, scaled: Float64Array, q: Float64Array, k: Float64Array, NH: number, C: number, first: number,
    window: number, scale: boolean,
  ): void;
  embedding(
    out: Float64Array, tokens: number[], tokenTable: Float64Array, positionTable: Float64Array | undefined, C: number,
    first: number,
  ): void;
  gelu(x: number): number;
  gelu_erf(x: number): number;
  head(out: Float64Array, inp: Float64Array, weight: Float64Array, C: number, first: number): void;
  layernorm(out: Float64Array, inp: Float64Array, affine: Affine, epsilon: number, first: number): void;
  linear(out: Float64Array, inp: Float64Array, affine: Affine, C: number, first: number): void;
  mix(out: Float64Array, weights: Float64Array, v: Float64Array, NH: number, C: number, first: number): void;
  relu(x: number): number;
  rotate(heads: Float64Array, t: number, HS: number): void;
  softmax(out: Float64Array, scores: Float64Array, width: number, height: number, first: number): void;
  turn(c: number, HS: number): number;
}

export interface Numerics {
  data: { read(page: Document): Promise<Data> };
  rng: {
    mix64(x: bigint): bigint;
    streamKey(seed: number | bigint, purpose: "sampling", ...indices: number[]): bigint;
    uniform(key: bigint, index: number): number;
  };
  sampling: {
    draw(logits: Float64Array, options: Sampling, noise: number): number;
    probabilities(logits: Float64Array, options: Sampling): Float64Array;
  };
  kernels: Kernels;
  forward: { Model: new (config: Config, weights: Record<string, Float64Array>) => Model };
}
