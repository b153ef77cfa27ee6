"""From arguments to a configuration, or to one sentence about what is wrong with them.

The options are the fields of the dataclasses in `config` and `measuring.options`. A new command is one line in COMMANDS
below and one in `main._MODULES`.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, arg, subcommand

from ..config import (
    PRESETS,
    AttentionConfig,
    CheckConfig,
    DoctorConfig,
    GenerateConfig,
    ParametersConfig,
    PresetName,
    TrainConfig,
    preset,
)
from ..errors import UserError
from ..naming import flag, on_the_command_line
from .repeats import join_repeats

PROG = "bevia-fast"


@dataclass(frozen=True)
class TrainCommand:
    """Train a model on text."""

    config: Annotated[TrainConfig, arg(name="")]
    preset: PresetName = "laptop"
    """Sizes to start from; other options change them."""


@dataclass(frozen=True)
class PlanCommand(TrainCommand):
    """Predict what training with these options takes, without training: memory, arithmetic, time, and the largest
    context that fits."""

    json: Annotated[str, arg(metavar="FILE", help_behavior_hint="(default: none)")] = ""
    """Write the plan to this file, as one JSON object; - is standard output."""


@dataclass(frozen=True)
class GenerateCommand(GenerateConfig):
    """Write text with a trained model, character by character."""

    out: Annotated[str, arg(metavar="FILE")] = "-"
    """Write the text to this file, in UTF-8. -: standard output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out:
            raise UserError("--out needs the name of a file, or - for standard output.")


@dataclass(frozen=True)
class BenchCommand:
    """Compare the speed of the backends: training steps, kernels, growing sizes."""


@dataclass(frozen=True)
class ProfileCommand:
    """Compare single kernels with the limits of this machine, or break a training step down."""


COMMANDS: dict[str, type] = {
    "train": TrainCommand,
    "plan": PlanCommand,
    "generate": GenerateCommand,
    "check": CheckConfig,
    "bench": BenchCommand,
    "profile": ProfileCommand,
    "doctor": DoctorConfig,
    "attention": AttentionConfig,
    "parameters": ParametersConfig,
}


@on_the_command_line()
def parse(arguments: list[str]) -> Any:
    """Return the configuration of the requested command. Raises UserError, or SystemExit after printing help."""
    if arguments == ["--version"]:
        from .. import __version__

        print(f"{PROG} {__version__}")
        raise SystemExit(0)
    arguments = join_repeats(arguments) or ["--help"]
    name = arguments[0]
    if not name.startswith("-") and name not in COMMANDS:
        raise UserError(f"There is no command {name!r}{_meant(name, COMMANDS)}; there are {', '.join(COMMANDS)}.")
    if name in ("bench", "profile"):
        return _parse_measuring(name, arguments[1:] or ["--help"])
    started = _resumed(arguments) or preset(_preset(arguments)), _preset(arguments)
    defaults = {"train": TrainCommand(*started), "plan": PlanCommand(*started)}
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
            raise UserError("--data names no file; omit it to train on the default text.")
        if "--glob" in arguments and not config.config.glob:
            raise UserError("--glob names no pattern, such as '*.md'.")
        return config if isinstance(config, PlanCommand) else config.config
    return config


def _parse_measuring(name: str, arguments: list[str]) -> Any:
    """Return the configuration of `bench` or `profile`, whose options the other commands do not import."""
    from ..measuring import options as configs

    first, kinds = arguments[0], configs.PROFILES if name == "profile" else configs.BENCHES
    prog = f"{PROG} {name}"
    if first in kinds or name == "profile":
        kind = kinds.get(first, configs.ProfileKernelConfig)
        asked, rest = (f"{prog} {first}", arguments[1:]) if first in kinds else (prog, arguments)
        _refuse_unknown(rest, kind, asked)  # before the value of an unknown option is taken for a run
        config = _fill(kind, asked, rest, asked, kind)
        configs.refuse_unclear(rest, config)
        return config
    if not first.startswith("-"):
        raise UserError(f"There is no command {prog} {first}{_meant(first, kinds)}; there are {', '.join(kinds)}.")
    choices = tuple(Annotated[config, subcommand(key)] for key, config in kinds.items())
    return _fill(_union(choices), prog, arguments, prog, BenchCommand, BenchCommand.__doc__ or "")


def _refuse_unknown(arguments: list[str], kind: type, asked: str) -> None:
    """Raise UserError for an option that the command `asked`, with the fields of `kind`, does not have."""
    known = options(kind) - {"--run", "--kernels", "--a", "--b"}  # these are given without their names
    for argument in arguments:
        name = argument.split("=")[0].replace("_", "-")
        if name.startswith("--") and not {name, name.replace("--no-", "--", 1)} & {*known, "--help"}:
            raise UserError(f"There is no option {argument!r}{_meant(argument, sorted(known))}; see {asked} --help.")


def _fill(
    wanted: Any, prog: str, arguments: list[str], asked: str, options_of: type, description: str | None = None
) -> Any:
    """Parse the arguments with tyro. Raises SystemExit after printing help.

    Raises UserError that refers to `--help` of the command `asked`, whose options are the fields of `options_of`.
    """
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
        raise UserError(f"Unexpected argument {unknown[0]!r}; see {asked} --help.")
    if unknown:
        known = sorted(options(options_of))
        raise UserError(f"There is no option {unknown[0]!r}{_meant(unknown[0], known)}; see {asked} --help.")
    return config


def _union(choices: tuple[Any, ...]) -> Any:
    union: Any = choices[0]
    for choice in choices[1:]:
        union = union | choice
    return union


def _preset(arguments: list[str]) -> PresetName:
    """Return the requested preset, whose values are the defaults of the other options."""
    found: PresetName = "laptop"
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == "--preset" or argument.startswith("--preset="):
            value = following if argument == "--preset" else argument.removeprefix("--preset=")
            found = next((name for name in PRESETS if name == value), found)
    return found


def _resumed(arguments: list[str]) -> TrainConfig | None:
    """Return the options of the run to resume, if there is one; other arguments change them."""
    if arguments[0] not in ("train", "plan") or {"--help", "-h"} & set(arguments):
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
        raise UserError(f"--preset cannot be combined with --resume; {run} keeps the sizes that it started with.")
    from ..runs.checkpoint import stored_config

    return stored_config(run)


def options(config: type) -> set[str]:
    """Return all options of a command."""
    found = set()
    hints = get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            found |= options(hints[field.name])
        else:
            found.add(flag(field.name))
    return found - {"--vocab-size"} if config is not ParametersConfig else found


def _meant(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word.split("=")[0], list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _one_sentence(box: str) -> str:
    """Return the error in one line, without tyro's box around it: a title, the error, a rule, advice."""
    text: list[str] = []
    for line in (line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]):
        rule = re.fullmatch(r"[─-]*", line)
        if rule and text:
            break
        if not rule:
            text.append(line)
    sentence = " ".join(" ".join(text or [box]).split())
    return sentence if sentence.endswith((".", ")")) else sentence + "."
