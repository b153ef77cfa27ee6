"""Places where only one exact input tells a right kernel from a wrong one: a check for each file of the NumPy path.

The twins of the text say what is right there too.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from bevia_fast.playbook.twins import namespace

TWINS = SimpleNamespace(**{name: value for name, value in namespace().items() if not name.startswith("__")})
KEY = (1 << 63) + 12345


def huge_scores(module: Any) -> bool:
    """The softmax subtracts the largest score of the row itself: not about as much, and not that of another row."""
    rows = [[1e5, 1e5 - 1], [-1e5, 1 - 1e5]]
    weights, lse = module.softmax(np.array(rows))
    wanted, wanted_lse = TWINS.softmax(rows)
    return bool(np.allclose(weights, wanted, rtol=1e-12) and np.allclose(lse, wanted_lse, rtol=1e-15))


def a_long_window(module: Any) -> bool:
    """The last key in a window of 150 is seen and the one before it is not, which takes more than a short text."""
    ones = np.ones((1, 1, 160, 1))
    found = module.causal_scores(ones, ones, window=150)[0, 0]
    return bool(found.tolist() == TWINS.causal_scores([[1.0]] * 160, [[1.0]] * 160, window=150))


def huge_logits(module: Any) -> bool:
    """The same for the logits."""
    rows, losses = [[1e5, 1e5 - 1], [-1e5, 1 - 1e5]], np.empty(2)
    module.cross_entropy(losses, None, np.array(rows), np.array([1, 0], np.int32))
    return bool(np.allclose(losses, TWINS.cross_entropy(rows, [1, 0])[0], rtol=1e-9))


def the_kink(module: Any) -> bool:
    """ReLU has slope 0 at 0."""
    dinp = np.full((1, 3), 7.0)
    module.relu_backward(dinp, np.ones((1, 3)), np.array([[-1.0, 0.0, 1.0]]))
    return bool(dinp.tolist() == [[TWINS.slope(x, "relu") for x in (-1.0, 0.0, 1.0)]])


def the_threshold(module: Any) -> bool:
    """Every bit of the hash matters: an element is kept up to the rate that equals its hash, and not beyond."""
    for column in range(20):
        low, high = 0, (1 << 32) - 1  # kept at low, dropped at high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if TWINS.kept(KEY, 0, column, middle / 2**32) else (low, middle)
        for threshold in (low, high):
            mask = module.dropout_mask(KEY, 1, column + 1, threshold / 2**32)
            if mask[0, column] != TWINS.kept(KEY, 0, column, threshold / 2**32):
                return False
    return True


def equal_logits(module: Any) -> bool:
    """Of equal logits, the lower id comes first."""
    logits = np.random.default_rng(1).integers(0, 3, 400).astype(np.float64)
    for top_k in (1, 50, 200):
        for noise in (0.0, 0.3, 0.9):
            options = {"temperature": 1.0, "top_k": top_k, "top_p": 1.0, "noise": noise}
            if module.sample_token(logits, **options) != TWINS.sample_token(logits.tolist(), **options):
                return False
    return True


def rounding_leaves_none(module: Any) -> bool:
    """The sums in both orders differ in the last bits, so that top-p and the noise can point behind the last token."""
    almost_1, reached = 1 - 2.0**-53, 0
    for seed in range(60):
        logits = np.random.default_rng(seed).normal(size=400)
        weights = np.exp(logits - logits.max())
        reached += np.cumsum(np.sort(weights)[::-1])[-1] < almost_1 * np.cumsum(weights)[-1]
        for top_p, noise in ((almost_1, almost_1), (1.0, almost_1)):
            options = {"temperature": 1.0, "top_k": 0, "top_p": top_p, "noise": noise}
            if module.sample_token(logits, **options) != TWINS.sample_token(logits.tolist(), **options):
                return False
    return bool(reached > 0)


def a_preactivation_that_nobody_needs(module: Any) -> bool:
    """Without an activation, a preactivation that is passed changes nothing."""
    dout, inp, weight = np.ones((1, 2)), np.array([[1.0, -1.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    dinp, dweight = np.empty((1, 2)), np.zeros((2, 2))
    module.linear_backward(dinp, dweight, None, dout, inp, weight, activation=None, preactivation=inp)
    return bool(dinp.tolist() == TWINS.linear_backward(dout.tolist(), inp.tolist(), weight.tolist())[0])


EDGES: dict[str, Callable[[Any], bool]] = {
    "kernels/numpy_ref/attention.py": lambda module: huge_scores(module) and a_long_window(module),
    "kernels/numpy_ref/activation.py": the_kink,
    "kernels/numpy_ref/dropout.py": the_threshold,
    "kernels/numpy_ref/cross_entropy.py": huge_logits,
    "kernels/numpy_ref/sampling.py": lambda module: rounding_leaves_none(module) and equal_logits(module),
    "kernels/numpy_ref/linear.py": a_preactivation_that_nobody_needs,
}
