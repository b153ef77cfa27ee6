// The types of the page's views, for `tsc --checkJs`; nothing of this is in the page.

import type { Data, Header, Model, Sampling, Trace } from "./types";

export type ViewName = "read" | "attention" | "stream" | "embeddings" | "film" | "number";

/** What one looks at: the shared cursor and every setting. All of it is in the address, behind the #. */
export interface State {
  view: ViewName;
  /** Number of the prompt; -1 is the blank page, -2 is nothing but what was typed. */
  text: number;
  /** What was typed or written after the prompt. */
  typed: number[];
  /** The cursor: a position in the model's window, from 0 on. */
  at: number;
  layer: number; head: number;
  /** Frame of the film; the last one is the final model. */
  frame: number;
  /** The frame that is pinned, or -1. */
  pin: number;
  stage: number;
  /** The token that the map shows, or -1: the one at the cursor. */
  token: number;
  temperature: number; topK: number; topP: number; seed: number; length: number;
  /** The number that is explained, such as "weight.0.1.12.5" (see parts/numbers.js), or "". */
  number: string;
  map: "weights" | "scaled" | "scores";
  axis: "log" | "linear";
  theme: "" | "light" | "dark";
  /** Stop of the tour, from 1 on; 0: none. */
  tour: number;
}

export type Numbers = Float32Array | Float64Array;

/** Likeliest tokens after a position, and their probabilities; `full` if these are all tokens. */
export interface Guesses { tokens: number[]; p: number[]; full: boolean }

/** What a model computed for a text: the only thing that views draw. */
export interface Scene {
  /** Whose numbers: the engine's, those of the film, or computed in the page. */
  kind: "engine" | "film" | "page";
  frame: number;
  /** Tokens in the model's window, and those before it, which the model does not see. */
  tokens: number[]; before: number[];
  /** -log p of each token, in nats; NaN for the first one. */
  surprise: Float64Array;
  /** (NH,T,T); scores and scaled are null in the film. */
  weights(layer: number): Numbers;
  scores(layer: number): Numbers | null;
  /** Best guess of each stage at each position, and its probability: (2 L + 2, T). */
  lens(): { token: Numbers; probability: Numbers };
  /** All logits (V,) after a position; null in the film. */
  logits(position: number): Float64Array | null;
  guesses(position: number, sampling?: Sampling): Guesses;
  /** Probabilities (V,) at a stage of the stream; null in the film. */
  stage(stage: number, position: number): Float64Array | null;
  /** All stages in double precision; null in the film. */
  trace(): Trace | null;
}

export interface Scenes {
  model(): Model;
  of(state: State): Scene;
  at(state: State, frame: number): Scene;
  base(text: number): number[];
  tokens(state: State): number[];
}

export interface App {
  glyphs: Glyphs;
  data: Data; header: Header; state: State; scenes: Scenes; scene: Scene;
  set(change: Partial<State>): void;
  explain(number: string): void;
  announce(text: string): void;
  redraw(): void;
  /** Colors the text as `position` looks, while the pointer is over it; -1 ends that. */
  hover(position: number): void;
  hovered: number;
  /** Index of the last frame. */
  last: number;
}

export interface View {
  build(root: HTMLElement, app: App): void;
  update(app: App): void;
}

/** A number, explained. */
export interface Explained {
  title: string; of: string; value: number; unit: string;
  formula: string; filled: string;
  parts: { label: string; value: number; ref?: string }[];
  terms?: Terms;
  operation: string;
  /** The engine's number, where the page has it. */
  engine?: number;
  note?: string;
}

export interface Terms {
  caption: string; names: [string, string];
  rows: { label: string; a: number; aRef?: string; b: number; bRef?: string; product: number }[];
  rest: number; left: number;
}

/** Numbers from 0 to 1 to colors. */
export type Ramp = Uint8ClampedArray;
