"""`bevia-fast import`. The module is not called `import`, because that is a word of Python."""

from __future__ import annotations

from pathlib import Path

from ..config import ImportConfig
from ..doors.importing import import_model, write_imported
from ..naming import command
from .tables import FittedConsole


def run(config: ImportConfig) -> int:
    """Write the run's folder and say what to do with it; return the exit code."""
    parameters, tokenizer, step = import_model(Path(config.source), config.vocabulary)
    write_imported(Path(config.source), parameters, tokenizer, step, Path(config.out))
    FittedConsole().say(f"{parameters.count:,} parameters. To write with them: {command('generate', Path(config.out))}")
    return 0
