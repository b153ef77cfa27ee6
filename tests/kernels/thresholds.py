"""The numbers by which the Numba kernels choose how to compute, and how a case lies to each of them.

A branch that depends on a size is wrong unnoticed if no test has such a size. So THRESHOLDS names every constant of
`kernels/numba_jit` that decides something, with a function from a case to the side on which it lies and all sides that
some case must lie on. OTHERS names the remaining constants and says why they are no thresholds. `test_thresholds`
checks that nothing is missing from either, and that `bevia-fast check` has cases on all sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels.numba_jit import activation, decode, embedding, layernorm
from bevia_fast.kernels.numba_jit._runtime.target import TARGET
from bevia_fast.kernels.numba_jit._simd import attention_plan, norm_rows, product_plan, rows
from bevia_fast.kernels.numba_jit._simd.attention_plan import plan_backward, plan_forward
from bevia_fast.kernels.numba_jit._simd.product_plan import plan_product, plan_weight_gradient, tile_shape
from bevia_fast.kernels.numba_jit.adamw import BLOCK
from bevia_fast.kernels.numba_jit.cross_entropy import ROWS, SHORT

THREADS = 2  # some branches depend on it; with one thread, as on a machine with one core, they are not taken

Dims = Mapping[str, int]
Side = Any


class Threshold(NamedTuple):
    """`side` maps the sizes of a case and its dtype to the side on which it lies, one of `sides`, or to None."""

    operations: tuple[str, ...]
    side: Callable[[Dims, np.dtype[Any]], Side]
    sides: tuple[Side, ...] = (False, True)


def _forward(d: Dims, dtype: np.dtype[Any]) -> Any:
    return plan_forward(d["B"], d["T"], d["C"], d["NH"], dtype, THREADS, 0)


def _backward(d: Dims, dtype: np.dtype[Any]) -> Any:
    return plan_backward(d["B"], d["T"], d["C"], d["NH"], dtype, THREADS, 0)


def _product(d: Dims, dtype: np.dtype[Any]) -> Any:
    return plan_product(d["N"], d["C"], d["OC"], dtype, THREADS, 0)


def _gradient(d: Dims, dtype: np.dtype[Any]) -> Any:
    return plan_weight_gradient(d["N"], d["C"], d["OC"], dtype, THREADS, 0)


def _pieces(d: Dims, dtype: np.dtype[Any]) -> Any:
    """Which entry of DEPTHS applies to a sum that is longer than it."""
    plan, (narrow, middle) = _gradient(d, dtype), product_plan.DEPTHS
    if -(-d["N"] // plan.slices) <= plan.depth:
        return None
    return "narrow" if d["OC"] <= narrow[0] else "middle" if d["OC"] <= middle[0] else "wide"


def _team(d: Dims) -> int:
    weights = d["L"] * d["C"] * (4 * d["NH"] * d["HS"] + 2 * d["G"] * d["M"]) + d["V"] * d["C"]
    return min(THREADS, d["D"] * weights // decode.WORTH) or 1


def _blocks_of_keys(d: Dims, dtype: np.dtype[Any]) -> str:
    """How the backward pass takes the blocks of keys of a head: one, several in turn, dealt out, or both."""
    plan = _backward(d, dtype)
    in_turn, dealt = -(-d["T"] // plan.keys) > plan.parts, plan.parts > 1
    return "both" if in_turn and dealt else "in turn" if in_turn else "dealt out" if dealt else "one"


def _last_panel(columns: int, dtype: np.dtype[Any]) -> int:
    """The width of the last panel, in vectors."""
    width = tile_shape(columns, dtype)[0]
    return (columns - 1) % width // TARGET.lanes(dtype.itemsize) + 1


ELEMENTS = (
    "relu_forward", "relu_backward", "gelu_forward", "gelu_backward", "gelu_erf_forward", "gelu_erf_backward",
)
NORMS = ("layernorm_forward", "layernorm_backward")
EMBEDDINGS = ("embedding_forward", "embedding_backward")
ATTENTION = ("attention_forward", "attention_backward")

THRESHOLDS: dict[str, Threshold] = {
    "activation.BLOCK": Threshold(ELEMENTS, lambda d, t: d["N"] * d["C"] > activation.BLOCK),
    "adamw.BLOCK": Threshold(("adamw", "squared_norm"), lambda d, t: d["P"] > BLOCK),
    "cross_entropy.ROWS": Threshold(("cross_entropy",), lambda d, t: d["N"] > ROWS),
    "cross_entropy.STEP": Threshold(
        ("cross_entropy",), lambda d, t: d["N"] >= ROWS and d["V"] <= SHORT
    ),
    "cross_entropy.SHORT": Threshold(("cross_entropy",), lambda d, t: d["V"] > SHORT),
    "decode.WORTH": Threshold(("decode_tokens",), lambda d, t: _team(d), (1, 2)),
    "decode.HEAD_ROWS": Threshold(("decode_tokens",), lambda d, t: d["V"] > decode.HEAD_ROWS),
    "embedding.CACHED": Threshold(EMBEDDINGS, lambda d, t: d["V"] * d["C"] * t.itemsize > embedding.CACHED),
    "embedding.AHEAD": Threshold(
        EMBEDDINGS,
        lambda d, t: d["B"] * d["T"] > embedding.AHEAD if d["V"] * d["C"] * t.itemsize > embedding.CACHED else None,
        (True,),
    ),
    "layernorm.GROUP": Threshold(NORMS, lambda d, t: d["N"] > layernorm.GROUP),
    "layernorm.SHORT": Threshold(
        NORMS, lambda d, t: (d["C"] > layernorm.SHORT) if d["N"] >= 4 else None  # rows are taken four at a time
    ),
    "layernorm.FEW": Threshold(NORMS, lambda d, t: -(-d["N"] // layernorm.GROUP) * d["C"] >= layernorm.FEW),
    "_simd.norm_rows.CHAINS": Threshold(
        NORMS, lambda d, t: d["C"] > norm_rows.CHAINS * TARGET.lanes(t.itemsize)
    ),
    "_simd.attention_plan.QUERIES": Threshold(ATTENTION, lambda d, t: d["T"] > attention_plan.QUERIES),
    "_simd.attention_plan.KEYS": Threshold(
        ("attention_forward",), lambda d, t: min(3, -(-d["T"] // _forward(d, t).keys)), (1, 2, 3)
    ),
    "_simd.attention_plan.BACKWARD_QUERIES": Threshold(
        ("attention_backward",), lambda d, t: d["T"] > attention_plan.BACKWARD_QUERIES
    ),
    "_simd.attention_plan.BACKWARD_KEYS": Threshold(
        ("attention_backward",), _blocks_of_keys, ("one", "in turn", "dealt out", "both")
    ),
    "_simd.attention_plan.EVEN": Threshold(("attention_forward",), lambda d, t: _forward(d, t).by_head),
    "_simd.attention_plan.PARTS": Threshold(("attention_backward",), lambda d, t: _backward(d, t).parts > 1),
    "_simd.product_plan.SWEEP": Threshold(("linear_backward",), lambda d, t: d["C"] > product_plan.SWEEP),
    "_simd.product_plan.BLOCK_ROWS": Threshold(("linear_forward",), lambda d, t: d["N"] > product_plan.BLOCK_ROWS),
    "_simd.product_plan.BLOCK_SIZE": Threshold(
        ("linear_forward",),
        lambda d, t: d["OC"] * product_plan.BLOCK_ROWS > product_plan.BLOCK_SIZE
        if d["N"] > product_plan.BLOCK_ROWS and _product(d, t).packing != product_plan.STREAMED else None,
    ),
    "_simd.product_plan.DEPTHS": Threshold(("linear_backward",), _pieces, ("narrow", "middle", "wide")),
    "_simd.product_plan.WIDE_DEPTH": Threshold(("linear_backward",), _pieces, ("middle", "wide")),
    "_simd.product_plan.SLICES": Threshold(("linear_backward",), lambda d, t: _gradient(d, t).slices, (1, 2)),
    "_simd.product_plan.SLICED_ROWS": Threshold(
        ("linear_backward",),
        lambda d, t: d["N"] >= product_plan.SLICED_ROWS if d["C"] * d["OC"] <= product_plan.SLICED_SIZE else None,
    ),
    "_simd.product_plan.SLICED_SIZE": Threshold(
        ("linear_backward",),
        lambda d, t: d["C"] * d["OC"] > product_plan.SLICED_SIZE if d["N"] >= product_plan.SLICED_ROWS else None,
    ),
    "_simd.product_plan.FOLDED_ALONE": Threshold(
        ("linear_backward",),
        lambda d, t: d["C"] * d["OC"] > product_plan.FOLDED_ALONE if _gradient(d, t).slices > 1 else None,
    ),
    "_simd.product_plan.ALONE_SIZE": Threshold(
        ("linear_forward",), lambda d, t: _product(d, t).packing,
        (product_plan.TOGETHER, product_plan.ALONE, product_plan.STREAMED),
    ),
    "_simd.product_plan.STREAMED_ROWS": Threshold(
        ("linear_forward", "linear_backward"),
        lambda d, t: d["N"] > product_plan.STREAMED_ROWS
        if d["C"] * d["OC"] >= product_plan.STREAMED_SIZE else None,
    ),
    "_simd.product_plan.STREAMED_SIZE": Threshold(
        ("linear_forward", "linear_backward"),
        lambda d, t: d["C"] * d["OC"] >= product_plan.STREAMED_SIZE if d["N"] <= product_plan.STREAMED_ROWS else None,
    ),
    "_simd.product_plan.STREAMED_DEPTH": Threshold(
        ("linear_forward",), lambda d, t: d["C"] > product_plan.STREAMED_DEPTH if _streamed(d, t) else None, (True,)
    ),
    "_simd.product_plan.STREAMED_COLUMNS": Threshold(
        ("linear_forward",), lambda d, t: d["OC"] > product_plan.STREAMED_COLUMNS if _streamed(d, t) else None, (True,)
    ),
    "_simd.rows.PART": Threshold(
        ("decode_tokens",),
        # the rows of B that are used at a time: all of them, some, or the fewest
        lambda d, t: None if 3 * d["HS"] <= rows.ROW_VECTORS * TARGET.lanes(t.itemsize)
        else "fewest" if 8 * 3 * d["HS"] > rows.PART else "some" if 3 * d["HS"] * d["C"] > rows.PART else "all",
        ("some", "fewest"),
    ),
    "_simd.rows.ROW_VECTORS": Threshold(
        ("decode_tokens",), lambda d, t: 3 * d["HS"] > rows.ROW_VECTORS * TARGET.lanes(t.itemsize)
    ),
    "_simd.rows.BOTH_VECTORS": Threshold(
        ("decode_tokens",), lambda d, t: 3 * d["HS"] > rows.BOTH_VECTORS * TARGET.lanes(t.itemsize)
    ),
    "_simd.tiles.VECTORS": Threshold(
        ("linear_forward",),  # the width of the last panel
        lambda d, t: _last_panel(d["OC"], t),
        tuple({_last_panel(columns, np.dtype("float32")) for columns in range(1, 1000)}),  # AVX2 has no panels of 4
    ),
    "_simd.tiles.HEIGHTS": Threshold(
        ("linear_forward",), lambda d, t: (d["N"] > _product(d, t).MR, d["N"] % _product(d, t).MR > 0),
        ((False, True), (True, False), (True, True)),
    ),
}


def _streamed(d: Dims, dtype: np.dtype[Any]) -> bool:
    return bool(_product(d, dtype).packing == product_plan.STREAMED)


OTHERS: dict[str, str] = {
    "_decoding.PLACES": "a token has one or two places; test_decode has both",
    "_runtime.team.LINE": "a layout",
    "_runtime.team.TEAM_SIZE": "a layout",
    "_runtime.team.MEMBERS": "an index",
    "_runtime.team.MESSAGE": "an index",
    "_runtime.team.DELAYED": "an index",
    "_runtime.team.ARRIVED": "an index",
    "_runtime.team.JOINED": "an index",
    "_runtime.team.CLOSED": "a flag",
    "_runtime.team.SPINS": "a time; test_decode has members that are late",
    "_runtime.team.PATIENCE": "a time; test_decode has items that run one after the other",
    "_runtime.team.DELAY": "a time; test_decode has members that are late",
    "_simd.exponential.SMALLER_OF_SIZES": "a code of an instruction",
    "_simd.muon_plan.LEAST_PACKED": "the cases of muon have matrices that are narrower and wider",
    "_simd.packing.AHEAD": "rows to prefetch: changes no result",
    "_simd.probe.TRIAD_BYTES": "a measurement",
    "_simd.probe.CHAINS": "a measurement",
    "_simd.product_plan.TOGETHER": "a name",
    "_simd.product_plan.ALONE": "a name",
    "_simd.product_plan.STREAMED": "a name",
    "_simd.word_rows.BEYOND": "more than is read; test_guards has all shapes",
    "_simd.words.LANES": "of a vector",
    "_simd.words.PAIR": "numbers in a word; test_bfloat16 has odd and even sums",
    "decode.ALONE": "calls; see test_decode",
    "decode.DISMISSED": "a message",
    "decode.STOPPED": "a message",
    "dropout.GOLDEN": "a multiplier",
    "dropout.MIX_1": "a multiplier",
    "dropout.MIX_2": "a multiplier",
    "linear.NONE": "a name",
    "linear.RELU": "a name",
    "linear.GELU": "a name",
    "linear.GELU_ERF": "a name",
    "linear.COPY": "a name",
}


def sides(threshold: Threshold, cases: list[Case], dtype: str) -> set[Side]:
    """Return the sides on which some of the cases lie."""
    found = {threshold.side(case.dims, np.dtype(dtype)) for case in cases}
    return found - {None}
