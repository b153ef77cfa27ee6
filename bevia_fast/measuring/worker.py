"""A competitor: a process of its own that prepares one thing and times it when it is told to.

Its own process, for then its peak memory is its own, and its threads do not spin beside another's. Requests come as
lines of JSON on standard input, answers leave as lines of JSON on standard output; the parent is `competitor`.

    {"do": "load"}         import what is needed
    {"do": "step", ...}    build a model, make the first step, write the gradients of a batch to a file
    {"do": "kernel", ...}  build the arguments of a kernel, make the first call
    {"do": "agree", ...}   both backends on a kernel's arguments: do they agree?
    {"do": "warm"}         call until the times are stable
    {"do": "turn"}         the samples of one turn, in nanoseconds
    {"do": "peak", ...}    GFLOP/s that the vector units reach, and the seconds that a parallel loop over nothing takes
    {"do": "triad", ...}   GB/s that memory gives
    {"do": "context", ...} build a model, make steps, and look at time and memory
    {"do": "facts"}        versions and peak memory

With a peer's interpreter only the standard library, NumPy and the peer are there; see `torch_peer`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from .shared_step import Step
from .stopwatch import Rules, Stopwatch


class Worker:
    """Answers requests."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.watch: Stopwatch | None = None
        self.peak_rss = 0.0  # in bytes, where it was looked at before the end

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self.load, "step": self.step, "kernel": self.kernel, "agree": self.agree, "warm": self.warm,
            "turn": self.turn, "peak": self.peak, "triad": self.triad, "facts": self.facts, "context": self.context,
        }  # fmt: skip
        return answers[request.pop("do")](**request)

    def load(self) -> dict[str, Any]:
        """Import what is needed: an error here is one of installation."""
        if self.name.startswith("torch"):
            from . import torch_peer  # noqa: F401  (it imports PyTorch)

            return {}
        from ..runs import trained  # noqa: F401  (what a training run has loaded; made later, it would lie behind
        from . import training_step  # noqa: F401  (arrays that are freed, and the C library could not return them)

        self._backend()
        return {}

    def step(
        self, size: dict[str, Any], weights: str, gradients: str, checked: list[int], rules: dict[str, Any] | None,
        recompute: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """`weights` is a file that the parent wrote, `gradients` one that is written here, of a batch of `checked`
        tokens; if only these are wanted, and there are no rules, no step of the whole batch is made."""
        import numpy as np

        began = time.perf_counter()
        self.watch = None  # let the arrays of another size go
        step = self._made(size, weights, recompute)
        built = time.perf_counter() - began
        if rules is not None:
            with self._compiling(size):
                self.watch = Stopwatch(step.run, Rules(**rules))
        np.savez(gradients, **step.check((checked[0], checked[1])))
        only_stepping(step)
        return {"first_step_s": built + (self.watch.first_s if self.watch else 0.0)}

    def _compiling(self, size: dict[str, Any]) -> AbstractContextManager[None]:
        """For the first step: what is not compiled yet, two processes compile."""
        if self.name != "numba":
            return nullcontext()
        from ..training.compiling import two_compilers
        from .training_step import StepSize

        return two_compilers([StepSize(**size).model])

    def context(
        self, small: dict[str, Any], large: dict[str, Any], recompute: bool, rules: dict[str, Any]
    ) -> dict[str, Any]:
        """Samples of steps of the large model in nanoseconds, and the memory before it and at most, in bytes; each is
        a size and a file of weights. A step of the small one comes first, so that all is loaded."""
        self._made(**small, recompute=recompute).run()
        gc.collect()
        forget_peak_rss()
        bare = peak_rss_bytes()
        began = time.perf_counter()
        step = self._made(**large, recompute=recompute)
        only_stepping(step)
        built = time.perf_counter() - began
        watch = Stopwatch(step.run, Rules(**rules))
        samples = watch.alone()
        return {"samples": samples, "first_step_s": built + watch.first_s, "bare": bare, "peak": peak_rss_bytes()}

    def _made(self, size: dict[str, Any], weights: str, recompute: bool) -> Step:
        """A step on the weights in a file."""
        import numpy as np

        with np.load(weights) as archive:
            arrays = dict(archive)
        if self.name.startswith("torch"):
            from .torch_peer import torch_step

            return torch_step(size, arrays, self.threads, self.name.removeprefix("torch-"))
        from .training_step import StepSize, TrainingStep

        training = TrainingStep(StepSize(**size), self._backend(), arrays, recompute=recompute)
        return Step(training.run, lambda shape: training.check(arrays, shape), arrays)

    def _backend(self) -> Any:
        from ..backends import open_backend

        return open_backend("numpy" if self.name == "numpy" else "numba", self.threads)

    def kernel(
        self, operation: str, dims: dict[str, int], given: list[str], options: dict[str, Any], dtype: str,
        rules: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        from ..agreement.comparison import Case, make_arguments

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
        from ..agreement.comparison import Case, compare

        found = compare(Case(operation, dims, tuple(given), options), dtype)
        wrong = [str(result) for result in found if not result.ok]
        return {"ok": not wrong, "worst": wrong[0] if wrong else ""}

    def _ready(self) -> Stopwatch:
        if self.watch is None:
            raise RuntimeError("there is nothing to be timed yet")
        return self.watch

    def warm(self) -> dict[str, Any]:
        watch = self._ready()
        calls = watch.warm_up()
        self.peak_rss = peak_rss_bytes() if watch.rules.cold else 0.0  # before the memory that empties the caches
        return {"calls": calls}

    def turn(self) -> dict[str, Any]:
        return {"samples": self._ready().turn()}

    def peak(self, dtype: str, repeats: int) -> dict[str, Any]:
        self._backend()  # refuses more threads than there are
        from ..kernels.numba_jit._simd.probe import loop_seconds, peak_flops

        return {"gflops": peak_flops(self.threads, dtype, repeats) / 1e9, "loop_s": loop_seconds(self.threads)}

    def triad(self, nbytes: int, dtype: str) -> dict[str, Any]:
        self._backend()
        from ..kernels.numba_jit._simd.probe import triad_bandwidth

        return {"gbytes_per_s": triad_bandwidth(self.threads, nbytes, dtype) / 1e9}

    def facts(self) -> dict[str, Any]:
        versions = {"python": sys.version.split()[0]}
        for module in ("numpy", "numba", "llvmlite", "torch"):
            if module in sys.modules:
                versions[module] = str(sys.modules[module].__version__)
        return {"versions": versions, "peak_rss_mb": (self.peak_rss or peak_rss_bytes()) / 1e6}


def only_stepping(step: Step) -> None:
    """Nothing is checked any more: let go what is not needed to step, and let the peak of memory begin from there."""
    step.weights.clear()
    gc.collect()
    forget_peak_rss()


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
    """So that what is asked for next began now; where the system cannot do that, it is the most since the start.

    Memory that was let go, such as that of loaded weights, counts as long as the C library keeps it, and it does where
    anything in use lies behind it: so it is asked to give back what it can.
    """
    with suppress(OSError, AttributeError, TypeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)
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
