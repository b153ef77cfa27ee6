"""The command line: from arguments to a configuration, from a result to text on the screen. Nothing is computed here.

Exit codes: 0 done · 1 the numbers went wrong, or the last save · 2 the request was wrong · 129 the terminal closed ·
130 Ctrl-C · 141 the reader went away · 143 asked to end by a signal (128 + its number).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .arguments import PROG, PlanCommand, parse
from .config import (
    AttentionConfig,
    CheckConfig,
    DoctorConfig,
    GenerateConfig,
    ModelConfig,
    ParametersConfig,
    TrainConfig,
)
from .errors import StoppedRun, UserError

if TYPE_CHECKING:
    from rich.console import Console


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
    """Do what a configuration asks for; returns the exit code. What is not needed is not imported."""
    if type(config).__module__.endswith(".bench_config"):
        from .bench_client import limit_blas_threads

        limit_blas_threads(config)
        from .bench_console import run_measuring

        return run_measuring(config)
    return _COMMANDS[type(config)](config)


def _train(config: TrainConfig) -> int:
    from .console import ConsoleReporter, PlainConsole
    from .training import train

    result = train(config, ConsoleReporter(PlainConsole()))
    return 128 + result.interrupted if result.interrupted else 0


def _plan(command: PlanCommand) -> int:
    from .plan_console import show_plan

    return show_plan(command.config, command.json)


def _generate(config: GenerateConfig) -> int:
    from .console import printable
    from .run import Run
    from .sample import stream

    trained = Run.load(config.run, config.backend, config.threads)
    show = printable if sys.stdout.isatty() else str
    characters = stream(trained.model, trained.tokenizer, config)
    sys.stdout.write(show(config.prompt))
    shown = 0.0
    with _compiling_said() if config.backend == "numba" else contextlib.nullcontext():
        for character in characters:
            sys.stdout.write(show(character))
            if time.monotonic() - shown > 1 / 60:  # more often nobody sees, and each time takes some microseconds
                sys.stdout.flush()
                shown = time.monotonic()
    sys.stdout.write("\n")
    return 0


@contextlib.contextmanager
def _compiling_said() -> Iterator[None]:
    """Someone who waits at a terminal is told why, once."""
    from .kernels.numba_jit._runtime import cache as kernel_cache

    said = not sys.stderr.isatty()

    def say(_: str) -> None:
        nonlocal said
        if not said:
            print("compiling kernels for this CPU; the next start finds them ...", file=sys.stderr)
        said = True

    with kernel_cache.telling(say):
        yield


def _check(config: CheckConfig) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from .check import DTYPES, check_kernels, check_training
    from .compiling import two_compilers
    from .console import PlainConsole
    from .kernels.contract import OPERATIONS
    from .run import describe_backend, open_backend

    console = PlainConsole()
    numba, numpy = open_backend("numba", config.threads), open_backend("numpy")
    console.print(f"{describe_backend(numba)}  against  {describe_backend(numpy)}")
    rows = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar as progress, two_compilers([ModelConfig(vocab_size=65, dropout=0.1, dtype=dtype) for dtype in DTYPES]):
        task = progress.add_task("kernels", total=2 * len(OPERATIONS) + 2 * len(DTYPES))
        for row in check_kernels(numba, numpy, config.quick):
            rows.append(row)
            progress.update(task, advance=1, description=row.what)
        for dtype in DTYPES:
            progress.update(task, description="training")
            for row in check_training(numba, numpy, dtype, 10 if config.quick else 50):
                rows.append(row)
                progress.update(task, advance=1)
    _print_check(console, rows)
    failed = [row for row in rows if not row.ok]
    if failed:
        console.print(f"{len(failed)} of {len(rows)} checks failed:")
        for row in failed:
            console.print(f"  {row.dtype} {row.worst}", soft_wrap=True)
        return 1
    console.print(f"All {len(rows)} checks passed.")
    return 0


def _print_check(console: Console, rows: list[Any]) -> None:
    from rich.table import Table

    table = Table(title="The worst error of each kernel, relative to the largest element")
    for name in ("what", "dtype"):
        table.add_column(name)
    for name in ("compared", "error", "tolerance", "share"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        worst = row.worst
        table.add_row(row.what, row.dtype, str(row.count), f"{worst.error:.1e}", f"{worst.tolerance:.1e}",
                      f"{row.share:.1%}", "ok" if row.ok else "FAILED")  # fmt: skip
    console.print(table)


def _doctor(config: DoctorConfig) -> int:
    from .doctor import doctor

    return doctor(config)


def _attention(config: AttentionConfig) -> int:
    from pathlib import Path

    from .attention import write_attention
    from .run import Run

    trained = Run.load(config.run, config.backend)
    path = write_attention(trained, config.prompt, Path(config.out) if config.out else None)
    print(path)
    return 0


def _parameters(config: ParametersConfig) -> int:
    from dataclasses import replace

    from rich.table import Table

    from .console import PlainConsole
    from .parameters import parameter_specs

    model = replace(config.model, vocab_size=config.vocab_size)
    if config.run:
        from .modelfile import load_model

        model = load_model(config.run)[0].config
    table = Table()
    table.add_column("name")
    table.add_column("shape", justify="right")
    table.add_column("count", justify="right")
    specs = parameter_specs(model)
    for spec in specs:
        table.add_row(spec.name, " x ".join(map(str, spec.shape)), f"{spec.count:,}")
    table.add_section()
    table.add_row("total", model.dtype, f"{sum(spec.count for spec in specs):,}")
    PlainConsole().print(table)
    return 0


_COMMANDS: dict[type, Callable[[Any], int]] = {
    TrainConfig: _train,
    PlanCommand: _plan,
    GenerateConfig: _generate,
    CheckConfig: _check,
    DoctorConfig: _doctor,
    AttentionConfig: _attention,
    ParametersConfig: _parameters,
}
