"""Overlapping windows: how generation continues past the context length.

Token i of a text, counted from 0, is at place i - k * stride in each window k = 0, 1, 2, ... that contains it; a window
has `ctx` places. The token is read in the first window that contains it. When a window is full, generation continues in
the next one, which begins half a context earlier in the text. So every token, except the first few, is drawn from at
least ctx/2 tokens before it. No token is in more than two windows, and the next window is filled on the way.

With rotary positions there is one cache, a ring of as many places as a token sees: a key says how far away it is
wherever it lies, so the newest takes the place of the oldest, and nothing is read twice. A layer whose attention has a
window of its own keeps a ring of that size in any case.
"""

from __future__ import annotations

import functools


def stride(ctx: int) -> int:
    """Return the number of tokens between the beginnings of two windows.

    The next window begins with half a context of known tokens, of which the last is the first without a place in the
    window before: ctx + 1 - ctx/2.
    """
    return ctx + 1 - max(1, ctx // 2)


def window_of(index: int, ctx: int) -> int:
    """Return the first window that contains token `index`: the least k >= 0 with index < k * stride + ctx."""
    return max(0, (index - ctx) // stride(ctx) + 1)


def places_of(index: int, ctx: int) -> list[tuple[int, int]]:
    """Return (window, place) where token `index` is read, then those in the next window if it has begun."""
    step, window = stride(ctx), window_of(index, ctx)
    return [(k, index - k * step) for k in (window, window + 1) if index >= k * step]


def ring_place(index: int, size: int) -> tuple[int, int]:
    """Return where token `index` lies in a ring of `size` places, and how many of its places are filled then."""
    return index % size, min(index + 1, size)


@functools.lru_cache(64)
def rings(windows: tuple[int, ...], layers: int, size: int) -> tuple[int, ...]:
    """Return the places that each layer's cache uses, of `size` that there are; no window or 0: all of them."""
    return tuple(min(window or size, size) for window in windows or (0,) * layers)
