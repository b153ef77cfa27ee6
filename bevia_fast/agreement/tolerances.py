"""How far two ways of computing the same kernel may lie apart, and why that far.

The measure of an array's error is

    error = max |a - b| / scale

where `scale` is the largest |b| in the whole array, or the largest term of the sums that made it where that is larger.
Not element by element: a sum that cancels to nearly nothing keeps the rounding of its terms, and relative to itself it
may be wrong altogether without anything being wrong.

The tolerance is

    tolerance = eps * factor * sqrt(length)

with eps the spacing of the dtype at 1 (1.2e-7 for float32, 2.2e-16 for float64), and `length` that of the longest sum.
A sum of K terms of size 1 and either sign has partial sums of size sqrt(k); each addition rounds off up to eps/2 of
one, at random, so the error is about eps/2 * sqrt(1 + 2 + ... + K) = eps * K / 2.8. The largest of many such sums is
about 4 sqrt(K), so the relative error is near eps * sqrt(K) / 11. Factors begin at 4: forty times what is expected from
a plain loop, more from blocked sums, and in float32 still less than what one lost or doubled term out of K makes,
1/(4 sqrt(K)), for any K below half a million. A factor is larger only for a reason that stands beside it. 0 means the
same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

TINY = float(np.finfo(np.float32).tiny)  # the smallest scale there is: an array of zeros is compared with this

Array = NDArray[Any]
Arguments = Mapping[str, Any]


def largest(array: Array | None) -> float:
    """The largest |element|, NaNs and infinities left out; 0 for None."""
    if array is None:
        return 0.0
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _no_term(arguments: Arguments) -> float:
    return 0.0


@dataclass(frozen=True)
class Bound:
    """The error that one output of an operation may have."""

    factor: float
    length: Callable[[Mapping[str, int]], float] = lambda dims: 1  # of the letters in the contract's shapes
    term: Callable[[Arguments], float] = _no_term  # the largest term of the sums, from the call's arguments
    float64_always: bool = False  # computed in float64 whatever the dtype of the arrays


def _largest_product(first: str, second: str) -> Callable[[Arguments], float]:
    return lambda arguments: largest(arguments[first]) * largest(arguments[second])


def _largest_of(name: str) -> Callable[[Arguments], float]:
    return lambda arguments: largest(arguments[name])


def _largest_normalised(arguments: Arguments) -> float:
    """inp - mean loses up to eps * |inp|, and rstd * weight enlarges the loss."""
    return largest(arguments["inp"]) * largest(arguments["rstd"]) * largest(arguments["weight"])


# (operation, output): its bound. An operation's outputs are the names that stand here; "return" is what it returns.
BOUNDS: dict[tuple[str, str], Bound] = {
    # one addition of two numbers has one correctly rounded result
    ("embedding_forward", "out"): Bound(0),
    # the longest sum is that of a token that stands everywhere
    ("embedding_backward", "dtoken_table"): Bound(4, lambda d: d["B"] * d["T"], _largest_of("dout")),
    ("embedding_backward", "dposition_table"): Bound(4, lambda d: d["B"], _largest_of("dout")),
    ("layernorm_forward", "out"): Bound(4, lambda d: d["C"], _largest_normalised),
    ("layernorm_forward", "mean"): Bound(4, lambda d: d["C"], _largest_of("inp")),
    ("layernorm_forward", "rstd"): Bound(4, lambda d: d["C"]),
    # dnorm - mean(dnorm) - norm * mean(dnorm * norm) cancels altogether for C = 1 and C = 2
    ("layernorm_backward", "dinp"): Bound(
        4, lambda d: d["C"], lambda a: largest(a["dout"]) * largest(a["weight"]) * largest(a["rstd"])
    ),
    ("layernorm_backward", "dweight"): Bound(
        4, lambda d: d["N"], lambda a: largest(a["dout"]) * largest(a["inp"]) * largest(a["rstd"])
    ),
    ("layernorm_backward", "dbias"): Bound(4, lambda d: d["N"], _largest_of("dout")),
    ("linear_forward", "out"): Bound(4, lambda d: d["C"], _largest_product("inp", "weight")),
    ("linear_forward", "preactivation"): Bound(4, lambda d: d["C"], _largest_product("inp", "weight")),
    ("linear_backward", "dinp"): Bound(4, lambda d: d["OC"], _largest_product("dout", "weight")),
    ("linear_backward", "dweight"): Bound(4, lambda d: d["N"], _largest_product("dout", "inp")),
    ("linear_backward", "dbias"): Bound(4, lambda d: d["N"], _largest_of("dout")),
    # a choice between numbers, no arithmetic
    ("relu_forward", "out"): Bound(0),
    ("relu_backward", "dinp"): Bound(0),
    # ten roundings in a row and a tanh good to a few eps; 1 + tanh(u) cancels for negative x, where x is the term
    ("gelu_forward", "out"): Bound(8, term=_largest_of("inp")),
    # 1 - tanh^2 has an error of 2.5 eps where tanh is good to the last two bits, and x/2 * du/dx enlarges it until tanh
    # is 1 exactly: in float32 up to 9 times, in float64 up to 17
    ("gelu_backward", "dinp"): Bound(48, term=_largest_of("dout")),
    # a sum of HS products becomes an exponent: its absolute error is the relative error of a weight. Then T weights are
    # summed. Scores of a few units make the first error a few times larger.
    ("attention_forward", "out"): Bound(8, lambda d: d["HS"] + d["T"]),
    ("attention_forward", "lse"): Bound(8, lambda d: d["HS"], _largest_product("qkv", "qkv")),
    # the same, and dscores subtracts two sums of HS products of dout and v
    ("attention_backward", "dqkv"): Bound(16, lambda d: d["HS"] + d["T"]),
    # a token that was drawn is this one or another; the arrays are those of a whole model, layer upon layer
    ("decode_tokens", "drawn"): Bound(0),
    ("decode_tokens", "logits"): Bound(64, lambda d: d["C"] + d["S"]),
    ("decode_tokens", "keys"): Bound(64, lambda d: d["C"] + d["S"]),
    ("decode_tokens", "values"): Bound(64, lambda d: d["C"] + d["S"]),
    ("decode_tokens", "return"): Bound(0),
    ("sample_token", "return"): Bound(0),
    ("attention_weights", "weights"): Bound(8, lambda d: d["HS"] + d["T"], lambda a: 1.0),  # a row sums to 1
    # the scale of 1/(1 - rate) and the residual's addition, with or without a rounding between them
    ("dropout_forward", "out"): Bound(4),
    ("dropout_backward", "dinp"): Bound(4),
    # log sum exp(logits) - logits[target] cancels where the target has nearly all the probability
    ("cross_entropy", "losses"): Bound(4, lambda d: d["V"], _largest_of("logits")),
    ("cross_entropy", "dlogits"): Bound(4, lambda d: d["V"], lambda a: abs(a.get("scale", 1.0))),
    ("squared_norm", "return"): Bound(4, lambda d: d["P"], float64_always=True),
    # w is rounded up to three times, decay and step being one operation or two; the step has ten roundings of its own
    ("adamw", "parameters"): Bound(8, term=lambda a: a["learning_rate"]),
    ("adamw", "gradients"): Bound(0),
    ("adamw", "first_moment"): Bound(4),
    ("adamw", "second_moment"): Bound(4),
}


def outputs(operation: str) -> list[str]:
    """The names of what `operation` writes or returns, in the contract's order."""
    return [output for name, output in BOUNDS if name == operation]


def tolerance(operation: str, output: str, dtype: DTypeLike, dims: Mapping[str, int]) -> float:
    """The largest allowed error, as measured above, of one output for arrays of `dtype` and these sizes."""
    bound = BOUNDS[operation, output]
    eps = float(np.finfo(np.float64 if bound.float64_always else np.dtype(dtype)).eps)
    return eps * bound.factor * math.sqrt(bound.length(dims))


def scale(operation: str, output: str, reference: Array, arguments: Arguments) -> float:
    """What the error of an output is relative to. `arguments`: those of the reference's call, after it."""
    return max(largest(reference), BOUNDS[operation, output].term(arguments), TINY)
