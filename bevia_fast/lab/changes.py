"""Models with something taken out: a backend that changes some calls on their way to another backend.

The model's code and the kernels stay as they are. Each change is exact, forward and backward, so that finite
differences hold for the changed model too:

    no scale             q . k instead of q . k / sqrt(HS): the queries that attention gets are multiplied by sqrt(HS)
    no residual          x = f(x) instead of x = x + f(x): sums with the stream, and with its gradient, are left out
    no bias correction   AdamW is told that infinitely many steps were taken, whose correction divides by 1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..kernels.contract import OPERATIONS, Backend

Array = NDArray[Any]

FOREVER = 1 << 40  # steps after which beta^step is 0 for every beta below 1 - 1e-9
RESIDUALS = ("residual", "dresidual")  # the names of the stream and its gradient among the arguments


class Changed:
    """A backend whose operations are those of another one, except for the changes. It cannot generate text."""

    def __init__(self, backend: Backend, scale: bool, residual: bool, bias_correction: bool) -> None:
        names = [("scale", scale), ("residuals", residual), ("bias correction", bias_correction)]
        self.name = ", ".join([backend.name, *(f"no {name}" for name, kept in names if not kept)])
        self._backend = backend
        for operation in OPERATIONS:
            function = getattr(backend, operation)
            if not residual and any(name in OPERATIONS[operation].signature.parameters for name in RESIDUALS):
                function = _without_residual(function)
            setattr(self, operation, function)
        if not scale:
            self.attention_forward, self.attention_backward = self._forward, self._backward
            self.attention_weights = self._weights
        if not bias_correction:
            self.adamw = self._adamw
        if not (scale and residual):
            self.decode_tokens = _cannot_generate
        if hasattr(backend, "conditions"):
            self.conditions = backend.conditions

    def _forward(self, out: Array, lse: Array, qkv: Array, **dropout: Any) -> None:
        self._backend.attention_forward(out, lse, longer_queries(qkv, lse.shape[1]), **dropout)

    def _backward(self, dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array, **dropout: Any) -> None:
        self._backend.attention_backward(dqkv, dout, longer_queries(qkv, lse.shape[1]), out, lse, **dropout)
        # forward: the queries that attention gets are q * sqrt(HS)
        C = dout.shape[2]
        dqkv[:, :, :C] *= _root(C, lse.shape[1], dqkv.dtype)

    def _weights(self, weights: Array, qkv: Array, first: int = 0) -> None:
        self._backend.attention_weights(weights, longer_queries(qkv, weights.shape[1]), first)

    def _adamw(self, *arrays: Array, step: int, **options: Any) -> None:
        self._backend.adamw(*arrays, step=FOREVER, **options)


def changed(
    backend: Backend, *, scale: bool = True, residual: bool = True, bias_correction: bool = True
) -> Backend:
    """Return a backend with parts of the model taken out; with nothing taken out, `backend` itself."""
    if scale and residual and bias_correction:
        return backend
    return cast(Backend, Changed(backend, scale, residual, bias_correction))


def longer_queries(qkv: Array, heads: int) -> Array:
    """Return a copy of qkv (B,T,3C) with the queries multiplied by sqrt(HS)."""
    C = qkv.shape[2] // 3
    longer = qkv.copy()
    longer[:, :, :C] *= _root(C, heads, qkv.dtype)
    return longer


def _root(C: int, heads: int, dtype: np.dtype[Any]) -> Any:
    return dtype.type(math.sqrt(C // heads))


def _without_residual(function: Callable[..., Any]) -> Callable[..., Any]:
    def without(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in RESIDUALS})

    return without


def _cannot_generate(*arguments: Any, **options: Any) -> int:
    raise UserError("A model with a part taken out cannot generate text; the lab only trains and measures it.")
