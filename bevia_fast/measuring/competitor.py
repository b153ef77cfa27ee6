"""The parent's side of a competitor: start its process, send requests, end it. The other side is `worker`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import UserError
from .stopwatch import Rules

# The library behind NumPy's matrix products reads its number of threads from these variables. The others can make it
# use the instructions of an older CPU, as some build machines do; a comparison should be with its best.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
LIMITING_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

# For an interpreter in which this package is not installed: load it by its path, without adding its folder to sys.path.
BOOTSTRAP = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bevia_fast", sys.argv.pop(1))
sys.modules["bevia_fast"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from bevia_fast.measuring.worker import main
main()
"""


def limit_blas_threads(config: Any) -> None:
    """Limit the threads of NumPy's matrix products in this process. Call this before NumPy is imported, which is when
    they read their number of threads."""
    if getattr(config, "backend", None) == "numpy" and getattr(config, "threads", 0):
        set_blas_threads(config.threads)


def set_blas_threads(count: int) -> None:
    """Let NumPy's matrix products use so many threads in this process; call this before NumPy is imported."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))


class CompetitorError(UserError):
    """A competitor cannot run on this machine, or its process has failed."""


class Competitor(AbstractContextManager["Competitor"]):
    """A child process that times one thing: `name` is numpy, numba, torch-eager, ..., peak, or own for a kernel of
    the user's."""

    def __init__(self, name: str, threads: int, python: str = "") -> None:
        self.name, self.threads = name, threads
        environment = {key: value for key, value in os.environ.items() if key not in LIMITING_VARIABLES}
        if name in ("numpy", "own") or name.startswith("torch"):
            environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        foreign = [python, "-c", BOOTSTRAP, str(Path(__file__).parents[1] / "__init__.py")]
        own = [sys.executable, "-P", "-m", "bevia_fast.measuring.worker"]
        # the output of libraries, of interest only if the process dies
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                [*(foreign if python else own), name, str(threads)], env=environment, text=True, encoding="utf-8",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            )  # fmt: skip
        except OSError as error:
            self.log.close()
            raise CompetitorError(f"Cannot start {python or sys.executable}: {error.strerror}.") from None

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request, wait for the answer and return it. Raises CompetitorError, with one sentence as message."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise CompetitorError(f"{self.name} {self._end()}.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            sentence = " ".join(str(answer["error"]).split("\n")[0].split()).rstrip(".")
            raise CompetitorError(f"{sentence}." if answer["kind"] == "ConfigError" else f"{self.name}: {sentence}.")
        return answer

    def _end(self) -> str:
        """Return how a process that no longer answers ended, in a few words."""
        with suppress(subprocess.TimeoutExpired):
            if (code := self.process.wait(10)) < 0:
                why = ", perhaps because memory ran out" if -code == getattr(signal, "SIGKILL", 0) else ""
                return f"was ended by signal {-code} ({signal.strsignal(-code)}){why}"
        self.log.seek(0)
        last = (self.log.read().strip().splitlines() or ["it printed nothing"])[-1]
        return f"ended unexpectedly: {last.rstrip('.')}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if error is not None:
            self.process.kill()
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # the worker ends when there are no more requests
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def as_request(rules: Rules) -> dict[str, Any]:
    """Return the rules in the form in which they are sent to a competitor."""
    return asdict(rules)
