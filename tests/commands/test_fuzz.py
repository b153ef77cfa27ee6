"""Fuzz every user input: a command either works or prints one sentence and exits with code 2."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict
from encodings.aliases import aliases
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import TEXT, metadata, signed, signed_header, tiny_config

from bevia_fast import train
from bevia_fast.commands.arguments import COMMANDS, options
from bevia_fast.commands.main import main
from bevia_fast.measuring.options import BENCHES, PROFILES, ProfileKernelConfig
from bevia_fast.measuring.results import KernelResult, StepResult
from bevia_fast.runs.checkpoint import checkpoints

pytestmark = pytest.mark.usefixtures("quick_runs")

SIZES = ["--ctx", "4", "--dim", "4", "--layers", "1", "--heads", "1", "--batch", "1", "--steps", "1", "--backend",
         "numpy", "--eval-batches", "1", "--sample-every", "0"]  # fmt: skip
MEASURING = {("bench", name): config for name, config in BENCHES.items()} | {
    ("profile", name): config for name, config in {**PROFILES, "attention": ProfileKernelConfig}.items()
}
LINES = [*((name,) for name in COMMANDS), *MEASURING]  # the first words of each command line
OPTIONS = sorted({
    option for command in (*COMMANDS.values(), *MEASURING.values()) for option in options(command)
} - {"--a", "--b", "--kernels"})  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["0", "1", "-1", "2.5", "nan", "inf", "-inf", "1e999", "1_000", "0x10", "", " ", "None", "True",
                     "-", "--", "-h1", "numpy", "numba", "baby", "relu", "skip", "..", ".", "/", "\0", "~", "*"]),
    st.integers().map(str), st.floats().map(str), st.text(max_size=20),
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(OPTIONS), VALUES, st.sampled_from(list(COMMANDS)),
    st.builds("{}={}".format, st.sampled_from(OPTIONS), VALUES),
    st.sampled_from(OPTIONS).map(lambda option: "--no-" + option[2:]),
    st.sampled_from(OPTIONS).map(lambda option: option[:-1]),
)  # fmt: skip
COUNT = itertools.count(1)


def examples(few: int) -> Any:
    """Return hypothesis settings with `few` examples, times BEVIA_FAST_FUZZ in the slow test."""
    many = int(os.environ.get("BEVIA_FAST_FUZZ", "1"))
    return settings(max_examples=few * many, suppress_health_check=list(HealthCheck), deadline=None)


def call(*arguments: str, allowed: tuple[int, ...] = (0, 2)) -> tuple[int, str]:
    """Run a command in this process; assert that an error is printed as one line and no exception escapes."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    next(COUNT)
    message = err.getvalue()
    shown = message if arguments[0] == "generate" else message + out.getvalue()  # whose text is redirected as it is
    assert not [char for char in shown if unicodedata.category(char) == "Cc" and char not in "\n\t"], arguments
    assert code in allowed, (code, arguments, message)
    if code == 0:
        assert message == "", (arguments, message)
    else:
        assert message.startswith("bevia-fast: error: "), (arguments, message)
        assert message.count("\n") == 1, (arguments, message)
        assert "Traceback" not in message
    return code, message


@pytest.fixture(scope="module", autouse=True)
def _count() -> Iterator[None]:
    yield
    print(f"{next(COUNT) - 1} inputs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config(tmp_path_factory.mktemp("fuzz"), steps=4, save_every=2)).folder


@contextlib.contextmanager
def copy_of(run: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(run, Path(folder) / "run"))


@examples(100)
@given(command=st.sampled_from([*LINES, ("",), ("x",), ("bench", "x")]), words=st.lists(WORDS, max_size=6))
def test_any_options(run: Path, command: tuple[str, ...], words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        patch.setattr("bevia_fast.commands.main.run", lambda config: 0)  # only parse: a run could take years
        call(*command, *words)
        assert list(Path(folder).iterdir()) == []


@examples(60)
@given(words=st.lists(WORDS, max_size=3))
def test_any_options_for_a_resumed_run(run: Path, words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bevia_fast.commands.main.run", lambda config: 0)
        call("train", "--resume", str(run), *words)
        call("train", *words, "--resume", str(run))


@examples(30)
@given(
    prompt=st.text(max_size=30), length=st.integers(1, 20), top_k=st.integers(-2, 30), top_p=st.floats(),
    temperature=st.floats(), seed=st.integers(-2, 1 << 64),
)  # fmt: skip
def test_any_prompt(
    run: Path, prompt: str, length: int, top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    call("generate", str(run), f"--prompt={prompt}", "--length", str(length), f"--top-k={top_k}", f"--top-p={top_p}",
         f"--temperature={temperature}", f"--seed={seed}", "--backend", "numpy")  # fmt: skip


@examples(60)
@given(prompt=st.text(st.sampled_from(sorted(set(TEXT))), max_size=20), temperature=st.floats(0, 1e300))
def test_any_prompt_that_the_model_knows(run: Path, prompt: str, temperature: float) -> None:
    code, _ = call("generate", str(run), f"--prompt={prompt}", "--length", "5", f"--temperature={temperature}",
                   "--backend", "numpy")  # fmt: skip
    assert code == 0


@examples(20)
@given(content=st.one_of(
    st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(min_size=60, max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    st.text("ab\r\n\ufeff\u2028\U0001f600", min_size=60, max_size=200).map(str.encode),
))  # fmt: skip
def test_any_text(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(content)
        for place in (path, Path(folder)):
            code, _ = call("train", "--data", str(place), "--out", str(Path(folder) / f"run-{place.name}"), *SIZES)
            if code == 0:
                call("generate", str(Path(folder) / f"run-{place.name}"), "--length", "3", "--backend", "numpy",
                     allowed=(0, 2))  # fmt: skip


@examples(60)
@given(
    content=st.one_of(
        st.binary(max_size=200), st.text(min_size=60, max_size=200).map(lambda text: text.encode("utf-16", "replace")),
        st.text("é中\r\n\u0301", min_size=60, max_size=200).map(lambda text: gzip.compress(text.encode("gb18030"))),
    ),
    encoding=st.sampled_from(sorted({*aliases.values(), "utf-8-sig", "cp1252", "klingon"})),
    glob=st.text("*?[]!/.atx-", max_size=8), newlines=st.sampled_from(["keep", "lf"]),
    normalize=st.sampled_from(["keep", "nfc"]),
)  # fmt: skip
def test_any_way_to_read_a_text(content: bytes, encoding: str, glob: str, newlines: str, normalize: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(content)
        for number, place in enumerate((path, Path(folder))):
            call("train", "--data", str(place), "--out", str(Path(folder) / f"run-{number}"), "--encoding", encoding,
                 f"--glob={glob}", "--newlines", newlines, "--normalize", normalize, *SIZES)  # fmt: skip


STEP = StepResult("numba", 2, "float32", 64, 128, 4, 4, 12, 65, 1.0, 0.9, 1.1, 1e5, 1e9, 9.0, 90.0, 0.1, 99.0, 1.0)
KERNEL = KernelResult("gelu_forward", "numba", 2, "float32", "N=1", {"N": 1}, 1.0, 0.9, 1.1, 8.0, 8.0, 1.0, 9.0, 9.0,
                      90.0, 30.0, 30.0, 0.1, 0.3, "memory", 1.0)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
)  # fmt: skip
RESULTS = st.builds(
    lambda result, changes, left_out: {name: value for name, value in {**asdict(result), **changes}.items()
                                       if name not in left_out},
    st.sampled_from([STEP, KERNEL]),
    st.dictionaries(st.sampled_from([*asdict(STEP), *asdict(KERNEL)]), ANYTHING, max_size=3),
    st.lists(st.sampled_from([*asdict(STEP), *asdict(KERNEL)]), max_size=1),
)  # fmt: skip


@examples(150)
@given(content=st.one_of(
    st.lists(RESULTS, min_size=1, max_size=2).map(lambda found: json.dumps(found).encode()),
    ANYTHING.map(lambda value: json.dumps(value).encode()), st.binary(max_size=100), st.just(b"[" * 100_000),
))  # fmt: skip
def test_any_results(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_bytes(content)
        call("bench", "compare", str(path), str(path))


FILES = ("model.safetensors", "metrics.jsonl", "options.json", "CHECKPOINT", "OLD CHECKPOINT")


@examples(15)
@given(
    name=st.sampled_from(FILES), content=st.binary(max_size=400), place=st.floats(0, 1), how=st.sampled_from(
        ["replace", "overwrite", "insert", "cut", "remove", "folder", "link"]
    ),
)  # fmt: skip
def test_any_run_folder(run: Path, name: str, content: bytes, place: float, how: str) -> None:
    with copy_of(run) as copy:
        found = checkpoints(copy)
        path = {"CHECKPOINT": found[0][1], "OLD CHECKPOINT": found[-1][1]}.get(name, copy / name)
        whole = path.read_bytes()
        start = int(place * len(whole))
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to("/dev/zero")
        elif how != "remove":
            before, after = whole[:start], whole[start:]
            path.write_bytes({"replace": content, "overwrite": before + content + after[len(content) :],
                              "insert": before + content + after, "cut": before}[how])  # fmt: skip
        call("generate", str(copy), "--length", "3", "--backend", "numpy")
        call("parameters", str(copy))
        call("attention", str(copy), "--prompt", "the", "--out", str(copy / "picture.png"))
        call("train", "--resume", str(copy), allowed=(0, 1, 2))


HOSTILE = st.one_of(ANYTHING, st.sampled_from([
    10**400, -(10**400), [float("nan")], {"step": 6}, {"step": 4}, "\x1b[2J\x9b31m\x07\r", "\0", "\ud800", -0.0, 5e-324,
    1e308, "x" * 5000, {"step": 4, "loss": 10**400, "val_loss": None, "lr": 0, "grad_norm": None, "tokens_per_s": None},
]))  # fmt: skip


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the keys that lead to each value inside of parsed JSON."""
    items = value.items() if isinstance(value, dict) else []
    inner = [place for key, each in items for place in places(each, (*path, key))]
    return [*([path] if path else []), *inner]


@examples(60)
@given(data=st.data(), value=HOSTILE, how=st.sampled_from(["replace", "remove", "add"]))
def test_any_metadata_with_the_right_checksum(run: Path, data: Any, value: Any, how: str) -> None:
    """A run of a stranger, who can compute checksums too."""
    with copy_of(run) as copy:
        for path in (checkpoints(copy)[0][1], copy / "model.safetensors"):
            whole = path.read_bytes()
            about = metadata(whole)
            if "progress" in about and about["progress"]["unfinished"] is None:
                nothing = dict.fromkeys(("loss", "val_loss", "lr", "grad_norm", "tokens_per_s"))
                about["progress"]["unfinished"] = {"step": about["progress"]["step"], **nothing}
            *outer, last = data.draw(st.sampled_from(places(about)))
            inner = about
            for key in outer:
                inner = inner[key]
            if how == "replace":
                inner[last] = value
            elif how == "remove":
                del inner[last]
            else:
                inner[data.draw(st.text(max_size=5) | st.just("\x1b[2J"))] = value
            path.write_bytes(signed(about, whole))
        call("generate", str(copy), "--length", "3", "--backend", "numpy")
        call("parameters", str(copy))
        code, message = call("train", "--resume", str(copy), "--steps", "5", "--backend", "numpy", allowed=(0, 1, 2))
        assert code != 1 or "not finite" in message or "Stopped at step" in message  # a weight decay of 1e308, say


@examples(60)
@given(place=st.floats(0, 1), entry=ANYTHING, more=st.dictionaries(st.text(max_size=5), ANYTHING, max_size=2))
def test_any_list_of_tensors_with_the_right_checksum(run: Path, place: float, entry: Any, more: dict[str, Any]) -> None:
    with copy_of(run) as copy:
        path = copy / "model.safetensors"
        whole = path.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + size])
        names = list(header)[1:]
        header[names[int(place * (len(names) - 1))]] = entry
        path.write_bytes(signed_header(header | more, whole[8 + size :]))
        code, _ = call("generate", str(path), "--length", "3", "--backend", "numpy")
        assert code == 2


LINE = st.one_of(
    st.binary(max_size=60), ANYTHING.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda step, name, value: json.dumps({"step": step, name: value}).encode(), st.integers(-1, 9),
              st.sampled_from(["loss", "val_loss", "lr", "skipped", "spike", "crosscheck", "\x1b"]), HOSTILE),
)  # fmt: skip


@examples(60)
@given(lines=st.lists(st.tuples(st.integers(0, 4), LINE), max_size=4))
def test_any_lines_in_metrics(run: Path, lines: list[tuple[int, bytes]]) -> None:
    """Resuming always works, and loses no line that was there before."""
    with copy_of(run) as copy:
        path = copy / "metrics.jsonl"
        content = before = path.read_bytes().splitlines()
        for place, line in lines:
            content = [*content[:place], *line.split(b"\n"), *content[place:]]
        path.write_bytes(b"\n".join(content) + b"\n")
        code, _ = call("train", "--resume", str(copy), "--steps", "5", "--backend", "numpy")
        assert code == 0
        aside = [found.read_bytes().splitlines() for found in copy.glob("metrics.damaged-*.jsonl")]
        kept = path.read_bytes().splitlines()
        assert set(before) <= set(kept).union(*aside)
        steps = [json.loads(line)["step"] for line in kept]
        assert steps == sorted(set(steps))


@examples(60)
@given(content=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(
    lambda data: len(data).to_bytes(8, "little") + b'{"__metadata__":{"checksum":"' + data
)))  # fmt: skip
def test_any_model_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        for command in (["generate"], ["parameters"], ["attention", "--prompt", "x"]):
            code, _ = call(command[0], str(path), *command[1:])
            assert code == 2


@pytest.mark.slow
def test_everything_with_many_more_examples() -> None:
    """Run the tests above with ten times as many examples."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-p", "no:cacheprovider", "-s", "-k", "not many_more"],
        env=os.environ | {"BEVIA_FAST_FUZZ": "10"}, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout
