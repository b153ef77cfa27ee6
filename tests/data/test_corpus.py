"""Splitting a text and drawing batches from it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bevia_fast.data import corpus as module
from bevia_fast.data import tokenfile
from bevia_fast.data.corpus import ROUNDS, Batches, Corpus, evaluation_batches, permuted, usual_evaluation
from bevia_fast.data.sources import TextSource
from bevia_fast.data.tokenfile import CodedText, coded_text
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import DataError, StoppedRun
from bevia_fast.kernels.rng import stream_key

# -------------------------------------------------------------------------------------------------------------- splits


def coded(text: str) -> CodedText:
    """Encode a text with its characters in an order that is not the alphabet's."""
    characters = "".join(sorted(set(text), reverse=True))
    return CodedText(np.array([characters.index(char) for char in text], np.uint8), characters, "")


def test_splits_are_by_position() -> None:
    corpus = Corpus(coded("0123456789" * 10))
    assert corpus.tokenizer.alphabet == "0123456789"
    assert (len(corpus.training), len(corpus.validation)) == (90, 10)
    assert corpus.training[:].dtype == np.int32
    assert corpus.training[:].tolist() == [*range(10)] * 9
    assert corpus.validation[np.array([[1, 5], [9, 0]])].tolist() == [[1, 5], [9, 0]]


def test_a_given_alphabet_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(coded("acac" * 10), Tokenizer("abc"))
    assert corpus.training[:4].tolist() == [0, 2, 0, 2]
    for scanned in (1, 3, 100):  # the message is that of `Tokenizer.encode`
        monkeypatch.setattr(module, "SCANNED", scanned)
        with pytest.raises(DataError) as caught:
            Corpus(coded("aébé≠c"), Tokenizer("abc"))
        assert str(caught.value).startswith(
            "The text contains 'é' (character 2) and '≠' (character 5), which the model does not know; "
        )


def test_a_mapped_text_releases_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens are the same, whenever that happens."""
    monkeypatch.setattr(tokenfile, "IN_MEMORY", 0)
    monkeypatch.setattr(tokenfile, "cache_folder", lambda: tmp_path / "texts")
    monkeypatch.setattr(module, "ROWS_KEPT", 3)
    text = "to be or not to be\n" * 2000
    (tmp_path / "text.txt").write_text(text)
    corpus = Corpus(coded_text(TextSource([str(tmp_path / "text.txt")])))
    plain = corpus.tokenizer.encode(text)[: len(corpus.training)]
    mapped, wanted = Batches(corpus.training, 8, 2, 1), Batches(plain, 8, 2, 1)
    for index in range(200):
        assert np.array_equal(mapped[index], wanted[index])


def test_an_undetected_invalid_code_stops_the_run() -> None:
    text = coded("abcd" * 10)
    codes = text.codes.copy()
    codes[7] = 200
    corpus = Corpus(replace(text, codes=codes))
    assert len(corpus.training[:7]) == 7
    message = r"^The cached tokens of the text are damaged; remove .* and resume the run\.$"
    with pytest.raises(StoppedRun, match=message):
        corpus.training[:8]


def test_a_split_shorter_than_a_window_is_refused() -> None:
    corpus = Corpus(coded("abcdefghij" * 10))
    corpus.check_length(9)
    message = r"its validation split has 10 of 100 characters, and ctx=10 needs at least 11\.$"
    with pytest.raises(DataError, match=message):
        corpus.check_length(10)
    with pytest.raises(DataError, match="its training split has 0 of 1 characters"):
        Corpus(coded("a")).check_length(1)


# -------------------------------------------------------------------------------------------------------------- batches


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1), st.sampled_from(sorted(ROUNDS)))
def test_permuted_is_a_bijection(size: int, key: int, order: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(size), size, key, order)), np.arange(size))


def test_permuted_looks_random() -> None:
    """It is as unordered, and has as few fixed points, as a random permutation."""
    size = 2000
    result = permuted(np.arange(size), size, 12345)
    assert abs(np.corrcoef(np.arange(size), result)[0, 1]) < 0.1
    assert (result == np.arange(size)).sum() < 10
    assert not np.array_equal(result, permuted(np.arange(size), size, 12346))


@functools.cache
def epoch_orders(size: int, draws: int) -> np.ndarray:
    """The orders of `size` windows under as many seeds: (draws, size)."""
    return np.stack([permuted(np.arange(size), size, stream_key(seed, "batches", 0)) for seed in range(draws)])


def likely(found: float, wanted: float, variance: float) -> bool:
    return abs(found - wanted) < 4 * math.sqrt(variance)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_few_windows_are_equally_likely(size: int) -> None:
    """The chi-square of all orders; with four rounds it is 17 standard deviations too large from 4 windows on."""
    draws, orders = 4000, math.factorial(size)
    counts = Counter(map(tuple, epoch_orders(size, draws).tolist()))
    wanted, free = draws / orders, orders - 1
    chi_square = sum((n - wanted) ** 2 for n in counts.values()) / wanted + (orders - len(counts)) * wanted
    assert likely(chi_square, free, 2 * free)


def test_even_and_odd_orders_are_equally_likely() -> None:
    """The network has even permutations only, if it has 4 bits. This is 8 % more even orders of 5 windows."""
    size, draws = 5, 4000
    upper = np.triu(np.ones((size, size), bool), 1)
    odd = sum(int((order[:, None] > order)[upper].sum()) % 2 for order in epoch_orders(size, draws))
    assert likely(odd, draws / 2, draws / 4)


@pytest.mark.parametrize(("size", "epochs"), [(100, 700), (1000, 500), (15_683, 100)])
def test_what_stands_together_in_the_text_is_not_drawn_together(size: int, epochs: int) -> None:
    """A window is followed by its successor in the text, or its predecessor, once per epoch on average; with four
    rounds, 1.3 times. So many windows stay in their place. These numbers are about Poisson distributed."""
    orders = epoch_orders(size, epochs)
    steps = np.diff(orders, axis=1)
    for found, wanted in (
        (steps == 1, 1 - 1 / size), (steps == -1, 1 - 1 / size), (orders == np.arange(size), 1),
        (np.abs(steps) <= 8, sum(2 * (size - d) for d in range(1, 9)) / size),
    ):  # fmt: skip
        assert likely(found.sum(), wanted * epochs, wanted * epochs)


def test_any_window_is_as_likely_at_any_place() -> None:
    size, draws = 17, 2000
    counts = np.stack([(epoch_orders(size, draws) == window).sum(axis=0) for window in range(size)])
    chi_square, free = ((counts - draws / size) ** 2).sum() * size / draws, (size - 1) ** 2
    assert likely(chi_square, free, 2 * free)


def test_an_order_keeps_its_version() -> None:
    """A run resumes with the order that it started with, so no version may ever change."""
    tokens = np.arange(100, dtype=np.int32)
    first = [54, 14, 22, 30, 46, 62, 70, 78, 6, 38, 86, 32, 40, 16, 24, 0, 48, 8, 56, 64, 80, 72, 67, 27]
    second = [6, 86, 22, 54, 30, 14, 46, 38, 70, 78, 62, 17, 1, 49, 25, 73, 33, 57, 9, 65, 41, 81, 55, 63]
    assert Batches(tokens, 8, 4, 5, 1).starts(0, 24).tolist() == first
    assert Batches(tokens, 8, 4, 5, 2).starts(0, 24).tolist() == second
    assert Batches(tokens, 8, 4, 5).starts(0, 24).tolist() == second


@settings(max_examples=50)
@given(st.data())
def test_an_epoch_visits_each_window_once(data: st.DataObject) -> None:
    ctx = data.draw(st.integers(1, 20))
    length = data.draw(st.integers(ctx + 1, 1500))
    epoch, seed = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 2**63))
    batches = Batches(np.arange(length, dtype=np.int32), ctx, 1, seed)
    starts = np.sort(batches.starts(epoch * batches.windows, batches.windows))
    offset = batches.offset(epoch)
    assert 0 <= offset < ctx
    assert np.array_equal(starts, offset + ctx * np.arange(batches.windows))
    assert starts[-1] + ctx + 1 <= length  # the last target exists
    assert length - batches.windows * ctx < 2 * ctx + 1  # at most two windows are left out


def test_targets_are_the_next_tokens() -> None:
    tokens = np.arange(1000, dtype=np.int32)
    inputs, targets = Batches(tokens, 16, 5, 0)[7]
    assert inputs.shape == targets.shape == (5, 16)
    assert inputs.dtype == targets.dtype == np.int32
    assert np.array_equal(targets, inputs + 1)
    assert (np.diff(inputs, axis=1) == 1).all()


def test_batches_are_a_pure_function_of_seed_and_number() -> None:
    tokens = np.arange(5000, dtype=np.int32)
    wanted = [Batches(tokens, 7, 3, 1)[i][0] for i in range(600)]
    batches = Batches(tokens, 7, 3, 1)
    for i in np.random.default_rng(0).permutation(600):
        assert np.array_equal(batches[int(i)][0], wanted[i])
    assert not np.array_equal(Batches(tokens, 7, 3, 2)[0][0], wanted[0])


def test_consecutive_small_batches_make_up_large_ones() -> None:
    tokens = np.arange(3000, dtype=np.int32)
    small, large = Batches(tokens, 8, 2, 5), Batches(tokens, 8, 6, 5)
    for index in range(100):
        parts = [small[3 * index + i][0] for i in range(3)]
        assert np.array_equal(np.concatenate(parts), large[index][0])


def test_epochs_differ() -> None:
    batches = Batches(np.arange(3000, dtype=np.int32), 8, 1, 5)
    starts = [batches.starts(epoch * batches.windows, batches.windows) for epoch in (0, 1)]
    assert not np.array_equal(starts[0] - batches.offset(0), starts[1] - batches.offset(1))
    assert len({batches.offset(epoch) for epoch in range(50)}) == 8


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 7))
def test_evaluation_covers_every_token_once(length: int, ctx: int, batch: int) -> None:
    tokens = np.arange(length, dtype=np.int32)
    seen = []
    for inputs, targets in evaluation_batches(tokens, ctx, batch):
        assert inputs.shape[0] <= batch
        assert inputs.shape[1] <= ctx
        assert inputs.flags.c_contiguous
        assert targets.flags.c_contiguous
        assert np.array_equal(targets, inputs + 1)
        seen.append(targets.reshape(-1))
    assert np.array_equal(np.concatenate(seen), tokens[1:])


def test_a_number_of_evaluation_batches_is_spread_over_the_split() -> None:
    found = list(evaluation_batches(np.arange(1001, dtype=np.int32), 10, 4, count=5))
    assert [inputs.shape for inputs, _ in found] == [(4, 10)] * 5
    starts = np.concatenate([inputs[:, 0] for inputs, _ in found])
    assert np.array_equal(starts, np.arange(20) * 50)
    everything = list(evaluation_batches(np.arange(1003, dtype=np.int32), 10, 4, count=10**6))
    assert sum(inputs.size for inputs, _ in everything) == 1002


@settings(max_examples=100)
@given(st.integers(1, 20000), st.integers(1, 50), st.integers(1, 50))
def test_the_default_evaluation_is_limited(length: int, ctx: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EVALUATED", 1000)
        tokens = np.zeros(length, np.int32)
        count = usual_evaluation(tokens, ctx, batch)
        seen = sum(targets.size for _, targets in evaluation_batches(tokens, ctx, batch, count))
    if length <= 1000:
        assert seen == length - 1
    elif count:
        assert seen == count * ctx * batch <= max(1000, ctx * batch)
        assert seen > 500
    else:
        assert seen == length - 1 < ctx * batch  # shorter than one batch
