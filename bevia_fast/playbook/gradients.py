"""Check a backward pass of your own against finite differences of its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agreement.gradients import numerical_gradient

Array = NDArray[Any]


def gradient_error(
    forward: Callable[[Array, Array], object], backward: Callable[[Array, Array, Array], object], inp: Array,
    shape: tuple[int, ...] | None = None, seed: int = 0,
) -> float:  # fmt: skip
    """Return the largest error of a gradient, relative to its largest element: below 1e-7 if it is right.

    `forward(out, inp)` writes out, of `shape`, by default that of inp; `backward(dinp, dout, inp)` writes dinp. Both
    get float64 arrays and are called with an output full of noise. Where the forward pass has a kink, a finite
    difference across it is wrong; choose `inp` away from kinks. Raises ValueError if `inp` is not finite or empty.
    """
    inp = np.array(inp, np.float64)
    if not inp.size or not np.isfinite(inp).all():
        raise ValueError("inp has no elements, or some that are not finite; wanted at least one finite number")
    generator = np.random.default_rng(seed)
    out = generator.normal(size=inp.shape if shape is None else shape)
    dout, dinp = generator.normal(size=out.shape), generator.normal(size=inp.shape)

    def loss() -> float:
        forward(out, inp)
        return float((dout * out).sum())

    numerical = numerical_gradient(loss, inp)
    backward(dinp, dout, inp)
    largest = max(float(np.abs(dinp).max()), float(np.abs(numerical).max()))
    if largest == 0.0:
        return 0.0
    return float(np.abs(dinp - numerical).max()) / largest
