"""Before anything is timed, compare loss and gradients of each competitor with NumPy's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..agreement.comparison import worst_of
from ..agreement.crosscheck import compare_gradients, compare_losses, gradient_tolerance
from ..errors import StoppedRun
from ..model.parameters import Parameters
from ..planning.memory import training_memory
from ..reporter import Progress
from .competitor import Competitor, CompetitorError, as_request
from .results import StepReport
from .stopwatch import Rules
from .training_step import StepSize

BFLOAT16_TOLERANCE = 0.1  # relative to the gradient's norm: 8 significant bits, and errors add up over layers
CHECK_TOKENS = 4096  # about the most tokens in the batch that is compared
CHECK_CTX = 512  # a context that NumPy can always handle
CHECK_SCORES = 1 << 31  # elements in NumPy's arrays of T x T over all layers, which take about half a minute
RECOMPUTE = "numba --recompute"
Key = tuple[str, int]  # a competitor's name, or RECOMPUTE, and its threads


def is_peer(key: Key) -> bool:
    return key[0].startswith("torch")


def start(key: Key, torch_python: str) -> Competitor:
    """Start the process of a competitor."""
    return Competitor(key[0].split()[0], key[1], torch_python if is_peer(key) else "")


def checked_shape(size: StepSize, free: float | None) -> tuple[int, int]:
    """Return the shape (B, T) of the batch that is compared: whole contexts if NumPy's arrays of T x T fit into `free`
    bytes and do not take minutes, otherwise only the beginning of a context: if it can, one that is longer than the
    window."""

    def possible(batch: int, ctx: int) -> bool:
        model = replace(size.model, ctx=ctx)
        return free is not None and (
            size.layers * size.heads * batch * ctx**2 <= CHECK_SCORES
            and training_memory(model, batch, "numpy").total <= free
        )

    whole = max(1, min(size.batch, CHECK_TOKENS // size.ctx)), size.ctx
    if size.ctx <= CHECK_CTX or possible(*whole):
        return whole
    beyond = min(2 * size.window, size.ctx)
    if beyond > CHECK_CTX and possible(1, beyond):
        return 1, beyond
    return min(size.batch, 2), CHECK_CTX


class Agreement:
    """The check at one size: from the same weights, all competitors must compute the same loss and gradients."""

    def __init__(
        self, size: StepSize, keys: Iterable[Key], folder: Path, free: float | None, report: StepReport,
        progress: Progress,
    ) -> None:  # fmt: skip
        """`free`: bytes that NumPy's kernels may take."""
        self.size, self.folder, self.report, self.progress = size, folder, report, progress
        self.keys = list(keys)  # the competitors that are left
        self.recompute = False  # whether all of ours recompute; RECOMPUTE always does
        self.shape = checked_shape(size, free)
        arrays: dict[str, Any] = dict(Parameters.initial(size.model, 0))
        np.savez(folder / "weights.npz", **arrays)
        self.first: dict[Key, float] = {}
        self.gradients: dict[Key, Path] = {}

    def leave_out(self, key: Key, error: CompetitorError) -> None:
        """Leave out a way to run a peer that fails. If it is the last one, or a backend of ours, raise the error."""
        if not is_peer(key) or not any(other != key and is_peer(other) for other in self.keys):
            raise error
        self.report.notes.append(f"Left out: {error}")
        self.keys.remove(key)

    def begin(self, key: Key, competitor: Competitor, rules: Rules | None = None) -> None:
        """Let a competitor write its gradients. With `rules`, it first runs a step, which compiles its kernels, and is
        then ready to be timed by these rules."""
        self.progress.stage(f"First step of {key[0]}, with compilation" if rules else f"Gradients of {key[0]}")
        path = self.folder / f"gradients-{len(self.gradients)}.npz"
        try:
            answer = competitor.ask(
                "step", size=asdict(self.size), weights=str(self.folder / "weights.npz"), gradients=str(path),
                checked=self.shape, rules=None if rules is None else as_request(rules),
                recompute=self.recompute or key[0] == RECOMPUTE,
            )  # fmt: skip
        except CompetitorError as error:
            self.leave_out(key, error)
        else:
            self.first[key], self.gradients[key] = answer["first_step_s"], path

    def run_reference(self, threads: int) -> None:
        """Compute NumPy's gradients if it is not a competitor, in a process that ends afterwards."""
        if not any(name == "numpy" for name, _ in self.keys):
            with Competitor("numpy", threads) as reference:
                self.begin(("numpy", threads), reference)

    def check(self) -> None:
        """Compare the gradients of each competitor with NumPy's. Raises StoppedRun, naming the tensor that differs."""
        self.progress.stage("Comparing loss and gradients")
        expected, expected_loss = self._read(next(path for key, path in self.gradients.items() if key[0] == "numpy"))
        worst, limit = 0.0, gradient_tolerance(self.size.model)
        for key in list(self.keys):
            name, (found, loss) = key[0], self._read(self.gradients[key])
            if name == "torch-bf16" or (is_peer(key) and self.size.precision == "bf16"):
                error = float(np.linalg.norm(found.flat - expected.flat) / np.linalg.norm(expected.flat))
                if not error <= BFLOAT16_TOLERANCE:
                    sentence = f"{name} has a different gradient than numpy: they differ by {error:.2g} of its norm."
                    self.leave_out(key, CompetitorError(sentence))
                continue
            losses = compare_losses(loss, expected_loss, self.size.model)
            wrong = worst_of([losses, *compare_gradients(found, expected)])
            if not wrong.ok:
                raise StoppedRun(f"{name} differs from numpy, so nothing was timed: {wrong}.")
            worst = max(worst, wrong.error)
        B, T = self.shape
        short = f" (the first {T:,} of {self.size.ctx:,} positions, as NumPy cannot handle all)" * (self.size.ctx > T)
        self.report.checked = (
            f"Loss and gradients of {B:,} x {T:,} tokens{short} agree with numpy's: worst relative difference "
            f"{worst:.1g}, at most {limit:.0e} is allowed"
        )

    def _read(self, path: Path) -> tuple[Parameters, float]:
        gradients = Parameters(self.size.model)
        with np.load(path) as archive:
            for name in gradients:
                gradients[name][...] = archive[name]
            return gradients, float(archive["loss"])
