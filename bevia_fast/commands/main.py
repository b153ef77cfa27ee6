"""The command line: from arguments to a configuration, from an error to an exit code.

Exit codes: 0 success · 1 the numbers are wrong, or the last save failed · 2 the request was invalid · 129 the terminal
closed · 130 Ctrl-C · 141 the reader of a pipe went away · 143 terminated by a signal (128 + its number).
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

from ..config import (
    AttentionConfig,
    CheckConfig,
    DoctorConfig,
    GenerateConfig,
    ParametersConfig,
    TrainConfig,
)
from ..errors import StoppedRun, UserError
from .arguments import PROG, CompletionConfig, PlanCommand, parse


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character must not stop us
    try:
        code = run(parse(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(error, 2)
    except StoppedRun as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(f"There is not enough memory{f' ({error})' if str(error) else ''}.", 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes the buffer when it exits, which would raise again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a terminal that is gone, a full disk
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.", 1)
    except SystemExit as request:  # tyro, after --help
        return request.code if isinstance(request.code, int) else 0


def _fail(message: object, code: int) -> int:
    sys.stdout.flush()
    print(f"{PROG}: error: {message}", file=sys.stderr)
    return code


def run(config: Any) -> int:
    """Run the command of a configuration and return the exit code; only its own module is imported."""
    module = _MODULES.get(type(config))
    if module is None:  # bench or profile, whose options the other commands do not import
        from ..measuring.competitor import limit_blas_threads

        limit_blas_threads(config)
        module = "profile" if type(config).__name__.startswith("Profile") else "bench"
    code: int = importlib.import_module(f".{module}", __package__).run(config)
    return code


_MODULES: dict[type, str] = {
    TrainConfig: "train",
    PlanCommand: "plan",
    GenerateConfig: "generate",
    CheckConfig: "check",
    DoctorConfig: "doctor",
    AttentionConfig: "attention",
    ParametersConfig: "parameters",
    CompletionConfig: "completion",
}
