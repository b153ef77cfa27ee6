"""Models with something taken out, for the lab: a backend that changes some calls on their way to another backend.

The passes of the model and the kernels stay as they are, and a usual model gets its backend unchanged, so that it loses
no time; one with products in bfloat16 gets a backend that makes them so. Each change is exact, forward and backward, so
that finite differences hold for the changed model too:

    scale=False       q . k instead of q . k / sqrt(HS): the queries that attention gets are multiplied by sqrt(HS)
    residual=False    x = f(x) instead of x = x + f(x): sums with the stream, and with its gradient, are left out

Generation keeps both: `decoder` multiplies the weights of the queries, and `decode_tokens` has an option `residual`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..kernels.bfloat16 import AtPrecision, at_precision
from ..kernels.contract import OPERATIONS, Backend

Array = NDArray[Any]

RESIDUALS = ("residual", "dresidual")  # the names of the stream and its gradient among the arrays of an operation


class Changed:
    """A backend whose operations are those of another one, except for the changes.

    It takes memory for a copy of qkv (B,T,3C) where the scale is taken out.
    """

    def __init__(self, backend: Backend, scale: bool, residual: bool) -> None:
        names = [("scale", scale), ("residuals", residual)]
        self.name = ", ".join([backend.name, *(f"no {name}" for name, kept in names if not kept)])
        self.unchanged = backend
        for operation, entry in OPERATIONS.items():
            function = getattr(backend, operation)
            if not residual and any(spec.name in RESIDUALS for spec in entry.arrays):
                function = _without_residual(function)
            setattr(self, operation, function)
        if not scale:
            self.attention_forward, self.attention_backward = self._forward, self._backward
            self.attention_weights = self._weights
        if hasattr(backend, "conditions"):
            self.conditions = backend.conditions

    def _forward(self, out: Array, lse: Array, qkv: Array, **options: Any) -> None:
        self.unchanged.attention_forward(out, lse, longer_queries(qkv, lse.shape[1]), **options)

    def _backward(self, dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array, **options: Any) -> None:
        self.unchanged.attention_backward(dqkv, dout, longer_queries(qkv, lse.shape[1]), out, lse, **options)
        # forward: the queries that attention gets are q * sqrt(HS)
        C, NH = dout.shape[2], lse.shape[1]
        dqkv[:, :, :C] *= root(C // NH, dqkv.dtype)

    def _weights(self, weights: Array, qkv: Array, first: int = 0, **options: Any) -> None:
        self.unchanged.attention_weights(weights, longer_queries(qkv, weights.shape[1]), first, **options)


def changed(backend: Backend, config: ModelConfig) -> Backend:
    """Return a backend with the precision of `config`, that leaves out what it does; or `backend` itself."""
    backend = at_precision(unchanged(backend), config.precision)
    if config.scale and config.residual:
        return backend
    return cast(Backend, Changed(backend, config.scale, config.residual))


def unchanged(backend: Backend) -> Backend:
    """Return the backend that a changed one computes with, in its own precision; any other one itself."""
    backend = backend.unchanged if isinstance(backend, Changed) else backend
    return backend.exact if isinstance(backend, AtPrecision) else backend


def longer_queries(qkv: Array, heads: int) -> Array:
    """Return a copy of qkv (B,T,3C) with the queries multiplied by sqrt(HS)."""
    C = qkv.shape[2] // 3
    longer = qkv.copy()
    longer[:, :, :C] *= root(C // heads, qkv.dtype)
    return longer


def root(HS: int, dtype: np.dtype[Any]) -> Any:
    """Return sqrt(HS), by which attention divides the scores."""
    return dtype.type(math.sqrt(HS))


def _without_residual(function: Callable[..., Any]) -> Callable[..., Any]:
    def without(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in RESIDUALS})

    return without
