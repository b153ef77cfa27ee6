"""The command line: from arguments to a configuration, from an error to an exit code.

Exit codes: 0 success · 1 the numbers are wrong, the results are not all written, or something unexpected happened ·
2 the request was invalid · 129 the terminal closed · 130 Ctrl-C · 141 the reader of a pipe went away · 143 terminated
by a signal (128 + its number).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import tempfile
from typing import Any, TextIO

from ..config import (
    AttentionConfig,
    CheckConfig,
    DoctorConfig,
    ExploreConfig,
    ExportConfig,
    ImportConfig,
    LabConfig,
    ParametersConfig,
    PlaybookConfig,
    PlotConfig,
    RunsConfig,
    TrainConfig,
)
from ..errors import StoppedRun, UserError, escaped, reason
from ..files import Nowhere
from ..naming import on_the_command_line
from .arguments import PROG, AutoCommand, CompletionConfig, GenerateCommand, PlanCommand, PlansCommand, parse


@on_the_command_line()
def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code. No exception leaves this function, and no stream is left unflushed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            set_encoding(stream)
    try:
        code = _exit_code(arguments)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        code = _unexpected(error, arguments)
    return _flushed(code)


def _exit_code(arguments: list[str]) -> int:
    """Run a command and return the exit code. Exceptions that a user can understand are printed as one sentence."""
    try:
        return run(parse(arguments))
    except UserError as error:
        return _fail(error, 2)
    except StoppedRun as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(f"There is not enough memory{f' ({error})' if str(error) else ''}.", 2)
    except BrokenPipeError:
        return 141
    except OSError as error:  # a full disk, a device that fails
        if not isinstance(_flush(sys.stdout), OSError):
            where = f"{error.filename}: " if error.filename else ""
            return _fail(f"{where}{error.strerror or error}.", 1)
        return _fail(f"Cannot write to standard output: {error.strerror or error}.", 1)
    except SystemExit as request:  # tyro, after --help; or a signal that came twice
        if request.code is None or isinstance(request.code, int):
            return request.code or 0
        return _fail(request.code, 1)


# -------------------------------------------------------------------------------------------------------------- streams


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed, as after `bevia-fast train >&-`.

    Otherwise the next file that is opened would get the number of the stream, and what libraries print would go into
    that file. Standard input stays None in Python, so that reading from it is an error and not an empty text.
    """
    while True:
        handle = os.open(os.devnull, os.O_RDWR)
        if handle > 2:
            os.close(handle)
            break
        os.set_inheritable(handle, True)
    sys.stdout = sys.stdout or Nowhere()
    sys.stderr = sys.stderr or Nowhere()


def _flush(stream: TextIO) -> Exception | None:
    """Flush a stream, and return the exception if that fails."""
    try:
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: it was closed
        return error
    return None


def _discard(stream: TextIO) -> None:
    """Send what is left in a stream's buffer to the null device; Python would fail to flush it when it exits."""
    with contextlib.suppress(OSError, ValueError):  # a stream that is not a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _flushed(code: int) -> int:
    """Flush both streams and return the exit code, which is not 0 if the output is incomplete."""
    problem = _flush(sys.stdout)
    if problem is not None:
        _discard(sys.stdout)
        if isinstance(problem, BrokenPipeError):
            code = code or 141
        elif code == 0 and isinstance(problem, OSError):
            code = _fail(f"Cannot write to standard output: {problem.strerror or problem}.", 1)
    if _flush(sys.stderr) is not None:
        _discard(sys.stderr)
    return code


# --------------------------------------------------------------------------------------------------------------- errors


def set_encoding(stream: io.TextIOWrapper) -> None:
    """Let a stream write any text: to a terminal what it can show, and elsewhere UTF-8, whatever the locale is."""
    if stream.isatty():
        stream.reconfigure(errors="replace")  # a terminal that lacks a character must not stop us
    else:
        # Names of files may have bytes that are not UTF-8. Windows would make \r\n of each \n, also of that of a \r\n.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def _fail(message: object, code: int) -> int:
    """Print an error and return the exit code."""
    with contextlib.suppress(OSError, ValueError):  # nobody can be told
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(f"{PROG}: error: {escaped(str(message))}", file=sys.stderr)
    return code


def _unexpected(error: BaseException, arguments: list[str]) -> int:
    """Print one sentence about an exception that nobody expected, and keep its traceback in a file."""
    from importlib.metadata import version
    from traceback import format_exception

    kind, what = type(error).__name__, reason(error)
    message = f"Unexpected {kind}{f': {what}' if what != kind else ''}."
    try:
        about = f"{PROG} {version(PROG)}, Python {sys.version}, {sys.platform}\narguments: {arguments!r}\n\n"
        handle, path = tempfile.mkstemp(".txt", f"{PROG}-error-", text=True)
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(about + "".join(format_exception(error)))
    except Exception as problem:  # no folder for temporary files can be written
        return _fail(f"{message} The traceback cannot be saved: {reason(problem)}.", 1)
    return _fail(f"{message} The traceback is in {path}; please report it.", 1)


# ------------------------------------------------------------------------------------------------------------- commands


def run(config: Any) -> int:
    """Run the command of a configuration and return the exit code; only its own module is imported."""
    module = _MODULES.get(type(config))
    if module is None:  # bench or profile, whose options the other commands do not import
        from ..measuring.competitor import limit_blas_threads

        limit_blas_threads(config)
        module = "profile" if type(config).__name__.startswith("Profile") else "bench"
    if module == "explore" and config.backend == "numpy" and "numpy" not in sys.modules:
        # its products are so small that threads wait for each other longer than they compute
        from ..measuring.competitor import set_blas_threads

        set_blas_threads(1)
    if module not in OPENING and type(config).__name__ not in WITHOUT and any(map(NUMBA.match, os.environ)):
        from ..backends import require_numba

        require_numba()
    code: int = importlib.import_module(f".{module}", __package__).run(config)
    return code


NUMBA = re.compile("NUMBA_")
# Those that check Numba in `open_backend`, if they need it.
OPENING = ("train", "plan", "generate", "explore", "attention", "parameters", "runs", "plot", "export", "importing",
           "completion")  # fmt: skip
WITHOUT = ("BenchCompareConfig", "ProfileListConfig")  # parts of bench and profile that compute nothing

_MODULES: dict[type, str] = {
    TrainConfig: "train",
    PlanCommand: "plan",
    PlansCommand: "plan",
    AutoCommand: "auto",
    GenerateCommand: "generate",
    CheckConfig: "check",
    DoctorConfig: "doctor",
    ExploreConfig: "explore",
    AttentionConfig: "attention",
    ParametersConfig: "parameters",
    RunsConfig: "runs",
    PlotConfig: "plot",
    ExportConfig: "export",
    ImportConfig: "importing",
    PlaybookConfig: "playbook",
    LabConfig: "lab",
    CompletionConfig: "completion",
}
