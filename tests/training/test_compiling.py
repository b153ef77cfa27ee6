"""Two processes compile the kernels: together all of them, none twice, and neither process outlives the other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from small_runs import TEXT

from bevia_fast.config import ModelConfig, OptimizerName
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend
from bevia_fast.kernels.instruments import Listener
from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache
from bevia_fast.kernels.numba_jit._runtime import threads as kernel_threads
from bevia_fast.training import compiling

with_two_cpus = pytest.mark.skipif(len(kernel_threads.allowed_cpus()) < 2, reason="only one CPU is available")

# This process compiles one function; the second process must start at the other end and compile another.
MEET = """
import json, time
import numpy as np
from bevia_fast.training import compiling
from bevia_fast.config import ModelConfig
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache
with compiling.two_compilers([ModelConfig(vocab_size=5)]):
    get_backend("numba").squared_norm(np.ones(3, np.float32))
    for _ in range(2400):
        if len(list(kernel_cache.FOLDER.rglob("*.nbc"))) > 1:
            break
        time.sleep(0.05)
print(json.dumps(kernel_cache.compiled))
"""

ALL = """
import json
from bevia_fast.training import compiling
from bevia_fast.config import ModelConfig
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache
stop, by_this_process = compiling._stop_second, []
compiling._stop_second = lambda process: (by_this_process.extend(kernel_cache.compiled), stop(process))[1]
compiling.warm_up(ModelConfig(vocab_size=5), get_backend("numba"))
print(json.dumps([by_this_process, kernel_cache.compiled]))
"""


def start(cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Python in a session of its own, as a terminal does: processes that it starts are in the same group."""
    return subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, "BEVIA_FAST_CACHE_DIR": str(cache)}, text=True, cwd=cache,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def answer(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return json.loads(out)


def wait_for(cache: Path, pattern: str) -> None:
    for _ in range(1200):
        if list(cache.rglob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{pattern} does not appear")


def assert_nothing_is_left(process: subprocess.Popen[str], cache: Path) -> None:
    """No process of its group is running, and no file is incomplete."""
    if sys.platform != "win32":
        for _ in range(200):
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the second process is still running")
    assert not list(cache.rglob("*.tmp.*"))


@with_two_cpus
def test_the_second_process_starts_at_the_other_end_and_exits_when_it_is_not_needed(tmp_path: Path) -> None:
    process = start(tmp_path, "-c", MEET)
    first, *others = answer(process)
    assert first == "adamw._squared_norm"
    assert others
    assert set(others) <= {"rows._rows_product", "decode._member", "decode._launch", "sampling._draw"}
    assert_nothing_is_left(process, tmp_path)


@with_two_cpus
@pytest.mark.slow
def test_two_processes_compile_everything_and_nothing_twice(tmp_path: Path) -> None:
    process = start(tmp_path, "-c", ALL)
    by_the_first, by_both = answer(process)
    assert_nothing_is_left(process, tmp_path)
    assert 0 < len(by_the_first) < len(by_both) == len(set(by_both))
    assert len(list(tmp_path.rglob("*.nbc"))) == len(by_both)
    assert answer(start(tmp_path, "-c", ALL)) == [[], []]


@with_two_cpus
@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
@pytest.mark.parametrize(
    ("number", "to_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGINT, False, 130), (signal.SIGTERM, False, -signal.SIGTERM),
     pytest.param(9, False, -9, id="SIGKILL")],
)  # fmt: skip
def test_signals_while_both_processes_compile(tmp_path: Path, number: int, to_group: bool, code: int) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    process = start(tmp_path, "-m", "bevia_fast", "train", "--data", "text.txt", "--ctx", "8", "--out", "run")
    wait_for(tmp_path, "rows._rows_product*.lock")
    (os.killpg if to_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    if sys.version_info >= (3, 14):  # Python warns about Numba's semaphore, which a killed process leaves behind
        warning = r"\S+resource_tracker\.py:\d+: UserWarning: .* leaked semaphore objects .*\n  warnings\.warn\(\n"
        err = re.sub(warning, "", err)
    assert (process.returncode, err) == (code, "")
    assert "compiling the kernels for this CPU" in out
    assert_nothing_is_left(process, tmp_path)
    assert not (tmp_path / "run").exists()


def test_the_report_counts_the_operations_so_far_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def missing_at_the_end(_: object, report: Callable[[str], None], optimizer: str) -> Iterator[None]:
        assert optimizer == "adamw"
        yield
        for name in ("one", "another"):
            report(name)

    monkeypatch.setattr(compiling, "two_compilers", missing_at_the_end)
    reported: list[tuple[str, int, int]] = []
    compiling.warm_up(ModelConfig(vocab_size=5), get_backend("numba"), lambda *said: reported.append(said))
    (name, number, total), again = reported
    assert (name, number) == ("decode_tokens", total)  # the last operation of all
    assert number > 10
    assert again == reported[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_model_that_is_compiled_for_is_tiny_whatever_the_sizes(optimizer: OptimizerName) -> None:
    """With the sizes of the model itself, this would take terabytes."""
    noted = Listener(get_backend("numpy"))
    compiling._use_every_kernel(
        ModelConfig(vocab_size=1 << 16, ctx=1 << 20, dim=1 << 12, layers=1 << 10), cast(Backend, noted), optimizer
    )
    assert (optimizer == "muon") == any(operation == "muon" for operation, _, _ in noted.called)
    sizes = [each.size for _, arguments, _ in noted.called for each in arguments if isinstance(each, np.ndarray)]
    assert max(sizes) <= 16 * 1024


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_function_that_is_compiled_elsewhere_is_called_again(
    monkeypatch: pytest.MonkeyPatch, optimizer: OptimizerName
) -> None:
    """Only then does the second process end, for what the other one has begun may fail."""
    numpy, calls = get_backend("numpy"), Counter[str]()

    def busy_at_first(operation: str) -> Callable[..., None]:
        def kernel(*_: object, **__: object) -> None:
            calls[operation] += 1
            if calls[operation] == 1:
                raise kernel_cache.CompiledElsewhere

        return kernel

    backend = SimpleNamespace(name="numba", **{operation: busy_at_first(operation) for operation in OPERATIONS})
    monkeypatch.setattr(compiling, "get_backend", lambda name: numpy if name == "numpy" else backend)
    monkeypatch.setattr(kernel_cache, "POLL", 0)
    monkeypatch.setattr(kernel_threads, "set_threads", lambda count: None)
    noted = Listener(numpy)
    compiling._use_every_kernel(ModelConfig(vocab_size=5), cast(Backend, noted), optimizer)
    compiling._compile([ModelConfig(vocab_size=5)], optimizer)
    wanted = Counter(operation for operation, _, _ in noted.called)
    assert calls == {operation: count + 1 for operation, count in wanted.items()}


def test_no_second_process_is_started_where_it_would_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_to_be_called(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(subprocess, "Popen", not_to_be_called)
    for owner, name, value in ((kernel_threads, "allowed_cpus", lambda: {0}), (kernel_cache, "writable", lambda: False),
                               (sys, "executable", ""), (sys, "frozen", True)):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value, raising=False)
            assert compiling._start_second([]) is None


def test_compiling_works_without_a_second_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert compiling._start_second([ModelConfig()]) is None


def test_a_second_process_that_cannot_share_the_folder_does_nothing() -> None:
    """For example because it finds another version of the package."""
    models = json.dumps([asdict(ModelConfig(vocab_size=5))])
    done = subprocess.run([sys.executable, "-P", "-m", "bevia_fast.training.compiling", "elsewhere", models],
                          stdin=subprocess.PIPE, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_second_process_that_does_not_exit_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "PATIENCE", 0.2)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)  # fmt: skip
    assert compiling._stop_second(process) == []
    assert process.returncode != 0
