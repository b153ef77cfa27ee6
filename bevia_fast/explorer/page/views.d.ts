// The types of the page's views, for `tsc --checkJs`; nothing of this is in the page.

import type { Config, Data, Header, Model, Sampling, Trace } from "./types";

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
  /** Whether the page holds its numbers in half precision. */
  half: boolean;
  /** Index of the last frame. */
  last: number;
}

export interface View {
  build(root: HTMLElement, app: App): void;
  update(app: App): void;
}

/** What explains a kind of number: the rest is empty unless it is given. */
export type Made = Omit<Explained, "unit" | "formula" | "parts"> &
  Partial<Pick<Explained, "unit" | "formula" | "parts">>;

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

/** How a character is written: its sign, its name, and the kind of it that colors tell. */
export interface Written {
  sign(code: number): string; name(code: number): string; kind(character: string): string;
}

export interface Glyphs {
  signs: string[]; names: string[]; texts: string[]; kinds: string[];
  /** Signs of at most two letters, for a cell; signs in a text, where a space is one. Whether no text has these tokens. */
  brief: string[]; shown: string[]; unlike?(tokens: number[]): boolean;
  encode(text: string): { known: number[]; unknown: string[] };
  decode(tokens: number[]): string;
}

// ------------------------------------------------------------------------------- what each script adds to `Bevia`

type Kind = "sequential" | "diverging";
type Child = string | Node | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;

export interface Dom {
  assign(element: Element, attributes: Attributes): void;
  byId(id: string): HTMLElement;
  el<K extends keyof HTMLElementTagNameMap>(tag: K, attributes?: Attributes, ...children: Child[]): HTMLElementTagNameMap[K];
  svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes?: Attributes, ...children: Child[]): SVGElementTagNameMap[K];
  put(element: Element, text: string): void;
  caption(...children: Child[]): HTMLParagraphElement; card(...children: Child[]): HTMLDivElement;
  numeral(number: string, text: string): HTMLButtonElement;
  reach(group: HTMLElement, selector: string, element: HTMLElement | undefined): void;
  repeat<E extends HTMLElement>(parent: HTMLElement, count: number, make: (index: number) => E): E[];
  roving(group: HTMLElement, selector: string, moved?: (element: HTMLElement) => void): void;
}

export interface Bar {
  label: string;
  /** How a screen reader calls it. */
  name: string;
  value: number;
  /** A value to compare with, drawn as a line. */
  ghost?: number;
  /** The value, written. */
  text: string;
  /** A word after the value. */
  mark?: string;
  /** The number that it explains. */
  number?: string;
}

export interface Matrix {
  /** Row-major, from index `start` on. */
  values: Numbers; start: number; rows: number; columns: number;
  kind: Kind;
  /** The numbers of the first and of the last color. */
  low: number; high: number;
  /** Leaves what lies above the diagonal empty. */
  causal?: boolean;
}

/** A row of best guesses, which begins at index `start` of both lists. */
export interface Row { label: string; tokens: ArrayLike<number>; p: ArrayLike<number>; start: number }

export interface Grid { box: HTMLElement; table: HTMLElement; corner: string }

export interface Axis {
  /** With its unit. */
  label: string;
  /** Where a value lies, from 0 to 1. */
  place(value: number): number;
  ticks: { value: number; text: string }[];
}

export interface Plot {
  across(value: number): number; down(value: number): number;
  box: { left: number; right: number; top: number; bottom: number };
  width: number; height: number;
}

/** What explains a number: the trace, the weights, and the sizes by the letters of the kernels. */
export interface Context {
  app: App; config: Config; trace: Trace; W: Record<string, Float64Array>;
  C: number; NH: number; HS: number; T: number; V: number; pre: boolean;
}

/** A number of a linear layer: from `count` inputs, from index `start` on. */
export interface Linear {
  title: string; of: string; input: Float64Array; start: number; count: number; ref(c: number): string;
  name: string; column: number; columns: number; value: number; operation: string; inputs: string;
}

/** A number of a layer normalization. */
export interface Normalized {
  title: string; of: string; input: Float64Array; t: number; c: number; ref: string; name: string; operation: string;
}

export interface Term { label: string; a: number; aRef?: string; b: number; bRef?: string }

export interface Parts {
  dom: Dom;
  /** Only in the page of a model whose tokens are no characters. */
  pieces: { glyphs(pieces: import("./types").Pieces, written: Written): Glyphs };
  glyphs: {
    number(value: number, digits?: number): string; probability(value: number): string; whole(value: number): string;
    of(alphabet: number[], pieces?: import("./types").Pieces | null): Glyphs;
  };
  bars: { draw(root: HTMLElement, bars: Bar[], most?: number): void; group(label: string): HTMLDivElement };
  colors: {
    current(kind?: Kind): Uint8ClampedArray; dark(): boolean; index(share: number): number;
    legend(canvas: HTMLCanvasElement, kind?: Kind): void; named(name: string): string;
    paint(element: HTMLElement, share: number): void;
  };
  filmbar: {
    build(app: App): void; describe(app: App, frame: number): string; label(button: HTMLElement): void;
    play(app: App): void; show(app: App, frame: number): void; stop(): void; update(app: App): void;
  };
  guesses: {
    draw(grid: Grid, app: App, rows: Row[], cursor: { row: number; column: number; truth(column: number): number }): void;
    make(label: string, corner: string, chosen: (row: number, column: number) => void): Grid;
  };
  heatmap: {
    draw(canvas: HTMLCanvasElement, matrix: Matrix, box: { width: number; height: number; left?: number; top?: number }): CanvasRenderingContext2D | null;
    extent(values: Numbers, start: number, rows: number): number;
    small(canvas: HTMLCanvasElement, matrix: Matrix, size: number): void;
  };
  lines: {
    frame(drawing: SVGSVGElement, x: Axis, y: Axis, height: number): Plot;
    path(points: [number, number][]): string;
    round(least: number, most: number, count: number): number[];
  };
  numbers: {
    at(context: Context, t: number): string;
    define(kind: string, limits: string, make: (context: Context, ...indices: number[]) => Made): void;
    engine(context: Context, name: string, place: number): number | undefined;
    explain(app: App, address: string): Explained | null;
    percent(part: number): string; sibling(context: Context, kind: string, ...indices: number[]): Explained;
    f(value: number, digits?: number): string; g(value: number): string;
    linear(context: Context, what: Linear): Explained; norm(context: Context, what: Normalized): Explained;
    share(row: ArrayLike<number>, index: number): { top: number; total: number; value: number; filled: string };
    sum(found: Terms): string;
    terms(caption: string, names: [string, string], count: number, term: (i: number) => Term): Terms;
  };
  scenes: { open(data: Data): Scenes };
  traces: {
    largest(values: Numbers): number; minusLog(logits: Float64Array, token: number): number;
    shortened(trace: Trace, length: number): Trace; windowStart(length: number, ctx: number): number;
  };
  explanation: { described(app: App, address: string, all: boolean): Node[] };
  heads: { draw(root: HTMLElement, app: App): void; habit(line: HTMLElement, app: App): void };
  losses: { draw(drawing: SVGSVGElement, app: App): Plot };
  places: {
    of(app: App, frame: number): Numbers;
    scale(app: App): { left(x: number): number; top(y: number): number; low: number[]; high: number[] };
  };
  state: {
    fitting(state: State, header: Header): State; initial(header: Header): State;
    read(hash: string, header: Header): State; write(state: State, header: Header): string;
  };
  text: { build(app: App): void; extend(app: App, typed: number[]): void; update(app: App): void };
  views: {
    read: View; attention: View; stream: View; film: View;
    embeddings: View & { cosine(table: ArrayLike<number>, a: number, b: number, width: number): number };
    number: View & { dock(app: App): void };
  };
  tour: { build(app: App): void; update(app: App): void };
}
