"""The interface through which a run or a measurement reports what it is doing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .config import TrainConfig

Record = dict[str, Any]  # a line of metrics.jsonl


class Reporter:
    """Receives the events of a training run. This base class ignores them all; a subclass has the methods it needs.

        class Losses(Reporter):
            def step(self, record):
                print(record["step"], record["loss"])

        train(TrainConfig(), Losses())

    A run calls `start`, `fact`, `compiling`, `compiled` and, with --minutes, `budget` before the first step; `step` for
    each one, and `sample`, `note` and `interrupted` as they come; `saved`, `filmed`, `best` and `end` after the last.
    All are called in the Python thread that trains, which waits for them. An exception that a method raises ends the
    run; what the last checkpoint has stays.
    """

    def start(self, config: TrainConfig) -> None:
        """The options and the text are valid; training is about to start."""

    def fact(self, name: str, value: str) -> None:
        """A fact about the run, such as ("text", "1,115,394 characters, 65 distinct")."""

    def compiling(self, operation: str, number: int, total: int) -> None:
        """`operation`, number `number` of `total`, is being compiled for this CPU; all of them take about 15 s."""

    def compiled(self) -> None:
        """All kernels are compiled; called even if they already were."""

    def counting(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Open a context for a task that takes long for a large text.

        The context gives a function to call with the number of bytes done, of `total` bytes; 0 if that is unknown.
        """
        return contextlib.nullcontext(lambda done: None)

    def budget(self, seconds: float) -> None:
        """The first step follows; all steps and evaluations together shall take so many seconds, with --minutes."""

    def step(self, record: Record) -> None:
        """A step is done; `record` is its line of metrics.jsonl. Step 0 is the evaluation before the first step.

        It has step, loss, val_loss, lr, grad_norm and tokens_per_s. All but step and lr are None where there is no such
        number: val_loss, except where it was evaluated; loss, grad_norm and tokens_per_s at step 0, and where the step
        was skipped. A cross-check adds crosscheck and crosscheck_tensor.
        """

    def sample(self, step: int, text: str) -> None:
        """A text that the model wrote after `step`."""

    def note(self, text: str) -> None:
        """A warning; the run continues."""

    def interrupted(self) -> None:
        """Ctrl-C or a similar signal arrived; the current step is being finished."""

    def saved(self, count: int, size: int, seconds: float, of: float) -> None:
        """The run was saved `count` times: `size` bytes per checkpoint, `seconds` of `of` seconds in total."""

    def filmed(self, count: int, size: int, seconds: float, of: float) -> None:
        """The film got `count` frames, of `size` bytes altogether, in `seconds` of `of` seconds in total."""

    def best(self, step: int, words: str) -> None:
        """The best validation loss was after `step`; `words` compare it with the last one.

        Such as "2.135 at step 500; 2.944 at the end: overfitting". Not called if the run was interrupted between two
        evaluations.
        """

    def end(self, folder: Path | None, interrupted: int) -> None:
        """The run is over and saved in `folder`, or failed if that is None.

        `interrupted` is the number of the signal that ended the run before its last step, or 0.
        """


class Reporters(Reporter):
    """Passes each event on to several reporters, in their order."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self.reporters = reporters

    def start(self, config: TrainConfig) -> None:
        for each in self.reporters:
            each.start(config)

    def fact(self, name: str, value: str) -> None:
        for each in self.reporters:
            each.fact(name, value)

    def compiling(self, operation: str, number: int, total: int) -> None:
        for each in self.reporters:
            each.compiling(operation, number, total)

    def compiled(self) -> None:
        for each in self.reporters:
            each.compiled()

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        with contextlib.ExitStack() as stack:
            all_of_them = [stack.enter_context(each.counting(what, total)) for each in self.reporters]

            def tell(done: int) -> None:
                for each in all_of_them:
                    each(done)

            yield tell

    def budget(self, seconds: float) -> None:
        for each in self.reporters:
            each.budget(seconds)

    def step(self, record: Record) -> None:
        for each in self.reporters:
            each.step(record)

    def sample(self, step: int, text: str) -> None:
        for each in self.reporters:
            each.sample(step, text)

    def note(self, text: str) -> None:
        for each in self.reporters:
            each.note(text)

    def interrupted(self) -> None:
        for each in self.reporters:
            each.interrupted()

    def saved(self, count: int, size: int, seconds: float, of: float) -> None:
        for each in self.reporters:
            each.saved(count, size, seconds, of)

    def filmed(self, count: int, size: int, seconds: float, of: float) -> None:
        for each in self.reporters:
            each.filmed(count, size, seconds, of)

    def best(self, step: int, words: str) -> None:
        for each in self.reporters:
            each.best(step, words)

    def end(self, folder: Path | None, interrupted: int) -> None:
        """Tell all of them, even if one raises an exception: they close their files and bars."""
        with contextlib.ExitStack() as stack:
            for each in reversed(self.reporters):
                stack.callback(each.end, folder, interrupted)


class Progress:
    """Receives the progress of a measurement. This base class ignores it; see `commands.progress`."""

    def stage(self, what: str) -> None:
        """A stage begins that may take a while."""

    def advance(self, done: float, total: float, what: str = "") -> None:
        """`done` of `total` of the stage is complete, and `what` comes next."""

    def part(self, index: int, count: int, what: str) -> None:
        """Part `index` of `count` begins, counted from 0; `what` describes it."""
