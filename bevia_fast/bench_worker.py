"""A competitor: a process of its own that prepares one thing and times it when it is told to.

Its own process, for then its peak memory is its own, and its threads do not spin beside another's. Requests come as
lines of JSON on standard input, answers leave as lines of JSON on standard output; the parent is `bench_client`.

    {"do": "load"}         import what is needed
    {"do": "step", ...}    build a model, make the first step, write the gradients of a small batch to a file
    {"do": "kernel", ...}  build the arguments of a kernel, make the first call
    {"do": "agree", ...}   both backends on a kernel's arguments: do they agree?
    {"do": "warm"}         call until the times are stable
    {"do": "turn"}         the samples of one turn, in nanoseconds
    {"do": "peak", ...}    GFLOP/s that the vector units reach; {"do": "triad", ...} the same for memory, in GB/s
    {"do": "context", ...} build a model, make steps, and look at time and memory
    {"do": "facts"}        versions and peak memory

With a peer's interpreter only the standard library, NumPy and the peer are there; see `bench_torch`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .timing import Rules, Stopwatch

LEARNING_RATE = 1e-4  # small: the same batch comes thousands of times
CHECK_TOKENS, CHECK_CTX = 4096, 512  # of the batch on which competitors are held against each other, about at most


@dataclass
class Step:
    """A training step of some competitor."""

    run: Callable[[], None]
    check: Callable[[], dict[str, Any]]  # loss and gradients of a small batch, with the initial weights, by name


def batches(ctx: int, batch: int, vocab: int) -> tuple[Any, Any]:
    """Random tokens and targets, as int32 (2, B, T): those that are timed, and those that are checked, which are as
    many where the reference can do that in reasonable time, and fewer where it cannot."""
    import numpy as np

    generator = np.random.default_rng(0)
    small = batch * ctx <= CHECK_TOKENS and ctx <= 2 * CHECK_CTX
    shape = (2, batch, ctx) if small else (2, min(batch, 2), min(ctx, CHECK_CTX))
    timed = generator.integers(0, vocab, (2, batch, ctx), dtype=np.int32)
    return timed, generator.integers(0, vocab, shape, dtype=np.int32)


class Worker:
    """Answers requests."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.watch: Stopwatch | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self.load, "step": self.step, "kernel": self.kernel, "agree": self.agree, "warm": self.warm,
            "turn": self.turn, "peak": self.peak, "triad": self.triad, "facts": self.facts, "context": self.context,
        }  # fmt: skip
        return answers[request.pop("do")](**request)

    def load(self) -> dict[str, Any]:
        """Import what is needed: an error here is one of installation."""
        if self.name.startswith("torch"):
            from . import bench_torch  # noqa: F401  (it imports PyTorch)

            return {}
        self._backend()
        return {}

    def step(
        self, size: dict[str, Any], rules: dict[str, Any], weights: str, gradients: str, timed: bool
    ) -> dict[str, Any]:
        """`weights` is a file that the parent wrote, `gradients` one that is written here; if only these are wanted,
        not `timed`, no step of the whole batch is made."""
        import numpy as np

        began = time.perf_counter()
        self.watch = None  # let the arrays of another size go
        with np.load(weights) as archive:
            arrays = dict(archive)
        if self.name.startswith("torch"):
            from .bench_torch import torch_step

            step = torch_step(size, arrays, self.threads, self.name.removeprefix("torch-"))
        else:
            step = self._own_step(size, arrays)
        built = time.perf_counter() - began
        if timed:
            self.watch = Stopwatch(step.run, Rules(**rules))
        np.savez(gradients, **step.check())
        return {"first_step_s": self.watch.first_s if self.watch else 0.0, "build_s": built}

    def context(
        self, small: dict[str, Any], large: dict[str, Any], recompute: bool, seconds: float
    ) -> dict[str, Any]:
        """Seconds of steps of the large model, and the memory before it and at most; each is a size and a file of
        weights. A step of the small one comes first, so that all is loaded. The first step does not count."""
        self._made(small, recompute).run()
        gc.collect()
        forget_peak_rss()
        bare = peak_rss_bytes()
        step, times = self._made(large, recompute), list[float]()
        step.run()
        while not times or sum(times) < seconds:
            began = time.perf_counter()
            step.run()
            times.append(time.perf_counter() - began)
        return {"seconds": times, "bare": bare, "peak": peak_rss_bytes()}

    def _made(self, model: dict[str, Any], recompute: bool) -> Step:
        import numpy as np

        with np.load(model["weights"]) as archive:
            arrays = dict(archive)
        if self.name.startswith("torch"):
            from .bench_torch import torch_step

            step = torch_step(model["size"], arrays, self.threads, self.name.removeprefix("torch-"))
        else:
            step = self._own_step(model["size"], arrays, recompute, checked=False)
        arrays.clear()  # nothing will be checked: no copy of the weights is to be counted
        return step

    def _backend(self) -> Any:
        from .run import open_backend

        return open_backend("numpy" if self.name == "numpy" else "numba", self.threads)

    def _own_step(
        self, size: dict[str, Any], arrays: dict[str, Any], recompute: bool = False, checked: bool = True
    ) -> Step:
        from .bench_step import StepSize, TrainingStep

        training = TrainingStep(StepSize(**size), self._backend(), arrays, recompute=recompute)
        if not checked:
            training.initial = training.initial[:0].copy()
        return Step(training.run, training.check)

    def kernel(
        self, operation: str, dims: dict[str, int], given: list[str], options: dict[str, Any], dtype: str,
        rules: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        from .comparison import Case, make_arguments

        self.watch = None
        forget_peak_rss()
        function = getattr(self._backend(), operation)
        arguments = make_arguments(Case(operation, dims, tuple(given), options), dtype)
        self.watch = Stopwatch(lambda: function(**arguments), Rules(**rules))
        return {"first_call_s": self.watch.first_s}

    def agree(
        self, operation: str, dims: dict[str, int], given: list[str], options: dict[str, Any], dtype: str
    ) -> dict[str, Any]:
        """Both backends on the same arguments; see `comparison`."""
        from .comparison import Case, compare

        found = compare(Case(operation, dims, tuple(given), options), dtype)
        wrong = [str(result) for result in found if not result.ok]
        return {"ok": not wrong, "worst": wrong[0] if wrong else ""}

    def _ready(self) -> Stopwatch:
        if self.watch is None:
            raise RuntimeError("there is nothing to be timed yet")
        return self.watch

    def warm(self) -> dict[str, Any]:
        return {"calls": self._ready().warm_up()}

    def turn(self) -> dict[str, Any]:
        return {"samples": self._ready().turn()}

    def peak(self, dtype: str, repeats: int) -> dict[str, Any]:
        self._backend()  # refuses more threads than there are
        from .kernels.numba_jit._simd.probe import peak_flops

        return {"gflops": peak_flops(self.threads, dtype, repeats) / 1e9}

    def triad(self, nbytes: int, dtype: str) -> dict[str, Any]:
        self._backend()
        from .kernels.numba_jit._simd.probe import triad_bandwidth

        return {"gbytes_per_s": triad_bandwidth(self.threads, nbytes, dtype) / 1e9}

    def facts(self) -> dict[str, Any]:
        versions = {"python": sys.version.split()[0]}
        for module in ("numpy", "numba", "llvmlite", "torch"):
            if module in sys.modules:
                versions[module] = str(sys.modules[module].__version__)
        return {"versions": versions, "peak_rss_mb": peak_rss_bytes() / 1e6}


def peak_rss_bytes() -> float:
    """The most memory that this process has had in RAM; 0 where the system does not say.

    Not `ru_maxrss` on Linux: that one begins with what the parent had when it started this process.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS: in bytes


def forget_peak_rss() -> None:
    """So that what is asked for next began now; where the system cannot do that, it is the most since the start."""
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as request:
        request.write("5")


def main(arguments: list[str] | None = None) -> None:
    """Answer requests until there are no more. What libraries print goes to standard error."""
    name, threads = sys.argv[1:] if arguments is None else arguments
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(name, int(threads))
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except KeyboardInterrupt:
            return
        except Exception as error:
            traceback.print_exc()
            answer = {"error": str(error) or type(error).__name__, "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
