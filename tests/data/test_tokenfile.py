"""Encoding texts, and the cache of encoded texts."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import namedtuple
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
from helpers import in_a_process
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Acting, result, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.data import encoding, tokenfile
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.encoding import encode
from bevia_fast.data.sources import TextSource, default_text
from bevia_fast.data.tokenfile import CodedText, coded_text
from bevia_fast.errors import DataError
from bevia_fast.reporter import Reporter
from bevia_fast.runs.checkpoint import newest_good, stored_config

TEXT = "The cat säß on the mat.\n" * 300
Usage = namedtuple("Usage", "total used free")


def text_of(coded: CodedText) -> str:
    return "".join(coded.characters[code] for code in coded.codes.tolist())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache folder for this test, in which texts of any size are cached."""
    folder = tmp_path / "cache" / "texts"
    monkeypatch.setattr(tokenfile, "cache_folder", lambda: folder)
    monkeypatch.setattr(tokenfile, "IN_MEMORY", 0)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose length is the number of encoded texts."""
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return encode(*arguments)

    monkeypatch.setattr(tokenfile, "encode", counted)
    return calls


# ------------------------------------------------------------------------------------------------------------ encoding


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(), min_size=1)), st.booleans())
def test_numbers_stand_for_the_characters(blocks: list[str], many: bool) -> None:
    """However the text is cut into blocks; with many characters, numbers already written are widened."""
    if many:
        blocks = [*blocks, "".join(map(chr, range(200, 600))), "a"]
    file = io.BytesIO()
    done = [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "WIDENED", 7)
        about = encode(blocks, file, done.append)
    text = "".join(blocks)
    codes = np.frombuffer(file.getvalue(), about["dtype"])
    assert about["dtype"] == ("<u2" if len(set(text)) > 256 else "|u1")
    assert about["count"] == len(text) == codes.size
    assert sorted(about["characters"]) == sorted(set(text))
    assert "".join(about["characters"][code] for code in codes) == text
    data = text.encode("utf-8", "surrogatepass")
    assert about["fingerprint"] == hashlib.sha256(data).hexdigest()  # as in the checkpoints of earlier versions
    assert done == sorted(done)
    assert done[-1] == len(data)


@pytest.mark.parametrize(
    ("distinct", "dtype"), [(1, "|u1"), (256, "|u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4")]
)
def test_a_number_has_as_many_bytes_as_the_vocabulary_needs(distinct: int, dtype: str) -> None:
    points = [*range(0xD800), *range(0xE000, 0x30000)][:distinct]
    text = "".join(map(chr, points))
    for blocks in ([text], [text[:100], text[100:300], text[300:]]):
        file = io.BytesIO()
        about = encode([block for block in blocks if block], file)
        assert about["dtype"] == dtype
        assert np.array_equal(np.frombuffer(file.getvalue(), dtype), np.arange(distinct))


def test_small_texts_and_the_default_one_leave_no_file(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenfile, "cache_folder", lambda: tmp_path / "cache")
    assert text_of(coded_text(TextSource([path]))) == TEXT
    assert text_of(coded_text(TextSource([]))) == default_text()
    assert not (tmp_path / "cache").exists()


# ----------------------------------------------------------------------------------------------------------- the cache


def test_a_text_is_encoded_once(cache: Path, path: str, encoded: list[int]) -> None:
    for _ in range(3):
        coded = coded_text(TextSource([path]))
        assert text_of(coded) == TEXT
        assert coded.fingerprint == hashlib.sha256(TEXT.encode()).hexdigest()
        assert coded.path is not None
        assert coded.path.parent == cache
        assert not coded.codes.flags.writeable
    assert len(encoded) == 1
    assert [entry.suffix for entry in cache.iterdir()] == [".tokens"]


def test_a_changed_source_is_encoded_again(cache: Path, path: str, encoded: list[int]) -> None:
    coded_text(TextSource([path]))
    times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns
    changed = TEXT.replace("cat", "dog")
    Path(path).write_text(changed)
    assert text_of(coded_text(TextSource([path]))) == changed
    Path(path).write_text(TEXT)
    os.utime(path, ns=times)  # set the time back
    assert text_of(coded_text(TextSource([path]))) == TEXT
    assert len(encoded) == 3
    folder = Path(path).parent
    (folder / "more.txt").write_text("more")
    assert text_of(coded_text(TextSource([str(folder)]))) == "more\n" + TEXT
    (folder / "x.txt").write_text("x")
    assert text_of(coded_text(TextSource([str(folder)]))) == "more\n" + TEXT + "x"


def test_a_text_that_changes_while_read_is_refused(cache: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(blocks: Iterable[str], *rest: Any) -> Any:
        with open(path, "a") as file:
            file.write("more")
        return encode(blocks, *rest)

    monkeypatch.setattr(tokenfile, "encode", grow)
    with pytest.raises(DataError, match=r"^The text changed while it was being read; try again\.$"):
        coded_text(TextSource([path]))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("size", [len(TEXT), 200_000])
def test_a_damaged_entry_is_replaced(cache: Path, path: str, encoded: list[int], size: int, monkeypatch: Any) -> None:
    """The usual kinds of damage: truncated, empty, blocks of zeros, foreign contents."""
    monkeypatch.setattr(tokenfile, "PIECE", 1000)  # so that the pieces do not cover a text of 200,000 characters
    text = (TEXT * 100)[:size]
    Path(path).write_text(text)
    entry = coded_text(TextSource([path])).path
    assert entry is not None
    whole, made = entry.read_bytes(), 1
    damages = [b"", b"x", whole[:-1], whole[: len(whole) // 2], whole + b"\0", bytes(len(whole)), whole[::-1]]
    for place in (0, len(text) // 3 // 4096 * 4096, len(text) - 4096, len(whole) - 4096):
        place = max(0, place)
        damages.append(whole[:place] + bytes(4096) + whole[place + 4096 :])
    damages += [whole[:-place] + bytes([whole[-place] ^ 1]) + whole[len(whole) - place + 1 :] for place in range(1, 70)]
    for damaged in damages:
        entry.write_bytes(damaged)
        assert text_of(coded_text(TextSource([path]))) == text
        made += 1
        assert len(encoded) == made
        assert entry.read_bytes() == whole
    entry.unlink()
    entry.mkdir()  # cannot be replaced
    notes = Acting()
    assert text_of(coded_text(TextSource([path]), notes)) == text
    assert notes.notes[0].startswith(f"the tokens of the text stay in memory, because {cache} cannot hold them: ")


KILLED = """
    import os, sys
    from bevia_fast.data import tokenfile
    from bevia_fast.data.sources import TextSource, text_blocks
    encode = tokenfile.encode
    def blocks(texts):
        for number, text in enumerate(texts):
            if number == 3:
                {end}
            yield text
    tokenfile.IN_MEMORY = 0
    tokenfile.text_blocks = lambda source: blocks(text_blocks(source, 1000))
    tokenfile.coded_text(TextSource([sys.argv[1]]))
"""


def start(folder: Path, path: str, end: str) -> subprocess.Popen[str]:
    """Start a process that encodes the text and runs `end` in the middle."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED).format(end=end), path], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=os.environ | {"BEVIA_FAST_CACHE_DIR": str(folder)},
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_leftovers_of_a_killed_process_are_removed(cache: Path, path: str) -> None:
    with start(cache.parent, path, "os.kill(os.getpid(), 9)") as process:
        assert process.wait(60) == -signal.SIGKILL
    assert [entry.suffix for entry in cache.iterdir()] == [".part"]
    assert text_of(coded_text(TextSource([path]))) == TEXT
    assert [entry.suffix for entry in cache.iterdir()] == [".tokens"]


def test_two_processes_can_encode_at_the_same_time(cache: Path, path: str) -> None:
    """The file that another process is writing is not removed as a leftover, and that process finishes too."""
    with start(cache.parent, path, "print('here', flush=True), sys.stdin.readline()") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "here\n"
        mine = coded_text(TextSource([path]))
        assert sorted(entry.suffix for entry in cache.iterdir()) == [".part", ".tokens"]
        process.stdin.write("continue\n")
        process.stdin.close()
        assert process.wait(60) == 0
    assert [entry.suffix for entry in cache.iterdir()] == [".tokens"]
    assert text_of(mine) == text_of(coded_text(TextSource([path]))) == TEXT


def test_many_threads_can_encode_at_the_same_time(cache: Path, path: str) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(text_of(coded_text(TextSource([path]))))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [TEXT] * 8
    assert [entry.suffix for entry in cache.iterdir()] == [".tokens"]


def test_ctrl_c_leaves_no_file(cache: Path, path: str) -> None:
    class Impatient(Reporter):
        def counting(self, what: str, total: int) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coded_text(TextSource([path]), Impatient())
    assert list(cache.iterdir()) == []


def test_a_closed_pipe_is_not_mistaken_for_a_disk_error(cache: Path, path: str, encoded: list[int]) -> None:
    class Gone(Reporter):
        def counting(self, what: str, total: int) -> Any:
            def report(done: int) -> None:
                raise BrokenPipeError

            return contextlib.nullcontext(report)

    with pytest.raises(BrokenPipeError):
        coded_text(TextSource([path]), Gone())
    assert list(cache.iterdir()) == []
    assert len(encoded) == 1  # and not again, into memory


def test_the_least_recently_used_entries_are_removed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(4)]
    for path in paths:
        path.write_text(path.name * 2000)
    entries = [coded_text(TextSource([str(path)])).path for path in paths[:3]]
    for number, entry in enumerate(entries):
        assert entry is not None
        os.utime(entry, ns=(number * 10**9, number * 10**9))
    opened = coded_text(TextSource([str(paths[0])]))  # now it is the most recently used one
    monkeypatch.setattr(tokenfile, "KEPT", 32_000)
    coded_text(TextSource([str(paths[3])]))
    assert [entry.exists() for entry in entries if entry] == [True, False, True]
    monkeypatch.setattr(tokenfile, "KEPT", 0)
    paths[3].write_text("another")
    last = coded_text(TextSource([str(paths[3])]))
    assert list(cache.iterdir()) == [last.path]
    assert text_of(opened) == "0.txt" * 2000  # a removed entry can still be read


# --------------------------------------------------------------------------------------------------------------- space


def test_without_a_writable_cache_texts_stay_in_memory(
    cache: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where a folder should be")
    notes = Acting()
    assert text_of(coded_text(TextSource([path]), notes)) == TEXT
    assert notes.notes == [f"the tokens of the text stay in memory, because {cache} cannot hold them: Not a directory."]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    assert text_of(coded_text(TextSource(["-"]), notes)) == TEXT
    monkeypatch.setattr(tokenfile, "available_bytes", lambda: 1000)
    with pytest.raises(DataError, match=r"no room for the tokens of this text \(in .*: Not a directory; in memory: "):
        coded_text(TextSource([path]))


def test_a_read_only_cache_is_used(
    cache: Path, path: str, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    coded_text(TextSource([path]))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    assert coded_text(TextSource([path])).path is not None
    assert len(encoded) == 1
    other, notes = tmp_path / "other.txt", Acting()
    other.write_text(TEXT)
    assert text_of(coded_text(TextSource([str(other)]), notes)) == TEXT
    assert "Read-only" in notes.notes[0]


def test_a_disk_without_enough_space(cache: Path, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written; entries are removed only if that helps."""
    old = tmp_path / "old.txt"
    old.write_text(TEXT * 2)
    entry = coded_text(TextSource([str(old)])).path
    assert entry is not None
    free = [100]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, free[0] if entry.exists() else free[0] + 7000))
    notes = Acting()
    monkeypatch.setattr(tokenfile, "KEPT", len(TEXT))
    free[0] = -20_000
    assert coded_text(TextSource([path]), notes).path is None
    assert " needed, " in notes.notes[0]
    assert notes.notes[0].endswith(" free.")
    assert list(cache.iterdir()) == [entry]
    free[0] = 1000
    assert text_of(coded_text(TextSource([path]))) == TEXT
    assert not entry.exists()


def test_a_disk_that_fills_up_while_encoding(cache: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(blocks: Iterable[str], file: BinaryIO, *rest: Any) -> Any:
        if not isinstance(file, io.BytesIO):
            file.write(b"some")
            raise OSError(errno.ENOSPC, "No space left on device")
        return encode(blocks, file, *rest)

    monkeypatch.setattr(tokenfile, "encode", full)
    assert text_of(coded_text(TextSource([path]))) == TEXT
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    with pytest.raises(DataError, match=r"Cannot write the tokens to .*: No space left"):
        coded_text(TextSource(["-"]))


def test_a_text_too_large_for_disk_and_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokenfile, "cache_folder", lambda: tmp_path / "cache")
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # sparse, so it takes no space on disk
    assert main(["train", "--data", str(path)]) == 2
    error = capsys.readouterr().err
    assert "4.4 TB needed, " in error
    assert "in memory: 8.8 TB needed, " in error
    assert "; set BEVIA_FAST_CACHE_DIR to another folder." in error
    assert error.count("\n") == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_stream_is_not_cached(cache: Path, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"first")))
    coded = coded_text(TextSource(["-", path]))
    assert text_of(coded) == "first\n" + TEXT
    assert coded.mapping is not None
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_named_pipe_is_read(cache: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(TEXT))
    writer.start()
    assert text_of(coded_text(TextSource([str(pipe)]))) == TEXT
    writer.join()


# ---------------------------------------------------------------------------------------------------------- whole runs


def test_the_corpus_of_a_mapped_text(cache: Path, path: str) -> None:
    corpus = Corpus(coded_text(TextSource([path])))
    whole = np.concatenate([corpus.training[:], corpus.validation[:]])
    assert corpus.tokenizer.decode(whole) == TEXT
    assert whole.dtype == np.int32

def test_a_run_is_the_same_from_memory_and_from_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is resumed, at the end with another text."""
    config = tiny_config(tmp_path, steps=8)
    results = []
    for name, limit in (("memory", 1 << 24), ("file", 0), ("again", 0)):
        monkeypatch.setattr(tokenfile, "IN_MEMORY", limit)
        run = train(replace(config, out=str(tmp_path / name)))
        results.append(result(run.folder))
    assert results[0] == results[1] == results[2]
    assert len(list(cache.iterdir())) == 1
    train(replace(stored_config(run.folder), steps=9))
    text = Path(config.data[0])
    text.write_text("tac the no tas " * 30)
    with pytest.raises(DataError, match="not the one"):
        train(replace(stored_config(run.folder), steps=10))
    train(replace(stored_config(run.folder), steps=10, allow_changed_text=True))
    assert newest_good(run.folder)[0].fingerprint == hashlib.sha256(text.read_bytes()).hexdigest()


CUT = """
import json, os, sys
import numpy as np
from bevia_fast.data import tokenfile
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.sources import TextSource
from bevia_fast.errors import StoppedRun
tokenfile.IN_MEMORY = 0
text = tokenfile.coded_text(TextSource(json.loads(sys.argv[1])))
corpus, found = Corpus(text), []
for length in (text.path.stat().st_size, 5000, 0):
    os.truncate(text.path, length)
    for tokens in (corpus.training, corpus.validation):
        try:
            found.append(int(tokens[len(tokens) - 1 :][0]))
        except StoppedRun as error:
            found.append(str(error))
print(json.dumps(found))
"""


def test_a_token_file_that_is_cut_meanwhile_is_a_sentence(cache: Path, tmp_path: Path) -> None:
    """Reading a mapped page that is behind the file's end would end the process with SIGBUS."""
    (tmp_path / "long.txt").write_text("abcd" * 10_000)
    found = in_a_process(CUT, [str(tmp_path / "long.txt")], BEVIA_FAST_CACHE_DIR=str(cache))
    assert [type(each) for each in found] == [int, int, str, str, str, str]
    assert set(found[2:]) == {"The file that holds the cached tokens of the text was cut meanwhile; resume the run."}


def test_a_large_split_is_evaluated_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bevia_fast.data.corpus.EVALUATED", 32)
    notes = Acting()
    train(tiny_config(tmp_path, eval_batches=0, steps=1), notes)
    assert notes.notes == [
        "each evaluation covers 32 characters, spread over the validation split; eval_batches changes this."
    ]
    notes = Acting()
    train(tiny_config(tmp_path, "whole", eval_batches=10**6, steps=1), notes)
    assert notes.notes == []


# ------------------------------------------------------------------------------------------------------------- 2 GB

LARGE = """
    import re, sys, time
    import numpy as np
    from bevia_fast.data.corpus import Batches, Corpus, evaluation_batches
    from bevia_fast.data.sources import TextSource
    from bevia_fast.data.tokenfile import coded_text

    began = time.perf_counter()
    text = coded_text(TextSource([sys.argv[1]]))
    seconds = time.perf_counter() - began
    corpus = Corpus(text)
    batches = Batches(corpus.training, 64, 16, 1)
    for index in range(500):
        tokens, targets = batches[index]
        assert tokens.dtype == np.int32 and (tokens[:, 1:] == targets[:, :-1]).all()
    for tokens, targets in evaluation_batches(corpus.validation, 64, 16, 200):
        assert tokens.shape == (16, 64)
    status = open("/proc/self/status").read()
    print(len(text.codes), text.codes.itemsize, text.fingerprint, re.search(r"VmHWM:\\s+(\\d+)", status)[1], seconds)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_two_gigabytes(tmp_path: Path) -> None:
    """Encoding takes little memory, and a later run reuses the result; batches and evaluations take little memory."""
    path, cache = tmp_path / "large.txt", tmp_path / "cache"
    lines = default_text().splitlines(keepends=True)
    size, digest = 0, hashlib.sha256()

    def parts() -> Iterator[bytes]:
        number = 0
        while True:
            yield "".join(f"{number + i} {line}" if i % 5 == 0 else line for i, line in enumerate(lines)).encode()
            number += len(lines)

    try:
        with path.open("wb") as file:
            for part in parts():
                file.write(part)
                digest.update(part)
                size += len(part)
                if size >= 2_000_000_000:
                    break
        for attempt in ("encoded", "from the cache"):
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(LARGE), str(path)], capture_output=True, text=True, check=False,
                env=os.environ | {"BEVIA_FAST_CACHE_DIR": str(cache)},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            count, width, fingerprint, peak, time = done.stdout.split()
            seconds = float(time)
            print(f"{attempt} in {seconds:.2f} s, {size / seconds / 1e6:,.0f} MB/s, peak {int(peak) >> 10} MiB")
            assert fingerprint == digest.hexdigest()
            assert 0.99 * size < int(count) < size
            assert int(width) == 1
            assert int(peak) < 300_000  # KiB
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 19, 20, 21, 39, 40, 41, 45, 79, 80, 81, 95, 399, 400, 401, 1003])
def test_the_sample_of_a_file_has_its_first_and_its_last_byte(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at most so many pieces, no two of them far apart: all of a short file, a part of a longer one."""
    monkeypatch.setattr(tokenfile, "PIECE", 10)
    monkeypatch.setattr(tokenfile, "SAMPLES", 4)
    whole = bytes(value % 251 for value in range(size))
    before = tokenfile._sample(io.BytesIO(whole + b"behind"), size)
    assert before == tokenfile._sample(io.BytesIO(whole + b"BEHIND"), size)
    covered = []
    for place in range(size):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        covered.append(tokenfile._sample(io.BytesIO(changed), size) != before)
    if size <= 40:
        assert all(covered)
    else:
        assert covered[0]
        assert covered[-1]
        assert 30 < sum(covered) <= 40
        gaps = "".join("x" if each else "." for each in covered).split("x")
        assert max(map(len, gaps)) <= 2 * (-(-size // 4) - 10)
