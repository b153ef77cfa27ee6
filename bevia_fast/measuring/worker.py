"""The process of a competitor: it prepares one thing and times it on request.

Each competitor has its own process, so that its peak memory can be measured and its threads do not spin while others
are timed. Requests arrive as lines of JSON on standard input, answers leave as lines of JSON on standard output. The
other side is `competitor`.

    {"do": "load"}         import what is needed
    {"do": "step", ...}    build a model, run the first step, write the gradients of a batch to a file
    {"do": "kernel", ...}  build the arguments of a kernel, make the first call
    {"do": "agree", ...}   compare both backends on the arguments of a kernel
    {"do": "warm"}         call until the times are stable
    {"do": "turn"}         return the samples of one turn, in nanoseconds
    {"do": "peak", ...}    measure the GFLOP/s of the vector units, and the seconds of an empty parallel loop
    {"do": "triad", ...}   measure the GB/s of memory
    {"do": "context", ...} build a model, run steps, and measure time and memory
    {"do": "train", ...}   let a peer begin a training run
    {"do": "advance", ...} take steps of it, write the weights to a file, and return the seconds of the steps
    {"do": "facts"}        return versions and peak memory

The interpreter of a peer has only the standard library, NumPy and the peer; see `torch_peer`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from ..naming import on_the_command_line
from .shared_step import Step
from .stopwatch import Rules, Stopwatch


class Worker:
    """Answers requests, each with the method of the same name."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.watch: Stopwatch | None = None
        self.training: Any = None
        self.peak_rss = 0.0  # in bytes; 0 if it is to be read at the end

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request, from which "do" is removed."""
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self.load, "step": self.step, "kernel": self.kernel, "agree": self.agree, "warm": self.warm,
            "turn": self.turn, "peak": self.peak, "triad": self.triad, "facts": self.facts, "context": self.context,
            "train": self.train, "advance": self.advance,
        }  # fmt: skip
        return answers[request.pop("do")](**request)

    def load(self) -> dict[str, Any]:
        """Import what is needed. An error here means that something is not installed."""
        if self.name.startswith("torch"):
            from . import torch_peer  # noqa: F401  (it imports PyTorch)

            return {}
        from ..runs import trained  # noqa: F401  (all that a training run loads: loaded later, it would lie in memory
        from . import training_step  # noqa: F401  (behind freed arrays, which the C library then could not release)

        for late in ("numpy.ma", "encodings.ascii", "encodings.cp437"):  # so would these, of np.unique and np.savez
            importlib.import_module(late)
        self._backend()
        return {}

    def step(
        self, size: dict[str, Any], weights: str, gradients: str, checked: list[int], rules: dict[str, Any] | None,
        recompute: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """Build a model with the weights in the file `weights` and run the first step. Then write the gradients of a
        batch of shape `checked` to the file `gradients`. Without `rules`, only compute the gradients."""
        import numpy as np

        began = time.perf_counter()
        self.watch = None  # free the arrays of an earlier size
        step = self._build(size, weights, recompute)
        built = time.perf_counter() - began
        if rules is not None:
            with self._compiling(size):
                self.watch = Stopwatch(step.run, Rules(**rules))
        np.savez(gradients, **step.check((checked[0], checked[1])))
        forget_checks(step)
        return {"first_step_s": built + (self.watch.first_s if self.watch else 0.0)}

    def _compiling(self, size: dict[str, Any]) -> AbstractContextManager[None]:
        """For the first step: let two processes compile the kernels that are not in the cache yet."""
        if self.name != "numba":
            return nullcontext()
        from ..training.compiling import two_compilers
        from .training_step import StepSize

        return two_compilers([StepSize(**size).model], optimizer=StepSize(**size).optimizer)

    def context(
        self, small: dict[str, Any], large: dict[str, Any], recompute: bool, rules: dict[str, Any]
    ) -> dict[str, Any]:
        """Time steps of the large model, and measure the memory before it is built and at the peak, in bytes.

        `small` and `large` each hold a size and a file of weights. A step of the small model runs first, so that
        everything is loaded.
        """
        self._build(**small, recompute=recompute).run()
        gc.collect()
        reset_peak_rss()
        bare = peak_rss_bytes()
        began = time.perf_counter()
        step = self._build(**large, recompute=recompute)
        forget_checks(step)
        built = time.perf_counter() - began
        watch = Stopwatch(step.run, Rules(**rules))
        samples = watch.alone()
        return {"samples": samples, "first_step_s": built + watch.first_s, "bare": bare, "peak": peak_rss_bytes()}

    def train(self, size: dict[str, Any], weights: str, data: str, rates: dict[str, float]) -> dict[str, Any]:
        """Begin a run in PyTorch, with the weights and the data of two files."""
        import numpy as np

        from .torch_training import TorchTraining

        with np.load(weights) as first, np.load(data) as second:
            how = (self.threads, self.name.removeprefix("torch-"))
            self.training = TorchTraining(size, dict(first), dict(second), rates, how)
        return {}

    def advance(self, first: int, rates: list[float], weights: str) -> dict[str, Any]:
        """Take a step for each learning rate, from number `first` on, and write the weights to a file."""
        import numpy as np

        seconds, finite = self.training.advance(first, rates)
        np.savez(weights, **self.training.arrays())
        return {"seconds": seconds, "finite": finite}

    def _build(self, size: dict[str, Any], weights: str, recompute: bool) -> Step:
        """Return a training step with the weights in a file."""
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
        rules: dict[str, Any], own: dict[str, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Build the arguments of a kernel and make the first call. `own`: the fields of an `OwnKernel`."""
        from ..agreement.comparison import Case, make_arguments

        options = received(options)
        self.watch = None
        reset_peak_rss()
        function = self._own(own) if own else getattr(self._backend(), operation)
        arguments = make_arguments(Case(operation, dims, tuple(given), options), dtype)
        self.watch = Stopwatch(lambda: function(**arguments), Rules(**rules))
        return {"first_call_s": self.watch.first_s}

    def _own(self, own: dict[str, str]) -> Callable[..., Any]:
        """Return the user's kernel. Numba has the threads of this process, whether the kernel uses it or not."""
        from .own_kernel import OwnKernel

        self._backend()
        return OwnKernel(**own).load()

    def agree(
        self, operation: str, dims: dict[str, int], given: list[str], options: dict[str, Any], dtype: str,
        own: dict[str, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Compare both backends, or the user's kernel with NumPy's, on the same arguments."""
        from types import SimpleNamespace

        from ..agreement.comparison import Case, compare

        options = received(options)
        tried: Any = SimpleNamespace(**{operation: self._own(own)}) if own else "numba"
        found = compare(Case(operation, dims, tuple(given), options), dtype, tried)
        wrong = [str(result) for result in found if not result.ok]
        return {"ok": not wrong, "worst": wrong[0] if wrong else ""}

    def _prepared(self) -> Stopwatch:
        if self.watch is None:
            raise RuntimeError("there is nothing to time yet; ask for a step or a kernel first")
        return self.watch

    def warm(self) -> dict[str, Any]:
        """Warm up; return the number of calls."""
        watch = self._prepared()
        calls = watch.warm_up()
        self.peak_rss = peak_rss_bytes() if watch.rules.cold else 0.0  # before allocating what empties the caches
        return {"calls": calls}

    def turn(self) -> dict[str, Any]:
        """Run one turn; return its samples in nanoseconds."""
        return {"samples": self._prepared().turn()}

    def peak(self, dtype: str, repeats: int) -> dict[str, Any]:
        """Measure the peak of the vector units in GFLOP/s, and the seconds of an empty parallel loop."""
        self._backend()  # refuses more threads than the machine has
        from ..kernels.numba_jit._simd.probe import loop_seconds, peak_flops

        return {"gflops": peak_flops(self.threads, dtype, repeats) / 1e9, "loop_s": loop_seconds(self.threads)}

    def triad(self, nbytes: int, dtype: str) -> dict[str, Any]:
        """Measure the bandwidth of a triad over `nbytes` in GB/s."""
        self._backend()
        from ..kernels.numba_jit._simd.probe import triad_bandwidth

        return {"gbytes_per_s": triad_bandwidth(self.threads, nbytes, dtype) / 1e9}

    def facts(self) -> dict[str, Any]:
        """Return the versions of Python and the libraries loaded, and the peak memory in MB."""
        versions = {"python": sys.version.split()[0]}
        for module in ("numpy", "numba", "llvmlite", "torch"):
            if module in sys.modules:
                versions[module] = str(sys.modules[module].__version__)
        return {"versions": versions, "peak_rss_mb": (self.peak_rss or peak_rss_bytes()) / 1e6}


def forget_checks(step: Step) -> None:
    """Free what only the check of the gradients needed, and reset the peak memory, so that it is that of the steps."""
    step.weights.clear()
    gc.collect()
    reset_peak_rss()


def received(options: dict[str, Any]) -> dict[str, Any]:
    """Return a kernel's options as they were sent: JSON made lists of Muon's matrices."""
    from ..kernels.contract import MatrixAt

    if "matrices" not in options:
        return options
    return options | {"matrices": tuple(MatrixAt(*each) for each in options["matrices"])}


def peak_rss_bytes() -> float:
    """Return the peak memory of this process in RAM; 0 if the system does not report it.

    On Linux this is not `ru_maxrss`, which starts at the parent's memory at the time it started this process.
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


def reset_peak_rss() -> None:
    """Make the peak memory start from now; if the system cannot do that, it stays the peak since the process began.

    Freed memory, such as that of loaded weights, counts as long as the C library keeps it, which it does if memory in
    use lies behind it. So first ask the library to release what it can.
    """
    with suppress(OSError, AttributeError, TypeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as request:
        request.write("5")


@on_the_command_line()  # which alone starts workers
def main(arguments: list[str] | None = None) -> None:
    """Answer requests until there are no more. Output of libraries is redirected to standard error."""
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
