"""How far two implementations of a kernel may differ, and why.

The error of an array is

    error = max |a - b| / scale

where `scale` is the largest |b| in the whole array, or the largest term of the sums that produced it if that is larger.
The scale is not taken element by element: a sum that cancels almost completely keeps the rounding errors of its terms,
so relative to itself it can be entirely wrong although nothing is at fault.

The tolerance is

    tolerance = eps * factor * sqrt(length)

where eps is the spacing of the dtype at 1 (1.2e-7 for float32, 2.2e-16 for float64) and `length` the number of terms in
the longest sum. A sum of K terms of size 1 and random sign has partial sums of size sqrt(k). Each addition rounds its
partial sum at random by up to eps/2 of it, so the error is about eps/2 * sqrt(1 + 2 + ... + K) = eps * K / 2.8. The
largest of many such sums is about 4 sqrt(K), so the relative error is near eps * sqrt(K) / 11. Factors start at 4,
which is forty times the error expected from a plain loop, and more than that for blocked sums. In float32 it is still
less than the error from one lost or doubled term out of K, 1/(4 sqrt(K)), for any K below half a million. A larger
factor has its reason beside it. A factor of 0 demands the same bits.

In "bf16", where the operands of products are rounded to bfloat16, the arrays of a call round alike and the tolerance is
that of float32: products of bfloat16 are exact in it. Operands that the operation has computed itself, such as the
weights of attention, differ by a few eps of float32 before they are rounded. If the border between two bfloat16 numbers
lies in between, which one in about ten thousand meets, they differ by 2^-8 of themselves after it. `roundings` of them
are allowed for, each as large as the largest element: the sum of a few that meet is less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

TINY = float(np.finfo(np.float32).tiny)  # the smallest scale, so that errors in an array of zeros have one

BF16_EPS = 2.0**-8  # the largest step between neighboring bfloat16 numbers, relative to them

Array = NDArray[Any]
Arguments = Mapping[str, Any]


def largest(array: Array | None) -> float:
    """Return the largest |element|, ignoring NaNs and infinities; 0 for None."""
    if array is None:
        return 0.0
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _no_term(arguments: Arguments) -> float:
    return 0.0


@dataclass(frozen=True)
class Bound:
    """The error allowed in one output of an operation."""

    factor: float
    length: Callable[[Mapping[str, int]], float] = lambda dims: 1  # of the longest sum, from the contract's sizes
    term: Callable[[Arguments], float] = _no_term  # the largest term of the sums, from the call's arguments
    float64_always: bool = False  # computed in float64, whatever the dtype of the arrays
    roundings: float = 0.0  # with operands in bfloat16: how many of those that were computed may fall to the other side


def _largest_product(first: str, second: str) -> Callable[[Arguments], float]:
    return lambda arguments: largest(arguments[first]) * largest(arguments[second])


def _largest_of(name: str) -> Callable[[Arguments], float]:
    return lambda arguments: largest(arguments[name])


def _largest_normalized(arguments: Arguments) -> float:
    """inp - mean is rounded by up to eps * |inp|, and rstd * weight scales that error up."""
    return largest(arguments["inp"]) * largest(arguments["rstd"]) * largest(arguments["weight"])


# (operation, output): its bound. The outputs of an operation are the names listed here; "return" is what it returns.
BOUNDS: dict[tuple[str, str], Bound] = {
    # a single addition has one correctly rounded result
    ("embedding_forward", "out"): Bound(0),
    # the longest sum belongs to a token that fills the whole batch
    ("embedding_backward", "dtoken_table"): Bound(4, lambda d: d["B"] * d["T"], _largest_of("dout")),
    ("embedding_backward", "dposition_table"): Bound(4, lambda d: d["B"], _largest_of("dout")),
    ("layernorm_forward", "out"): Bound(4, lambda d: d["C"], _largest_normalized),
    ("layernorm_forward", "mean"): Bound(4, lambda d: d["C"], _largest_of("inp")),
    ("layernorm_forward", "rstd"): Bound(4, lambda d: d["C"]),
    # dnorm - mean(dnorm) - norm * mean(dnorm * norm) cancels completely for C = 1 and C = 2
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
    # selects between numbers, without arithmetic
    ("relu_forward", "out"): Bound(0),
    ("relu_backward", "dinp"): Bound(0),
    # ten roundings in a row, and a tanh accurate to a few eps; 1 + tanh(u) cancels for negative x, where x is the term
    ("gelu_forward", "out"): Bound(8, term=_largest_of("inp")),
    # 1 - tanh^2 has an error of 2.5 eps if tanh is accurate to its last two bits, and x/2 * du/dx amplifies it until
    # tanh is exactly 1: up to 9 times in float32, up to 17 times in float64
    ("gelu_backward", "dinp"): Bound(48, term=_largest_of("dout")),
    # exp(-x^2/2) has an error of x^2/4 eps, until the rest of 1 is less than that: up to 9 eps; 1/2 - erf/2 cancels for
    # negative x
    ("gelu_erf_forward", "out"): Bound(16, term=_largest_of("inp")),
    ("gelu_erf_backward", "dinp"): Bound(16, term=_largest_of("dout")),
    # two products and their sum, which may cancel
    ("rotary_forward", "qkv"): Bound(4),
    ("rotary_backward", "dqkv"): Bound(4),
    # A sum of HS products is an exponent, so its absolute error is the relative error of an attention weight. Then T
    # weights are summed. Scores of a few units make the first error a few times larger.
    ("attention_forward", "out"): Bound(8, lambda d: d["HS"] + d["T"], roundings=1),
    ("attention_forward", "lse"): Bound(8, lambda d: d["HS"], _largest_product("qkv", "qkv")),
    # the same; in addition, dscores subtracts two sums of HS products of dout and v
    ("attention_backward", "dqkv"): Bound(16, lambda d: d["HS"] + d["T"], roundings=1),
    # a drawn token is right or wrong; the arrays have passed through all layers of a model, and all roundings of them
    ("decode_tokens", "drawn"): Bound(0),
    ("decode_tokens", "logits"): Bound(64, lambda d: d["C"] + d["S"], roundings=4),
    ("decode_tokens", "keys"): Bound(64, lambda d: d["C"] + d["S"], roundings=4),
    ("decode_tokens", "values"): Bound(64, lambda d: d["C"] + d["S"], roundings=4),
    ("decode_tokens", "return"): Bound(0),
    ("sample_token", "return"): Bound(0),
    ("attention_weights", "weights"): Bound(8, lambda d: d["HS"] + d["T"], lambda a: 1.0),  # a row sums to 1
    # scaling by 1/(1 - rate) and adding the residual, with or without a rounding in between
    ("dropout_forward", "out"): Bound(4),
    ("dropout_backward", "dinp"): Bound(4),
    # log sum exp(logits) - logits[target] cancels if the target has nearly all the probability
    ("cross_entropy", "losses"): Bound(4, lambda d: d["V"], _largest_of("logits")),
    ("cross_entropy", "dlogits"): Bound(4, lambda d: d["V"], lambda a: abs(a.get("scale", 1.0))),
    ("squared_norm", "return"): Bound(4, lambda d: d["P"], float64_always=True),
    # w is rounded up to three times, as decay and step may be one operation or two; the step has ten roundings
    ("adamw", "parameters"): Bound(8, term=lambda a: a["learning_rate"]),
    ("adamw", "gradients"): Bound(0),
    ("adamw", "first_moment"): Bound(4),
    ("adamw", "second_moment"): Bound(4),
    # A polynomial raises small singular values by 3.4, and their rounding errors with them. Numba has them in a Gram
    # matrix, where they are squared, for up to three steps: by 1,700. Found for the first gradients of a model, whose
    # singular values are the smallest: 800 eps.
    ("muon", "parameters"): Bound(2048),
    ("muon", "gradients"): Bound(0),
    ("muon", "momentum"): Bound(4),
}


def outputs(operation: str) -> list[str]:
    """Return the names of what `operation` writes or returns, in the contract's order."""
    return [output for name, output in BOUNDS if name == operation]


def tolerance(operation: str, output: str, dtype: DTypeLike, dims: Mapping[str, int]) -> float:
    """Return the largest error, as defined above, that one output may have for arrays of `dtype` and these sizes."""
    bound = BOUNDS[operation, output]
    if dtype == "bf16":
        return tolerance(operation, output, "float32", dims) + BF16_EPS * bound.roundings
    eps = float(np.finfo(np.float64 if bound.float64_always else np.dtype(dtype)).eps)
    return eps * bound.factor * math.sqrt(bound.length(dims))


def scale(operation: str, output: str, reference: Array, arguments: Arguments) -> float:
    """Return what the error of an output is relative to. `arguments`: those of the reference's call, after the call."""
    return max(largest(reference), BOUNDS[operation, output].term(arguments), TINY)
