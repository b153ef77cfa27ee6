"""Competitors held against each other before anything is timed: loss and gradients of each against NumPy's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..agreement.crosscheck import compare_gradients, compare_losses, gradient_tolerance, worst_of
from ..errors import StoppedRun
from ..model.parameters import Parameters
from ..planning.memory import training_memory
from ..reporter import Progress
from .competitor import Competitor, CompetitorError, as_request
from .results import StepReport
from .stopwatch import Rules
from .training_step import StepSize

BFLOAT16_TOLERANCE = 0.1  # of the gradient's norm: numbers with 8 bits, summed over layers
CHECK_TOKENS = 4096  # of the batch on which competitors are held against each other, about at most
CHECK_CTX = 512  # that NumPy can do in any case
CHECK_SCORES = 1 << 31  # elements of NumPy's arrays of T x T in all layers: about half a minute
RECOMPUTE = "numba --recompute"
Key = tuple[str, int]  # a competitor's name, or RECOMPUTE, and its threads


def is_peer(key: Key) -> bool:
    return key[0].startswith("torch")


def start(key: Key, torch_python: str) -> Competitor:
    """Its process."""
    return Competitor(key[0].split()[0], key[1], torch_python if is_peer(key) else "")


def checked_shape(size: StepSize, free: float | None) -> tuple[int, int]:
    """Sequences and positions of the batch on which competitors are held against each other: whole contexts, where
    NumPy's arrays of T x T fit into `free` bytes and do not take minutes; else the beginning of one."""
    whole = max(1, min(size.batch, CHECK_TOKENS // size.ctx)), size.ctx
    scores = size.layers * size.heads * whole[0] * size.ctx**2
    if size.ctx > CHECK_CTX and (
        free is None or scores > CHECK_SCORES or training_memory(size.model, whole[0], "numpy").total > free
    ):
        return min(size.batch, 2), CHECK_CTX
    return whole


class Agreement:
    """One size: all begin with the same weights, and have to come to the same gradients."""

    def __init__(
        self, size: StepSize, keys: Iterable[Key], folder: Path, free: float | None, report: StepReport,
        progress: Progress,
    ) -> None:  # fmt: skip
        """`free`: bytes that the kernels of NumPy may take."""
        self.size, self.folder, self.report, self.progress = size, folder, report, progress
        self.keys = list(keys)  # those that are left
        self.shape = checked_shape(size, free)
        arrays: dict[str, Any] = dict(Parameters.initial(size.model, 0))
        np.savez(folder / "weights.npz", **arrays)
        self.first: dict[Key, float] = {}
        self.gradients: dict[Key, Path] = {}

    def leave_out(self, key: Key, error: CompetitorError) -> None:
        """One way to run a peer that fails is no reason to lose the others. That the last one fails is an error, and
        that a backend of ours does."""
        if not is_peer(key) or not any(other != key and is_peer(other) for other in self.keys):
            raise error
        self.report.notes.append(f"Left out: {error}")
        self.keys.remove(key)

    def begin(self, key: Key, competitor: Competitor, rules: Rules | None = None) -> None:
        """Let a competitor write its gradients. With `rules`, it makes its first step, with compilation, before, and is
        then ready to be timed by them."""
        self.progress.stage(f"First step of {key[0]}, with compilation" if rules else f"Gradients of {key[0]}")
        path = self.folder / f"gradients-{len(self.gradients)}.npz"
        try:
            answer = competitor.ask(
                "step", size=asdict(self.size), weights=str(self.folder / "weights.npz"), gradients=str(path),
                checked=self.shape, rules=None if rules is None else as_request(rules), recompute=key[0] == RECOMPUTE,
            )  # fmt: skip
        except CompetitorError as error:
            self.leave_out(key, error)
        else:
            self.first[key], self.gradients[key] = answer["first_step_s"], path

    def refer(self, threads: int) -> None:
        """The gradients of NumPy where it is no competitor, from a process that ends then."""
        if not any(name == "numpy" for name, _ in self.keys):
            with Competitor("numpy", threads) as reference:
                self.begin(("numpy", threads), reference)

    def check(self) -> None:
        """Hold the gradients of each against NumPy's. Raises StoppedRun, naming the tensor."""
        self.progress.stage("Comparing loss and gradients")
        expected, expected_loss = self._read(next(path for key, path in self.gradients.items() if key[0] == "numpy"))
        worst, limit = 0.0, gradient_tolerance(self.size.model)
        for key in list(self.keys):
            name, (found, loss) = key[0], self._read(self.gradients[key])
            if name == "torch-bf16":
                error = float(np.linalg.norm(found.flat - expected.flat) / np.linalg.norm(expected.flat))
                if not error <= BFLOAT16_TOLERANCE:
                    sentence = f"{name} has another gradient than numpy: they differ by {error:.2g} of its norm."
                    self.leave_out(key, CompetitorError(sentence))
                continue
            losses = compare_losses(loss, expected_loss, self.size.model)
            wrong = worst_of([losses, *compare_gradients(found, expected)])
            if not wrong.ok:
                raise StoppedRun(f"{name} differs from numpy, so nothing was timed: {wrong}.")
            worst = max(worst, wrong.error)
        B, T = self.shape
        short = f", the first of {self.size.ctx:,} positions, as NumPy cannot do all," if self.size.ctx > T else ""
        self.report.checked = (
            f"Loss and gradients of {B:,} x {T:,} tokens{short} agree with numpy's: worst relative difference "
            f"{worst:.1g}, {limit:.0e} is allowed"
        )

    def _read(self, path: Path) -> tuple[Parameters, float]:
        gradients = Parameters(self.size.model)
        with np.load(path) as archive:
            for name in gradients:
                gradients[name][...] = archive[name]
            return gradients, float(archive["loss"])
