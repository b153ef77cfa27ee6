"""Operands in bfloat16: how they are rounded, and that both backends round the same ones."""

from __future__ import annotations

import inspect
from typing import Any

import numba
import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, normal
from test_contract import call, refusal

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, difference, make_arguments, run
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.bfloat16 import AtPrecision, at_precision, halves, has_precision, rounded, widened
from bevia_fast.kernels.contract import OPERATIONS, Backend

ROUNDED = [operation for operation in OPERATIONS if has_precision(operation)]
ONE = 2.0**-7  # the step between neighboring bfloat16 numbers at 1


def bits(*numbers: int) -> Any:
    return np.array(numbers, np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (1.0, 1.0), (1 + ONE / 2, 1.0), (1 + 1.5 * ONE, 1 + 2 * ONE), (1 + 0.51 * ONE, 1 + ONE),
        (1 + 0.49 * ONE, 1.0), (-(1 + 1.5 * ONE), -(1 + 2 * ONE)), (np.inf, np.inf), (-np.inf, -np.inf),
        (3.4e38, np.inf), (-3.4e38, -np.inf), (3.385e38, 3.3895314e38), (2.0**-126, 2.0**-126),
    ],
)  # fmt: skip
def test_to_the_nearest_and_ties_to_even(number: float, wanted: float) -> None:
    assert rounded(np.array([number], np.float32))[0] == np.float32(wanted)


def test_nan_and_the_sign_of_zero() -> None:
    nan = rounded(bits(0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF))  # the sum of the last overflows
    assert np.isnan(nan).all()
    assert np.signbit(rounded(np.array([-0.0, 0.0], np.float32))).tolist() == [True, False]


def test_every_rounding_is_to_a_neighbor() -> None:
    """Of random bits: none of the two bfloat16 numbers around a float32 is closer than the one chosen."""
    x = np.random.default_rng(0).integers(0, 0x7F7F0000, 20_000).astype(np.uint32).view(np.float32)
    below = bits(*(x.view(np.uint32) & 0xFFFF0000))
    above = bits(*((below.view(np.uint32) >> 16) + 1 << 16))
    found, exact = rounded(x).astype(np.float64), x.astype(np.float64)
    assert (np.abs(found - exact) <= np.minimum(exact - below, above - exact)).all()
    assert (rounded(x).view(np.uint32) & 0xFFFF == 0).all()


def test_halves_are_the_first_half_of_the_bits() -> None:
    x = normal(1, 5, 7, dtype="float32")
    assert halves(x).dtype == np.uint16
    np.testing.assert_array_equal(widened(halves(x)), rounded(x))
    assert rounded(x[:, ::2]).shape == (5, 4)  # not contiguous


def test_numba_rounds_as_numpy_does() -> None:
    """A product with 1 is the rounded operand, along rows and columns and in packed panels alike."""
    special = [np.nan, np.inf, -np.inf, -0.0, 3.4e38, -3.4e38, 2.0**-126, 1 + ONE / 2, 1 + 1.5 * ONE]
    x = np.array([*special, *normal(2, 90, dtype="float32")], np.float32)[:, None]
    one, numba_backend = np.ones((1, 1), np.float32), get_backend("numba")
    for inp, weight in ((x, one), (one, x.T.copy()), (one, x.copy().T)):
        out = np.empty((len(inp), weight.shape[1]), np.float32)
        numba_backend.linear_forward(out, inp, weight, precision="bf16")
        np.testing.assert_array_equal(out.reshape(-1), rounded(x[:, 0]) + np.float32(0.0))  # a sum has no -0


@pytest.mark.parametrize("case", [case for operation in ROUNDED for case in cases(operation)[::3]], ids=str)
def test_numba_agrees_with_numpy(case: Case) -> None:
    assert_backends_agree(case, "bf16")


@pytest.mark.parametrize("operation", ["linear_forward", "linear_backward", "attention_forward", "attention_backward"])
def test_operands_are_rounded(backend: Backend, operation: str) -> None:
    """The results are further from those of exact operands than rounding in float32 explains, but not far."""
    case = cases(operation)[-1]
    exact = run(backend, case, make_arguments(case, "float32"))
    other = run(backend, case, make_arguments(case, "float32") | {"precision": "bf16"})
    error = max(difference(name, other[name], exact[name], 0.0).error for name in exact)
    assert 1e-4 < error < 3e-2


def attend(backend: Backend, qkv: Any, heads: int, precision: str, **options: Any) -> tuple[Any, Any, Any]:
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    out, lse, dqkv = np.empty((B, T, C), "f4"), np.empty((B, heads, T), "f4"), np.empty_like(qkv)
    backend.attention_forward(out, lse, qkv, precision=precision, **options)  # type: ignore[arg-type]
    dout = normal(9, B, T, C, dtype="float32")
    backend.attention_backward(dqkv, dout, qkv, out, lse, precision=precision, **options)  # type: ignore[arg-type]
    return out, lse, dqkv


@pytest.mark.parametrize(("T", "HS", "window"), [(65, 17, 0), (500, 32, 0), (901, 24, 100), (800, 64, 500)])
def test_nearly_all_weights_round_alike(T: int, HS: int, window: int) -> None:
    """Attention computes operands itself, so that a few fall to the other side. If the center of a row's exponentials
    depended on the order of the keys, or the backends scaled before or after rounding, most would."""
    qkv = normal(T, 1, T, 3 * HS, dtype="float32")
    qkv[:, :, : 2 * HS] *= 1 + np.arange(T)[:, None] / T  # later keys have larger scores, so that centers move
    ours, theirs = (attend(get_backend(name), qkv, 1, "bf16", window=window) for name in ("numba", "numpy"))
    for a, b in zip(ours, theirs, strict=True):
        off = np.abs(a - b) > 200 * EPS["float32"] * np.abs(b).max()
        assert off.mean() < 0.01


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="there is one thread")
def test_any_number_of_threads_gives_the_same_bits() -> None:
    qkv, backend, before = normal(1, 3, 300, 3 * 48, dtype="float32"), get_backend("numba"), numba.get_num_threads()
    x, w, dy = (normal(i, *shape, dtype="float32") for i, shape in enumerate([(333, 70), (70, 130), (333, 130)]))
    found = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            y, dx, dw, db = np.empty_like(dy), np.empty_like(x), np.zeros_like(w), np.zeros(130, "f4")
            backend.linear_forward(y, x, w, precision="bf16")
            backend.linear_backward(dx, dw, db, dy, x, w, precision="bf16")
            found.append([*attend(backend, qkv, 2, "bf16", dropout_rate=0.1, dropout_key=7), y, dx, dw, db])
    finally:
        numba.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


def test_infinities_and_nan_show(backend: Backend) -> None:
    """What is beyond bfloat16's range becomes infinite, as in float32 what is beyond its own."""
    x, w = np.array([[3.4e38, 1.0, np.nan]], np.float32).T.copy(), np.ones((1, 1), np.float32)
    out = np.empty((3, 1), np.float32)
    backend.linear_forward(out, x, w, precision="bf16")
    assert out[:, 0].tolist()[:2] == [np.inf, 1.0]
    assert np.isnan(out[2, 0])


@pytest.mark.parametrize("operation", ROUNDED)
@pytest.mark.parametrize("bad", ["bfloat16", "float64", None])
def test_another_precision_is_refused(backend: Backend, operation: str, bad: object) -> None:
    message = refusal(backend, operation, call(operation) | {"precision": bad})
    assert message == f"{operation}: precision is {bad!r}; wanted 'float32' or 'bf16'"


@pytest.mark.parametrize("operation", ["linear_forward", "linear_backward", "attention_forward", "attention_backward"])
def test_float64_is_refused(backend: Backend, operation: str) -> None:
    message = refusal(backend, operation, call(operation, "float64") | {"precision": "bf16"})
    assert message.endswith("has dtype float64; wanted float32 with precision 'bf16'")


@pytest.mark.parametrize("name", ["qkv_weight", "mlp_proj_weight", "head", "keys", "values"])
def test_generation_takes_halves(backend: Backend, name: str) -> None:
    case = call("decode_tokens") | {"precision": "bf16"}
    for spec in OPERATIONS["decode_tokens"].arrays:
        if spec.halves and spec.name != name:
            case[spec.name] = halves(case[spec.name])
    assert refusal(backend, "decode_tokens", case) == f"decode_tokens: {name} has dtype float32; wanted uint16"


def test_a_backend_at_a_precision(backend: Backend) -> None:
    assert at_precision(backend, "float32") is backend
    rounding = at_precision(backend, "bf16")
    assert isinstance(rounding, AtPrecision)
    assert rounding.exact is backend
    x, w = normal(1, 6, 5, dtype="float32"), normal(2, 5, 4, dtype="float32")
    outs = [np.empty((6, 4), np.float32) for _ in range(3)]
    rounding.linear_forward(outs[0], x, w)
    backend.linear_forward(outs[1], x, w, precision="bf16")
    backend.linear_forward(outs[2], x, w)
    assert outs[0].tobytes() == outs[1].tobytes() != outs[2].tobytes()


def test_the_operations_with_products_have_a_precision() -> None:
    assert ROUNDED == [
        "linear_forward", "linear_backward", "attention_forward", "attention_backward", "attention_weights",
        "decode_tokens",
    ]  # fmt: skip
    for operation in ROUNDED:
        assert inspect.signature(getattr(get_backend("numpy"), operation)).parameters["precision"].default == "float32"
