from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, assert_is_gradient, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend, ContractError
from bevia_fast.kernels.numba_jit._runtime.target import TARGETS, Target
from bevia_fast.kernels.numba_jit._simd.attention_plan import BACKWARD_KEYS, BACKWARD_QUERIES, KEYS, QUERIES
from bevia_fast.kernels.numpy_ref.dropout import dropout_mask

OPERATIONS = ["attention_forward", "attention_backward", "attention_weights"]

Size = tuple[int, int, int, int]
sizes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 20))  # B, T, NH, HS


def forward(backend: Backend, qkv: np.ndarray, heads: int, **options: Any) -> np.ndarray:
    B, T, width = qkv.shape
    out, lse = np.empty((B, T, width // 3), qkv.dtype), np.empty((B, heads, T), qkv.dtype)
    backend.attention_forward(out, lse, qkv, **options)
    return out


def weights_of(backend: Backend, qkv: np.ndarray, heads: int) -> np.ndarray:
    B, T, _ = qkv.shape
    weights = np.empty((B, heads, T, T), qkv.dtype)
    backend.attention_weights(weights, qkv)
    return weights


def values_of(qkv: np.ndarray, heads: int) -> np.ndarray:
    B, T, _ = qkv.shape
    return qkv.reshape(B, T, 3, heads, -1)[:, :, 2].swapaxes(1, 2)  # (B,NH,T,HS)


@pytest.mark.parametrize("case", [case for name in OPERATIONS for case in cases(name)], ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@pytest.mark.parametrize("place", [0, 50, 383, 384, 399, 770])
def test_one_key_that_outweighs_all_blocks_of_others(place: int, dtype: str) -> None:
    """From its place on, its score is so far above the others that their weights are 0, and a factor between the
    largest scores of two blocks is 0 or would be infinite."""
    T, HS = 800, 4
    qkv = normal(1, 1, T, 3 * HS)
    qkv[0, :, 0] = 60  # of each query
    qkv[0, :, HS] = 0  # of each key
    qkv[0, place, HS] = 60
    out = forward(get_backend("numba"), qkv.astype(dtype), 1)
    assert_close("out", out, forward(get_backend("numpy"), qkv, 1), 100 * EPS[dtype])
    for row in out[0, place:]:
        np.testing.assert_array_equal(row, qkv[0, place, 2 * HS :].astype(dtype))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_blocks_suit_the_tiles_of_every_cpu(target: Target, dtype: str) -> None:
    """What the walk over blocks takes for granted, here and on CPUs that this test does not run on."""
    lanes = target.lanes(np.dtype(dtype).itemsize)
    assert QUERIES % lanes == BACKWARD_QUERIES % lanes == 0  # rows of which as many go together end in whole vectors
    for vectors, height in target.tile_rows.items():
        width = vectors * lanes
        assert KEYS % width == BACKWARD_KEYS % width == 0  # a block of keys is whole panels, and so as long as it says
        assert BACKWARD_QUERIES % height == 0  # no tile of keys lies in two blocks of queries, one seen and one not
    assert KEYS % QUERIES == BACKWARD_KEYS % BACKWARD_QUERIES == 0  # no block of keys begins within one of queries


@pytest.mark.parametrize(("rate", "window"), [(0.0, 0), (0.3, 0), (0.0, 3), (0.3, 1)])
@pytest.mark.parametrize(("B", "T", "heads", "head_size"), [(2, 5, 3, 2), (1, 17, 1, 3), (1, 1, 1, 1)])
def test_gradients_by_finite_differences(
    backend: Backend, rate: float, window: int, B: int, T: int, heads: int, head_size: int
) -> None:  # fmt: skip
    C = heads * head_size
    qkv, dout = normal(1, B, T, 3 * C), normal(2, B, T, C)
    out, lse, dqkv = np.empty((B, T, C)), np.empty((B, heads, T)), np.empty((B, T, 3 * C))
    options: dict[str, Any] = {"window": window, "dropout_rate": rate, "dropout_key": 12345}

    def loss() -> float:
        backend.attention_forward(out, lse, qkv, **options)
        return float((out * dout).sum())

    loss()
    saved = out.copy(), lse.copy()
    backend.attention_backward(dqkv, dout, qkv, *saved, **options)
    assert_is_gradient("qkv", dqkv, loss, qkv)


@each_backend
@given(size=sizes, data=st.data(), seed=st.integers(0, 999))
def test_a_position_does_not_see_later_ones(name: str, size: Size, data: st.DataObject, seed: int) -> None:
    """Whatever comes after position t, outputs up to t stay what they are."""
    B, T, heads, head_size = size
    t = data.draw(st.integers(0, T - 1))
    qkv = normal(seed, B, T, 3 * heads * head_size, dtype="float32")
    changed = qkv.copy()
    changed[:, t + 1 :] = 100 * normal(seed + 1, *changed[:, t + 1 :].shape)
    before, after = (forward(get_backend(name), x, heads)[:, : t + 1] for x in (qkv, changed))
    assert_close(f"{name} out", after, before, 8 * EPS["float32"])


@each_backend
@given(size=sizes, window=st.integers(1, 45), seed=st.integers(0, 999))
def test_a_window_hides_what_is_before_it(name: str, size: Size, window: int, seed: int) -> None:
    """Whatever stands before the window of position t, the output at t stays what it is; the last in it matters."""
    B, T, heads, head_size = size
    backend, t = get_backend(name), seed % T
    qkv = normal(seed, B, T, 3 * heads * head_size)
    changed, first = qkv.copy(), max(0, t + 1 - window)
    changed[:, :first] = 100 * normal(seed + 1, *changed[:, :first].shape)
    before, after = (forward(backend, x, heads, window=window)[:, t] for x in (qkv, changed))
    assert_close(f"{name} out", after, before, 1e-14)
    changed[:, first] += 1
    assert (forward(backend, changed, heads, window=window)[:, t] != before).any()


@pytest.mark.parametrize("T", [1, 40, 400, 800])
def test_a_window_as_long_as_the_context_gives_the_bits_of_none(backend: Backend, dtype: str, T: int) -> None:
    qkv, dout = normal(1, 2, T, 3 * 8, dtype=dtype), normal(2, 2, T, 8, dtype=dtype)
    found = []
    for window in (0, T, T + 1):
        out, lse, dqkv = np.empty((2, T, 8), dtype), np.empty((2, 2, T), dtype), np.empty((2, T, 24), dtype)
        backend.attention_forward(out, lse, qkv, window=window)
        backend.attention_backward(dqkv, dout, qkv, out, lse, window=window)
        found.append(b"".join(array.tobytes() for array in (out, lse, dqkv)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("window", range(290, 400, 9))
def test_blocks_of_keys_begin_anywhere(window: int, dtype: str) -> None:
    """The first block begins with the window, so that a later one may reach into the diagonal of a block of queries."""
    qkv = normal(window, 1, 900, 3 * 4)
    out = forward(get_backend("numba"), qkv.astype(dtype), 1, window=window)
    assert_close("out", out, forward(get_backend("numpy"), qkv, 1, window=window), 100 * EPS[dtype])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_negative_window_is_refused(backend: Backend, operation: str) -> None:
    qkv, out, lse, weights = np.ones((1, 2, 3)), np.ones((1, 2, 1)), np.ones((1, 1, 2)), np.ones((1, 1, 2, 2))
    arguments = {"attention_forward": (out, lse, qkv), "attention_backward": (qkv.copy(), out, qkv, out, lse),
                 "attention_weights": (weights, qkv)}[operation]  # fmt: skip
    with pytest.raises(ContractError, match=f"^{operation}: window is -1; wanted window >= 0, where 0 is no window$"):
        getattr(backend, operation)(*arguments, window=-1)
    assert (weights == 1).all()
    assert (out == 1).all()


@each_backend
@given(size=sizes, seed=st.integers(0, 999))
def test_sequences_of_a_batch_do_not_see_each_other(name: str, size: Size, seed: int) -> None:
    B, T, heads, head_size = size
    qkv = normal(seed, B, T, 3 * heads * head_size)
    order = np.random.default_rng(seed).permutation(B)
    out, permuted = (forward(get_backend(name), np.ascontiguousarray(x), heads) for x in (qkv, qkv[order]))
    assert_close(f"{name} out", permuted, out[order], 1e-14)


@each_backend
@given(size=sizes, seed=st.integers(0, 999))
def test_what_all_keys_share_does_not_matter(name: str, size: Size, seed: int) -> None:
    """Softmax does not change under a shift: q . (k + c) = q . k + q . c adds the same to all scores of a query."""
    B, T, heads, head_size = size
    C = heads * head_size
    qkv = normal(seed, B, T, 3 * C)
    shifted = qkv.copy()
    shifted[:, :, C : 2 * C] += normal(seed + 1, C)
    out, other = (forward(get_backend(name), x, heads) for x in (qkv, shifted))
    assert_close(f"{name} out", other, out, 1e-14)


@each_backend
@given(size=sizes, seed=st.integers(0, 999))
def test_weights_are_causal_shares_and_give_the_output(name: str, size: Size, seed: int) -> None:
    B, T, heads, head_size = size
    qkv = normal(seed, B, T, 3 * heads * head_size)
    backend = get_backend(name)
    weights = weights_of(backend, qkv, heads)
    assert not np.triu(weights, 1).any(), name
    assert_close(f"{name} row sums", weights.sum(axis=-1), np.ones((B, heads, T)), 1e-13)
    expected = (weights @ values_of(qkv, heads)).swapaxes(1, 2).reshape(B, T, -1)
    assert_close(f"{name} out", forward(backend, qkv, heads), expected, 1e-13)


def test_dropout_drops_the_masked_weights(backend: Backend, dtype: str) -> None:
    B, T, heads, head_size, rate, key = 2, 19, 3, 5, 0.4, 2**63 + 11
    qkv = normal(1, B, T, 3 * heads * head_size, dtype=dtype)
    mask = dropout_mask(key, B * heads * T, T, rate).reshape(B, heads, T, T)
    weights = weights_of(get_backend("numpy"), qkv.astype(np.float64), heads) * mask / (1 - rate)
    expected = (weights @ values_of(qkv, heads)).swapaxes(1, 2).reshape(B, T, -1)
    out = forward(backend, qkv, heads, dropout_rate=rate, dropout_key=key)
    assert_close("out", out, expected, 100 * EPS[dtype])


def test_rate_0_ignores_the_key(backend: Backend) -> None:
    qkv = normal(1, 1, 9, 3 * 8)
    np.testing.assert_array_equal(
        forward(backend, qkv, 2), forward(backend, qkv, 2, dropout_rate=0.0, dropout_key=99)
    )


def test_large_scores_stay_finite(backend: Backend, dtype: str) -> None:
    """Scores of thousands: exp alone would overflow."""
    qkv = 60 * normal(1, 1, 33, 3 * 32, dtype=dtype)
    out = forward(backend, qkv, 2)
    assert np.isfinite(out).all()
    expected = forward(get_backend("numpy"), qkv.astype(np.float64), 2)
    # scores of 2e4 are rounded by 2e4 * eps, which is the relative error of a weight
    assert_close("out", out, expected, 1e5 * EPS[dtype])
