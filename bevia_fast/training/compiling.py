"""Compile all kernels that training needs before it starts, with two processes where there are two CPUs.

Within one process, Numba compiles one function after another: most of it is Python code, and the rest holds a lock. So
if a kernel is missing on disk, a second process starts. Both make the calls of a tiny training step, this process from
the first call on, the second from the last call back. Whichever reaches a function first compiles it, and the other
finds it on disk. They meet somewhere in the middle.

    python -P -m bevia_fast.training.compiling FOLDER MODELS OPTIMIZER    the second process: a cache folder, models
                                                                          in JSON, the name of an optimizer

The second process prints nothing while it works. When its standard input closes, because it is no longer needed or its
parent has died, it writes the names of the functions that it compiled to standard output and exits; DAMAGED marks those
whose code on disk was damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import cast

import numpy as np

from ..config import GenerateConfig, ModelConfig, OptimizerName, TrainConfig
from ..data.corpus import DRAWN_AHEAD
from ..data.tokenizer import Tokenizer
from ..kernels import get_backend
from ..kernels.contract import Backend
from ..kernels.instruments import Listener
from ..model.writing import stream
from .step import Trainer

PATIENCE = 2.0  # seconds that the second process may take to exit
DAMAGED = "!"  # marks a function whose code on disk was damaged


def warm_up(
    config: ModelConfig, backend: Backend, report: Callable[[str, int, int], None] | None = None,
    optimizer: OptimizerName = "adamw",
) -> str:  # fmt: skip
    """Call every kernel that training needs once, on a small model, so that all of them are compiled.

    `report` is called with the name, the number, and the total number of operations, for each one that is not on disk.
    Returns why the compiled code cannot be saved for later processes, in a few words; an empty string if it can be, or
    if nothing was compiled.
    """
    if backend.name != "numba":
        _use_every_kernel(config, backend, optimizer)
        return ""
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    noted, all_operations = Listener(backend), Listener(get_backend("numpy"))

    def compiling(_: str) -> None:
        if report is not None:
            if not all_operations.called:
                _use_every_kernel(config, cast(Backend, all_operations), optimizer)
            report(noted.operations[-1], len(noted.operations), len(all_operations.operations))

    before = len(kernel_cache.compiled)
    with two_compilers([config], compiling, optimizer):
        _use_every_kernel(config, cast(Backend, noted), optimizer)
    return kernel_cache.described() if len(kernel_cache.compiled) > before else ""


def _use_every_kernel(config: ModelConfig, backend: Backend, optimizer: OptimizerName) -> None:
    """Make all calls of a training run, on a tiny model: compiled code depends on dtypes and options, not on sizes."""
    small = replace(
        config, layers=1, heads=1, ctx=min(config.ctx, 8), dim=min(config.dim, 16),
        vocab_size=min(config.vocab_size, 16),
    )  # fmt: skip
    # A short text would have many epochs in the first block of windows, each with an order of its own to compute.
    tokens = np.zeros(DRAWN_AHEAD * small.ctx, np.int32)
    trainer = Trainer(TrainConfig(batch=2, steps=1, optimizer=optimizer), small, backend, tokens)
    trainer.update(1, trainer.backward(1))
    trainer.model.loss(*trainer.batches[0])
    # two characters: the first is computed from the prompt, the second with the cache of keys and values
    list(stream(trainer.model, Tokenizer(_placeholder(small.vocab_size)), GenerateConfig(run="", length=2)))


def _placeholder(size: int) -> str:
    """Return an alphabet of this size."""
    return "".join(map(chr, range(size)))


# ------------------------------------------------------------------------------------------------- the second process


@contextlib.contextmanager
def two_compilers(
    configs: list[ModelConfig], report: Callable[[str], None] = lambda name: None, optimizer: OptimizerName = "adamw"
) -> Iterator[None]:
    """Inside this context, a second process helps to compile the kernels for training these models.

    It starts with the first function that is not on disk; `report` is called as in the kernel cache's `telling`. This
    process compiles alone if there is no second CPU, if no folder can be written by both, or if the second process does
    not start.
    """
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    second: list[subprocess.Popen[bytes] | None] = []

    def missing(name: str) -> None:
        if not second:
            second.append(_start_second(configs, optimizer))
        report(name)

    try:
        with kernel_cache.telling(missing):
            yield
    finally:
        if second and second[0] is not None:
            names = _stop_second(second[0])
            kernel_cache.compiled += [name.removesuffix(DAMAGED) for name in names]
            kernel_cache.damaged += [name.removesuffix(DAMAGED) for name in names if name.endswith(DAMAGED)]


def _start_second(configs: list[ModelConfig], optimizer: OptimizerName = "adamw") -> subprocess.Popen[bytes] | None:
    """Start the second process; return None where it would not help or does not start."""
    from ..kernels.numba_jit._runtime import cache as kernel_cache
    from ..kernels.numba_jit._runtime import threads as kernel_threads

    possible = sys.executable and not hasattr(sys, "frozen")  # the executable of a frozen program is not Python
    if not (possible and kernel_cache.writable() and len(kernel_threads.allowed_cpus()) > 1):
        return None
    models = json.dumps([asdict(config) for config in configs])
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(kernel_cache.FOLDER), models, optimizer],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return None


def _stop_second(process: subprocess.Popen[bytes]) -> list[str]:
    """Stop the second process and return the names of the functions that it compiled, as it wrote them."""
    try:
        names = process.communicate(timeout=PATIENCE)[0]  # this closes its standard input
    except subprocess.TimeoutExpired:
        process.kill()
        names = process.communicate()[0]
    return names.decode().split()


def main(folder: str, models: str, optimizer: OptimizerName = "adamw") -> None:
    """Run as the second process."""
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    # a terminal sends these to both processes; the parent decides what to do
    for name in ("SIGINT", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def end() -> None:
        with kernel_cache.saving:  # never released: no file may be half written at the exit
            try:
                damaged = kernel_cache.damaged
                os.write(1, "\n".join(name + DAMAGED * (name in damaged) for name in kernel_cache.compiled).encode())
            finally:
                os._exit(0)

    def watch() -> None:
        sys.stdin.buffer.read()
        end()

    threading.Thread(target=watch, daemon=True).start()
    try:
        if str(kernel_cache.FOLDER) == folder:  # otherwise the parent could not use the code
            kernel_cache.waiting = False
            _compile([ModelConfig(**model) for model in json.loads(models)], optimizer)
    finally:
        end()


def _compile(configs: list[ModelConfig], optimizer: OptimizerName) -> None:
    """Compile everything that training these models needs, from the last call to the first.

    Functions that another process is compiling are tried again later.
    """
    from ..kernels.numba_jit._runtime import cache as kernel_cache
    from ..kernels.numba_jit._runtime import threads as kernel_threads

    noted = Listener(get_backend("numpy"))
    for config in configs:
        _use_every_kernel(config, cast(Backend, noted), optimizer)
    backend = get_backend("numba")
    kernel_threads.set_threads(1)
    left = noted.called[::-1]
    while left:
        calls, left = left, []
        for name, arguments, options in calls:
            try:
                getattr(backend, name)(*arguments, **options)
            except kernel_cache.CompiledElsewhere:
                left.append((name, arguments, options))
        time.sleep(kernel_cache.POLL if left else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the last is the name of an optimizer
