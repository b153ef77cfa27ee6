"""How generation goes on past the context: by windows that overlap.

Token i of a text, counted from 0, stands at place i - k * stride in each window k = 0, 1, 2, ... that it falls into;
a window has `ctx` places. It is read in the first window that has a place for it. So when a window is full, the next
one goes on, in which the text begins half a context before: every token but the first few is drawn from at least
ctx/2 tokens before it. No token falls into more than two windows, and the next one is filled on the way.
"""

from __future__ import annotations


def stride(ctx: int) -> int:
    """By how many tokens a window begins behind the one before it: all but half a context, and one more, because the
    token for which there was no place comes along."""
    return ctx + 1 - max(1, ctx // 2)


def window_of(index: int, ctx: int) -> int:
    """The first window that has a place for token `index`: the least k >= 0 with index < k * stride + ctx."""
    return max(0, (index - ctx) // stride(ctx) + 1)


def places_of(index: int, ctx: int) -> list[tuple[int, int]]:
    """The window and place where token `index` is read; then those in the next window, if that has begun."""
    step, window = stride(ctx), window_of(index, ctx)
    return [(k, index - k * step) for k in (window, window + 1) if index >= k * step]
