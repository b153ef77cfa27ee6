"""A reporter that writes what TensorBoard shows. It needs the extra: pip install 'bevia-fast[tensorboard]'.

The events are written by the class that PyTorch uses for it too, from the package `tensorboard`. It needs neither
PyTorch nor TensorFlow, and the same package brings the viewer.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .errors import ConfigError
from .reporter import Record, Reporter

SCALARS = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "crosscheck")  # of a line of metrics.jsonl


class TensorBoardReporter(Reporter):
    """Writes the numbers, the samples and the options of a run for TensorBoard.

        train(TrainConfig(), TensorBoardReporter())

    Then `tensorboard --logdir runs` shows them. The events go into `folder`, or if that is None, into the folder
    `tensorboard` of the run. A run that is resumed goes on where it stopped. If the events cannot be written, that is
    warned of once, and the run continues. Raises ConfigError if the package tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        try:
            self._writing = importlib.import_module("tensorboard.summary.writer.event_file_writer")
            self._event = importlib.import_module("tensorboard.compat.proto.event_pb2")
            self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
            self._tensor = importlib.import_module("tensorboard.compat.proto.tensor_pb2").TensorProto
            self._types = importlib.import_module("tensorboard.compat.proto.types_pb2")
        except ImportError as error:
            raise ConfigError(
                f"TensorBoardReporter needs the package tensorboard ({error}): pip install 'bevia-fast[tensorboard]'."
            ) from error
        self._folder = None if folder is None else Path(folder)
        self._writer: Any = None
        self._given: Path | None = self._folder
        self._options = ""
        self._fresh = True  # nothing is written yet

    def start(self, config: TrainConfig) -> None:
        self._folder, self._fresh = self._given, True
        self._options = "\n".join(f"    {line}" for line in str(config).replace(", ", ",\n").splitlines())

    def fact(self, name: str, value: str) -> None:
        if name == "folder" and self._folder is None:
            self._folder = Path(value) / "tensorboard"

    def step(self, record: Record) -> None:
        if self._fresh:
            self._begin(record["step"])
        values = [
            self._summary.Summary.Value(tag=name, simple_value=record[name])
            for name in SCALARS
            if record.get(name) is not None
        ]
        self._add(record["step"], summary=self._summary.Summary(value=values))
        if record["val_loss"] is not None:
            self._try(lambda: self._writer.flush())

    def sample(self, step: int, text: str) -> None:
        if not self._fresh:
            self._text("sample", "\n".join(f"    {line}" for line in text.splitlines()), step)

    def end(self, folder: Path | None, interrupted: int) -> None:
        self._try(lambda: self._writer.close())
        self._writer = None

    def _begin(self, step: int) -> None:
        self._fresh = False
        folder = self._folder or Path("tensorboard")
        try:
            self._writer = self._writing.EventFileWriter(str(folder))
        except OSError as error:
            self._fail(error)
        # what was written after the checkpoint that this run resumes from is no longer part of it
        started = self._event.SessionLog(status=self._event.SessionLog.START)
        self._add(step, session_log=started)
        self._text("options", self._options, step)

    def _text(self, tag: str, text: str, step: int) -> None:
        """Add a text, in Markdown."""
        metadata = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text")
        )
        tensor = self._tensor(dtype=self._types.DT_STRING, string_val=[text.encode("utf-8", "replace")])
        value = self._summary.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._add(step, summary=self._summary.Summary(value=[value]))

    def _add(self, step: int, **content: Any) -> None:
        event = self._event.Event(wall_time=time.time(), step=step, **content)
        self._try(lambda: self._writer.add_event(event))

    def _try(self, write: Callable[[], None]) -> None:
        if self._writer is not None:
            try:
                write()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Stop writing, because a full disk must not end the run."""
        self._writer = None
        warnings.warn(f"TensorBoard's events cannot be written: {error.strerror or error}.", stacklevel=2)
