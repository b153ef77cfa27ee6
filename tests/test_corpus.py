"""Reading text, splitting it, and drawing batches from it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bevia_fast.corpus import Batches, Corpus, default_text, evaluation_batches, permuted, read_text
from bevia_fast.errors import ConfigError, DataError

# ---------------------------------------------------------------------------------------------------------------- text


def test_one_file_is_kept_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffein\r\nTäxt\n\n".encode())
    assert read_text([str(path)]) == "ein\r\nTäxt\n\n"


def test_files_are_joined_in_order_and_folders_sorted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, text in (("b.txt", "2\n"), ("a/z.txt", "1"), ("c.md", "no"), ("d.txt", "")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    first = tmp_path / "first.txt"
    first.write_text("0")
    assert read_text([str(first), str(folder)]) == "0\n1\n2\n"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("über".encode())))
    assert read_text(["-"]) == "über"


def test_the_default_text_is_pythons_reference() -> None:
    text = read_text([])
    assert text == default_text()
    assert len(text) > 300_000
    assert "assignment" in text


def test_a_python_without_the_default_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="give a text with --data"):
        read_text([])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty\."),
        (b"\xef\xbb\xbf", r"is empty\."),
        (b"caf\xe9 au lait", "is not UTF-8: byte 3 is 0xe9"),
        (b"\xef\xbb\xbfcaf\xe9", "is not UTF-8: byte 6 is 0xe9"),
        (b"\xff\xfea\x00b\x00", "is not text: byte 3 is 0"),
        (b"PK\x03\x04\x00", "is not text: byte 4 is 0"),
    ],
)
def test_bad_files_are_named_with_the_byte(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_text([str(path)])
    assert str(path) in str(caught.value)


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*nothing\.txt: No such file"):
        read_text([str(tmp_path / "nothing.txt")])
    with pytest.raises(DataError, match=r"has no \*\.txt file"):
        read_text([str(tmp_path)])
    with pytest.raises(DataError, match="null byte"):
        read_text(["a\0b"])


def test_a_file_too_large_for_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # takes no room on the disk
    with pytest.raises(ConfigError, match=r"Reading .*large\.txt needs about 64\.0 TiB of memory"):
        read_text([str(path)])


def test_splits_are_by_position() -> None:
    corpus = Corpus("0123456789" * 10)
    assert corpus.tokenizer.decode(corpus.training) == "0123456789" * 9
    assert corpus.tokenizer.decode(corpus.validation) == "0123456789"


def test_a_split_shorter_than_a_window_is_refused() -> None:
    corpus = Corpus("abcdefghij" * 10)
    corpus.check_length(9)
    with pytest.raises(DataError, match="10 are in the validation split, and --ctx 10 needs at least 11"):
        corpus.check_length(10)
    with pytest.raises(DataError, match="training split"):
        Corpus("a").check_length(1)


# -------------------------------------------------------------------------------------------------------------- batches


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_permuted_is_a_bijection(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(size), size, key)), np.arange(size))


def test_permuted_looks_random() -> None:
    """Neither order nor a fixed point is more frequent than in a random permutation."""
    size = 2000
    result = permuted(np.arange(size), size, 12345)
    assert abs(np.corrcoef(np.arange(size), result)[0, 1]) < 0.1
    assert (result == np.arange(size)).sum() < 10
    assert not np.array_equal(result, permuted(np.arange(size), size, 12346))


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
    assert starts[-1] + ctx + 1 <= length  # the last target is there too
    assert length - batches.windows * ctx < 2 * ctx + 1  # hardly anything is left out


def test_targets_are_one_further_on() -> None:
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


def test_small_batches_put_together_are_the_large_ones() -> None:
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
