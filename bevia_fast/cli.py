"""The command line: from arguments to a configuration, from a result to text on the screen. Nothing is computed here.

Exit codes: 0 done · 1 the numbers went wrong, or the last save · 2 the request was wrong · 130 Ctrl-C · 141 the reader
went away · 143 asked to end by a signal (128 + its number).
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import sys
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, arg, subcommand

from .config import (
    PRESETS,
    AttentionConfig,
    CheckConfig,
    GenerateConfig,
    ParametersConfig,
    PresetName,
    TrainConfig,
    preset,
)
from .errors import StoppedRun, UserError

if TYPE_CHECKING:
    from rich.console import Console

PROG = "bevia-fast"


@dataclass(frozen=True)
class TrainCommand:
    """Train a model on text."""

    config: Annotated[TrainConfig, arg(name="")]
    preset: PresetName = "laptop"
    """Sizes to begin with; options given beside it change them."""


@dataclass(frozen=True)
class BenchCommand:
    """Time the backends against each other: training steps, kernels, growing sizes."""


@dataclass(frozen=True)
class ProfileCommand:
    """Measure single kernels against what this machine can do, or take a training step apart."""


COMMANDS: dict[str, type] = {
    "train": TrainCommand,
    "generate": GenerateConfig,
    "check": CheckConfig,
    "bench": BenchCommand,
    "profile": ProfileCommand,
    "attention": AttentionConfig,
    "parameters": ParametersConfig,
}


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
        return _fail(f"{error.strerror or error}.", 1)
    except SystemExit as request:  # tyro, after --help
        return request.code if isinstance(request.code, int) else 0


def _fail(message: object, code: int) -> int:
    sys.stdout.flush()
    print(f"{PROG}: error: {message}", file=sys.stderr)
    return code


# ------------------------------------------------------------------------------------------------------------- parsing


def parse(arguments: list[str]) -> Any:
    """The configuration of the command asked for. Raises UserError, or SystemExit after printing help."""
    if arguments == ["--version"]:
        from . import __version__

        print(f"{PROG} {__version__}")
        raise SystemExit(0)
    arguments = arguments or ["--help"]
    name = arguments[0]
    if not name.startswith("-") and name not in COMMANDS:
        raise UserError(f"There is no command {name!r}{_meant(name, COMMANDS)}; there are {', '.join(COMMANDS)}.")
    if name in ("bench", "profile"):
        return _parse_measuring(name, arguments[1:] or ["--help"])
    defaults = {"train": TrainCommand(_resumed(arguments) or preset(_preset(arguments)), _preset(arguments))}
    choices = tuple(
        Annotated[config, subcommand(key, default=defaults[key]) if key in defaults else subcommand(key)]
        for key, config in COMMANDS.items()
    )
    config = _fill(
        _union(choices), PROG, arguments, f"{PROG} {name}", COMMANDS.get(name, TrainCommand),
        "Train a small GPT from scratch on this machine's CPU, and write with it.",
    )  # fmt: skip
    if isinstance(config, TrainCommand):
        if "--data" in arguments and not config.config.data:
            raise UserError("--data names no file; leave it out to train on the default text.")
        return config.config
    return config


def _parse_measuring(name: str, arguments: list[str]) -> Any:
    """The configuration of `bench` or `profile`; what they have in common with no other command is not imported
    before."""
    from . import bench_config as configs

    first, kinds = arguments[0], configs.PROFILES if name == "profile" else configs.BENCHES
    prog = f"{PROG} {name}"
    if first in kinds:
        return _fill(kinds[first], f"{prog} {first}", arguments[1:], f"{prog} {first}", kinds[first])
    if name == "profile":
        return _fill(configs.ProfileKernelConfig, prog, arguments, prog, configs.ProfileKernelConfig)
    if not first.startswith("-"):
        raise UserError(f"There is no command {prog} {first}{_meant(first, kinds)}; there are {', '.join(kinds)}.")
    choices = tuple(Annotated[config, subcommand(key)] for key, config in kinds.items())
    return _fill(_union(choices), prog, arguments, prog, BenchCommand, BenchCommand.__doc__ or "")


def _fill(
    wanted: Any, prog: str, arguments: list[str], asked: str, options_of: type, description: str | None = None
) -> Any:
    """What tyro makes of the arguments. Raises UserError, naming `--help` of the command `asked`, whose options are
    those of `options_of`; SystemExit after printing help."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            config, unknown = tyro.cli(
                wanted,
                prog=prog,
                args=arguments,
                description=description,
                return_unknown_args=True,
                config=(OmitArgPrefixes,),
            )
    except SystemExit as request:
        if request.code in (0, None):
            raise
        raise UserError(_one_sentence(errors.getvalue())) from None
    if unknown and not unknown[0].startswith("-"):
        raise UserError(f"There is one argument too many: {unknown[0]!r}; see {asked} --help.")
    if unknown:
        options = sorted(_options(options_of))
        raise UserError(f"There is no option {unknown[0]!r}{_meant(unknown[0], options)}; see {asked} --help.")
    return config


def _union(choices: tuple[Any, ...]) -> Any:
    union: Any = choices[0]
    for choice in choices[1:]:
        union = union | choice
    return union


def _preset(arguments: list[str]) -> PresetName:
    """The preset asked for: its values are the defaults that the other arguments change."""
    found: PresetName = "laptop"
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        value = following if argument == "--preset" else argument.removeprefix("--preset=")
        found = next((name for name in PRESETS if name == value), found)
    return found


def _resumed(arguments: list[str]) -> TrainConfig | None:
    """The options of the run to go on with, if that is asked for: other arguments change them."""
    if arguments[0] != "train" or {"--help", "-h"} & set(arguments):
        return None
    run = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == "--resume" or argument.startswith("--resume="):
            run = following if argument == "--resume" else argument.removeprefix("--resume=")
            if not run or run.startswith("--"):
                raise UserError("--resume needs the folder of a run, such as runs/1.")
    if not run:
        return None
    if any(argument == "--preset" or argument.startswith("--preset=") for argument in arguments):
        raise UserError(f"--preset cannot be given with --resume; {run} keeps the sizes that it was begun with.")
    from .checkpoint import stored_config

    return stored_config(run)


def _options(config: type) -> set[str]:
    """All options of a command."""
    found = set()
    hints = get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            found |= _options(hints[field.name])
        else:
            found.add("--" + field.name.replace("_", "-"))
    return found - {"--vocab-size"} if config is not ParametersConfig else found


def _meant(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word.split("=")[0], list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _one_sentence(box: str) -> str:
    """tyro draws a box around an error: a title, the error, a rule, advice. The error, in one line."""
    text: list[str] = []
    for line in (line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]):
        rule = re.fullmatch(r"[─-]*", line)
        if rule and text:
            break
        if not rule:
            text.append(line)
    sentence = " ".join(" ".join(text or [box]).split())
    return sentence if sentence.endswith((".", ")")) else sentence + "."


# ------------------------------------------------------------------------------------------------------------ commands


def run(config: Any) -> int:
    """Do what a configuration asks for; returns the exit code. What is not needed is not imported."""
    if type(config).__module__.endswith(".bench_config"):
        from .bench_client import limit_blas_threads

        limit_blas_threads(config)
        from .bench_console import run_measuring

        return run_measuring(config)
    if isinstance(config, TrainConfig):
        return _train(config)
    if isinstance(config, GenerateConfig):
        return _generate(config)
    if isinstance(config, CheckConfig):
        return _check(config)
    if isinstance(config, AttentionConfig):
        return _attention(config)
    return _parameters(config)


def _train(config: TrainConfig) -> int:
    from .console import ConsoleReporter, PlainConsole
    from .training import train

    result = train(config, ConsoleReporter(PlainConsole()))
    return 128 + result.interrupted if result.interrupted else 0


def _generate(config: GenerateConfig) -> int:
    from .console import printable
    from .run import Run
    from .sample import stream

    trained = Run.load(config.run, config.backend, config.threads)
    show = printable if sys.stdout.isatty() else str
    characters = stream(trained.model, trained.tokenizer, config)
    sys.stdout.write(show(config.prompt))
    for character in characters:
        sys.stdout.write(show(character))
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _check(config: CheckConfig) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from .check import DTYPES, check_kernels, check_training
    from .console import PlainConsole
    from .kernels.contract import OPERATIONS
    from .run import describe_backend, open_backend

    console = PlainConsole()
    numba, numpy = open_backend("numba", config.threads), open_backend("numpy")
    console.print(f"{describe_backend(numba)}  against  {describe_backend(numpy)}")
    rows = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as progress:  # fmt: skip
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
