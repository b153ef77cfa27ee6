"""The command line: from arguments to a configuration, from an error to an exit code.

Exit codes: 0 done · 1 the numbers went wrong, or the last save · 2 the request was wrong · 129 the terminal closed ·
130 Ctrl-C · 141 the reader went away · 143 asked to end by a signal (128 + its number).
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
from .arguments import PROG, PlanCommand, parse


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of few characters is no reason to stop
    try:
        code = run(parse(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(error, 2)
    except StoppedRun as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(f"There is not enough memory for this{f' ({error})' if str(error) else ''}.", 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # what is still in the buffer would raise again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a terminal that is gone, a disk that takes no output
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.", 1)
    except SystemExit as request:  # tyro, after --help
        return request.code if isinstance(request.code, int) else 0


def _fail(message: object, code: int) -> int:
    sys.stdout.flush()
    print(f"{PROG}: error: {message}", file=sys.stderr)
    return code


def run(config: Any) -> int:
    """Do what a configuration asks for; returns the exit code. Only the module of the command is imported."""
    module = _MODULES.get(type(config))
    if module is None:  # of bench and profile, whose options are not imported for the other commands
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
}
