"""Compiled code on disk: shared by processes that start at once, killed ones, read-only places, damaged files."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target
from small_runs import TINY, tiny_config

import bevia_fast
from bevia_fast import kernels
from bevia_fast.config import GenerateConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.kernels.lock import take_lock
from bevia_fast.kernels.numba_jit import activation
from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache
from bevia_fast.model.writing import stream
from bevia_fast.training.compiling import warm_up
from bevia_fast.training.step import Trainer

# Three functions are enough to meet at the lock, and compile in seconds.
COMPILE = """
import hashlib, json, sys
import numpy as np
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache
from bevia_fast.kernels.numba_jit._simd.tiles import product_address
backend, result = get_backend("numba"), {}
for dtype in sys.argv[1].split(","):
    print("compiling", flush=True)
    inp = np.linspace(-1, 1, 97, dtype=dtype)
    out = np.empty_like(inp)
    backend.relu_forward(out.reshape(1, -1), inp.reshape(1, -1))
    norm = backend.squared_norm(inp)
    assert product_address(inp.dtype)
    result[dtype] = hashlib.sha1(out.tobytes() + np.float64(norm).tobytes()).hexdigest()
print(json.dumps({"compiled": kernel_cache.compiled, "damaged": kernel_cache.damaged, "result": result,
                  "problem": kernel_cache.problem()}))
"""
ALL = {"activation._relu_forward", "adamw._squared_norm", "tiles._product"}

# Not by way of the editable install, whose finder comes before the path.
TRAIN = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(getattr(finder, "__module__", ""))]
sys.path.insert(0, sys.argv.pop(1))
import bevia_fast
print(bevia_fast.__file__, flush=True)
from bevia_fast.commands.main import main
sys.exit(main())
"""


def start(
    cache: Path, dtypes: str = "float32", prefix: Sequence[str] = (), code: str = COMPILE
) -> subprocess.Popen[str]:
    environment = {**os.environ, "BEVIA_FAST_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, dtypes], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.suffix in (".nbi", ".nbc"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cache that holds the operations for float32, and what they gave."""
    cache = tmp_path_factory.mktemp("cache")
    first = answer(start(cache))
    assert set(first["compiled"]) == ALL
    return cache, first


def test_the_second_process_compiles_nothing(warm: tuple[Path, dict[str, Any]]) -> None:
    cache, first = warm
    assert answer(start(cache)) == {**first, "compiled": []}


@pytest.mark.parametrize(
    ("option", "value"),
    [("OPT", 0), ("BOUNDSCHECK", 1), ("LOOP_VECTORIZE", 0), ("SLP_VECTORIZE", 1), ("DEBUGINFO_DEFAULT", 1),
     ("USING_SVML", None), ("CPU_NAME", "generic"), ("CPU_FEATURES", "-fma")],
)  # fmt: skip
def test_code_is_kept_apart_by_what_changes_it(monkeypatch: pytest.MonkeyPatch, option: str, value: object) -> None:
    assert hasattr(numba.config, option)
    monkeypatch.setattr(numba.config, option, value)
    assert kernel_cache._version() != kernel_cache.FOLDER.name


def test_processes_that_start_at_once_compile_each_function_once(tmp_path: Path) -> None:
    """Two for float32, two for both dtypes: they want to write the same files and the same indices."""
    found = [answer(each) for each in [start(tmp_path, dtypes) for dtypes in
                                       ("float32", "float32,float64", "float64,float32", "float32")]]  # fmt: skip
    compiled = [name for each in found for name in each["compiled"]]
    assert sorted(compiled) == sorted([*ALL, *ALL])  # once for each dtype
    for dtype in ("float32", "float64"):
        assert len({each["result"][dtype] for each in found if dtype in each["result"]}) == 1
    again = answer(start(tmp_path, "float32,float64"))
    assert again["compiled"] == []
    assert again["result"] == {**found[1]["result"]}


def test_a_process_that_is_killed_while_it_compiles_is_no_obstacle(
    tmp_path: Path, warm: tuple[Path, dict[str, Any]]
) -> None:
    killed = start(tmp_path)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "compiling\n"
    lock = _wait_for(tmp_path, "*.lock")[0]
    killed.kill()
    killed.communicate()
    leftover = lock.with_suffix(".1.nbc.tmp.0123456789abcdef")
    leftover.write_bytes(b"half")
    found = answer(start(tmp_path))
    assert found["result"] == warm[1]["result"]
    assert answer(start(tmp_path))["compiled"] == []
    assert not leftover.exists()


def _wait_for(folder: Path, name: str) -> list[Path]:
    for _ in range(600):
        found = list(folder.rglob(name))
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{name} does not come")


def test_functions_are_compiled_while_another_process_compiles_others(
    tmp_path: Path, warm: tuple[Path, dict[str, Any]]
) -> None:
    """The locks are as many as the functions."""
    cache, first = warm
    taken = tmp_path / next(iter(cache.rglob("activation._relu_forward*.lock"))).relative_to(cache)
    taken.parent.mkdir(parents=True)
    with open(taken, "ab") as lock:
        assert take_lock(lock.fileno())
        others = start(tmp_path, "float32", code=COMPILE.replace("backend.relu_forward", "print"))
        assert answer(others)["compiled"] == ["adamw._squared_norm", "tiles._product"]
        waits = start(tmp_path)
        assert waits.stdout is not None
        assert waits.stdout.readline() == "compiling\n"
    assert answer(waits) == {**first, "compiled": ["activation._relu_forward"]}


def test_a_process_may_do_something_else_than_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "FOLDER", tmp_path / "folder")
    monkeypatch.setattr(kernel_cache, "_writable", None)
    monkeypatch.setattr(kernel_cache, "waiting", False)
    cache, before = kernel_cache.Cache(activation._relu_forward.py_func), list(kernel_cache.compiled)
    other = kernel_cache._CompileLock(cache._lock.base)
    assert other.take()
    with cache.one_process_at_a_time(), pytest.raises(kernel_cache.CompiledElsewhere):
        cache.load_overload(numba.types.void(numba.float32[::1], numba.float32[::1]), cpu_target.target_context)
    other.release()
    assert kernel_cache.compiled == before


DAMAGES = {
    "empty": lambda data: b"",
    "zeros": lambda data: b"\0" * 100,
    "cut": lambda data: data[:-50],
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :],
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_made_anew_and_named(warm: tuple[Path, dict[str, Any]], damage: str, suffix: str) -> None:
    """A flipped bit in machine code would be executed, if nothing compared a checksum before."""
    cache, first = warm
    for path in files(cache):
        if path.suffix == suffix:
            path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert answer(start(cache)) == {**first, "damaged": first["compiled"]}
    assert answer(start(cache)) == {**first, "compiled": []}


def test_code_of_another_function_is_not_taken(warm: tuple[Path, dict[str, Any]]) -> None:
    """The files are intact, but under each other's names."""
    cache, first = warm
    for suffix in (".nbi", ".nbc"):
        one, other = [path for path in files(cache) if path.suffix == suffix][:2]
        keep = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(keep)
        found = answer(start(cache))
        assert found["result"] == first["result"]
        assert len(found["compiled"]) == 2


def test_a_missing_file_is_made_anew(warm: tuple[Path, dict[str, Any]]) -> None:
    cache, first = warm
    answer(start(cache))  # whole, whatever other tests did to it
    for path in files(cache):
        if path.suffix == ".nbc" and "relu" in path.name:
            path.unlink()
    wanted = ["activation._relu_forward"]
    assert answer(start(cache)) == {**first, "compiled": wanted, "damaged": wanted}


def test_any_flipped_bit_of_any_file_is_found(
    warm: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them reaches pickle or the linker."""
    answer(start(warm[0]))  # whole, whatever other tests did to it
    monkeypatch.setattr(kernel_cache, "FOLDER", tmp_path / kernel_cache.FOLDER.name)
    shutil.copytree(next(warm[0].rglob("*.nbi")).parents[1], kernel_cache.FOLDER)
    cache = kernel_cache.Cache(activation._relu_forward.py_func)
    key = next(iter(cache._cache_file._load_index()))
    assert cache._cache_file.load(key) is not None
    loads = pickle.loads
    own = [path for path in files(kernel_cache.FOLDER) if "relu_forward" in path.name]
    assert {path.suffix for path in own} == {".nbi", ".nbc"}
    places = random.Random(5)
    for path in own:
        whole = path.read_bytes()
        index = (path if path.suffix == ".nbi" else next(path.parent.glob("*relu_forward*.nbi"))).read_bytes()[32:]
        intact = [] if path.suffix == ".nbi" else [index]
        monkeypatch.setattr(pickle, "loads", lambda data, intact=intact: loads(data) if data in intact else 1 / 0)
        for place in [*range(min(64, len(whole))), *(places.randrange(len(whole)) for _ in range(300))]:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << places.randrange(8)]) + whole[place + 1 :])
            with pytest.raises(kernel_cache.DamagedCode):
                cache._cache_file.load(key)
        path.write_bytes(whole)
    monkeypatch.undo()
    assert cache._cache_file.load(key) is not None


def unprivileged() -> list[str]:
    """What to start a process with, so that the modes of files count for it: root is free to write everywhere."""
    if sys.platform == "win32":
        pytest.skip("folders are not made read-only by their mode on Windows")
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root can write everywhere, and there is no setpriv to take that from it")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    before = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    try:
        for path in before:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)


def test_a_cache_that_cannot_be_written_is_read(warm: tuple[Path, dict[str, Any]]) -> None:
    cache, first = warm
    prefix = unprivileged()
    answer(start(cache))  # whole, whatever other tests did to it
    with read_only(cache):
        assert answer(start(cache, prefix=prefix)) == {**first, "compiled": [], "problem": "it cannot be written"}


def test_without_a_place_for_a_cache_code_is_compiled_in_memory(
    tmp_path: Path, warm: tuple[Path, dict[str, Any]]
) -> None:
    prefix = unprivileged()
    with read_only(tmp_path):
        found = answer(start(tmp_path / "cache", prefix=prefix))
    assert set(found["compiled"]) == ALL
    assert found["problem"] == "Permission denied"
    assert found["result"] == warm[1]["result"]


@pytest.mark.slow
def test_a_read_only_install_trains_and_says_that_nothing_is_kept(tmp_path: Path) -> None:
    """The package, the home and the cache cannot be written; only the folder for the run can."""
    prefix = unprivileged()
    site, home, runs = tmp_path / "site", tmp_path / "home", tmp_path / "runs"
    package = Path(bevia_fast.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, site / "bevia_fast", ignore=ignored)
    shutil.copytree(Path(kernels.__file__).parent, site / "bevia_fast" / "kernels", dirs_exist_ok=True, ignore=ignored)
    home.mkdir()
    runs.mkdir()
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, and the dog sat on the log.\n" * 12)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("BEVIA_FAST_CACHE_DIR", "XDG_CACHE_HOME")}  # fmt: skip
    environment |= {"HOME": str(home), "MPLCONFIGDIR": str(runs)}
    line = f"train --data {text} --ctx 8 --dim 8 --layers 1 --heads 1 --batch 2 --steps 2 --out {runs / 'run'}"
    command = [*prefix, sys.executable, "-c", TRAIN, str(site), *line.split()]
    with read_only(site), read_only(home):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=runs, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert done.stderr == ""
    notes = [line for line in done.stdout.splitlines() if line.startswith("note")]
    assert len(notes) == 1
    assert "compiled kernels cannot be saved for later runs: Permission denied" in notes[0]
    assert (runs / "run" / "model.safetensors").exists()


def test_after_the_warm_up_nothing_is_compiled(tmp_path: Path) -> None:
    """Neither in steps nor when text is written, whatever the options."""
    told: list[tuple[str, int, int]] = []
    for changes in ({}, {"dropout": 0.1, "tie": False}, {"norm": "post", "activation": "relu", "bias": False},
                    {"ctx": 30, "dim": 140, "heads": 5}):  # fmt: skip
        config = tiny_config(tmp_path, model=replace(TINY, **changes), backend="numba", steps=4)
        model = replace(config.model, vocab_size=20)
        assert warm_up(model, get_backend("numba"), lambda *what: told.append(what)) == ""
        before = len(kernel_cache.compiled)
        trainer = Trainer(config, model, get_backend("numba"), np.arange(200, dtype=np.int32) % 20)
        for step in (1, 2):
            trainer.update(step, trainer.backward(step))
        trainer.model.loss(*trainer.batches[0])
        alphabet = Tokenizer("abcdefghijklmnopqrst")
        assert len(list(stream(trainer.model, alphabet, GenerateConfig(run="", length=20)))) == 20
        assert kernel_cache.compiled[before:] == []
    assert all(1 <= number <= total and operation in OPERATIONS for operation, number, total in told)


def test_what_is_compiled_is_told_once_and_counted(tmp_path: Path) -> None:
    """As training does it in a new installation; told here by a process of its own, where everything is new."""
    code = (
        "import json, sys\nfrom bevia_fast.config import ModelConfig\nfrom bevia_fast.kernels import get_backend\n"
        "from bevia_fast.training.compiling import warm_up\ntold = []\n"
        "def tell(*what):\n    told.append(what)\n    if len(told) == 2: print(json.dumps(told)); sys.exit(0)\n"
        "warm_up(ModelConfig(vocab_size=5), get_backend('numba'), tell)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "BEVIA_FAST_CACHE_DIR": str(tmp_path)},
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first[:2] == ["embedding_forward", 1]
    assert second[1:] == [2, first[2]]
    assert 10 < first[2] < len(OPERATIONS)
