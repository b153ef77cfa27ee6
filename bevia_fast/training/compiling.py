"""Compiling everything that training needs before it starts, with two processes if there are two CPUs.

Within one process, Numba compiles one function after another: most of the compiler is Python, and the rest holds a
lock. So if a function is missing, a second process is started. Both make the calls of a tiny training step, this
process from its start and the other from its end. Whichever reaches a function first compiles it; the other finds it
on disk.

    python -P -m bevia_fast.training.compiling FOLDER MODELS    the second process: a cache folder, a list of models

The second process is silent. When its standard input ends, because it is no longer needed or its parent is gone, it
prints the names of the functions that it compiled and exits.
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

from ..config import GenerateConfig, ModelConfig, TrainConfig
from ..data.corpus import DRAWN_AHEAD
from ..data.tokenizer import Tokenizer
from ..kernels import get_backend
from ..kernels.contract import Backend
from ..kernels.instruments import Listener
from ..model.writing import stream
from .step import Trainer

PATIENCE = 2.0  # seconds that the second process may take to exit


def warm_up(config: ModelConfig, backend: Backend, tell: Callable[[str, int, int], None] | None = None) -> str:
    """Call every kernel that training needs once, on a small model, so that they are all compiled.

    `tell` is called for each operation that must be compiled, with its name, its number, and their total. Returns why
    the compiled code cannot be cached, in a few words, or an empty string.
    """
    if backend.name != "numba":
        _use_every_kernel(config, backend)
        return ""
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    noted, all_operations = Listener(backend), Listener(get_backend("numpy"))

    def compiling(_: str) -> None:
        if tell is not None:
            if not all_operations.called:
                _use_every_kernel(config, cast(Backend, all_operations))
            tell(noted.operations[-1], len(noted.operations), len(all_operations.operations))

    before = len(kernel_cache.compiled)
    with two_compilers([config], compiling):
        _use_every_kernel(config, cast(Backend, noted))
    return kernel_cache.problem() if len(kernel_cache.compiled) > before else ""


def _use_every_kernel(config: ModelConfig, backend: Backend) -> None:
    """Call every kernel once; compiled code depends on dtypes and options but not on sizes."""
    small = replace(
        config, layers=1, heads=1, ctx=min(config.ctx, 8), dim=min(config.dim, 16),
        vocab_size=min(config.vocab_size, 16),
    )  # fmt: skip
    tokens = np.zeros(DRAWN_AHEAD * small.ctx, np.int32)  # many windows: drawing their order by epochs is slow
    trainer = Trainer(TrainConfig(batch=2, steps=1), small, backend, tokens)
    trainer.update(1, trainer.backward(1))
    trainer.model.loss(*trainer.batches[0])
    # the first character reads the prompt, the second the cache
    list(stream(trainer.model, Tokenizer(_placeholder(small.vocab_size)), GenerateConfig(run="", length=2)))


def _placeholder(size: int) -> str:
    """Return an alphabet of this size."""
    return "".join(map(chr, range(size)))


# ------------------------------------------------------------------------------------------------- the second process


@contextlib.contextmanager
def two_compilers(configs: list[ModelConfig], tell: Callable[[str], None] = lambda name: None) -> Iterator[None]:
    """Inside this context, a second process helps to compile functions for training models like these.

    It starts when the first function is missing. `tell` is called as in `kernels.numba_jit._runtime.cache.telling`.
    This process compiles alone if there is no second CPU, if the cache folder is not writable, or if the second process
    does not start.
    """
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    second: list[subprocess.Popen[bytes] | None] = []

    def missing(name: str) -> None:
        if not second:
            second.append(_started(configs))
        tell(name)

    try:
        with kernel_cache.telling(missing):
            yield
    finally:
        if second and second[0] is not None:
            kernel_cache.compiled += _ended(second[0])


def _started(configs: list[ModelConfig]) -> subprocess.Popen[bytes] | None:
    from ..kernels.numba_jit._runtime import cache as kernel_cache
    from ..kernels.numba_jit._runtime import threads as kernel_threads

    possible = sys.executable and not hasattr(sys, "frozen")  # a frozen program is not an interpreter
    if not (possible and kernel_cache.writable() and len(kernel_threads.allowed_cpus()) > 1):
        return None
    models = json.dumps([asdict(config) for config in configs])
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(kernel_cache.FOLDER), models],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return None


def _ended(process: subprocess.Popen[bytes]) -> list[str]:
    """End the second process and return the names of the functions that it compiled."""
    try:
        names = process.communicate(timeout=PATIENCE)[0]  # closes its standard input
    except subprocess.TimeoutExpired:
        process.kill()
        names = process.communicate()[0]
    return names.decode().split()


def main(folder: str, models: str) -> None:
    """Run the second process."""
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    for name in ("SIGINT", "SIGHUP"):  # sent to all processes of a terminal; the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def end() -> None:
        with kernel_cache.saving:  # never released
            try:
                os.write(1, "\n".join(kernel_cache.compiled).encode())
            finally:
                os._exit(0)

    def watch() -> None:
        sys.stdin.buffer.read()
        end()

    threading.Thread(target=watch, daemon=True).start()
    try:
        if str(kernel_cache.FOLDER) == folder:  # otherwise the parent could not use the code
            kernel_cache.waiting = False
            _compile([ModelConfig(**model) for model in json.loads(models)])
    finally:
        end()


def _compile(configs: list[ModelConfig]) -> None:
    """Compile everything that training these models needs, from the end, alternating with the other process."""
    from ..kernels.numba_jit._runtime import cache as kernel_cache
    from ..kernels.numba_jit._runtime import threads as kernel_threads

    noted = Listener(get_backend("numpy"))
    for config in configs:
        _use_every_kernel(config, cast(Backend, noted))
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
    main(*sys.argv[1:])
