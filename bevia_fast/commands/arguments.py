"""From arguments to a configuration, or to one sentence about what is wrong with them.

The options are the fields of the dataclasses in `config` and `measuring.options`. A new command is one line in COMMANDS
below and one in `main._MODULES`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg, subcommand

from ..config import (
    NONE,
    PRESETS_SHOWN,
    AttentionConfig,
    CheckConfig,
    DoctorConfig,
    ExploreConfig,
    ExportConfig,
    GenerateConfig,
    ImportConfig,
    LabConfig,
    ParametersConfig,
    PlaybookConfig,
    PlotConfig,
    PresetName,
    RunsConfig,
    TrainConfig,
    preset,
    preset_name,
)
from ..errors import UserError
from ..naming import on_the_command_line
from ..recipes import RECIPES_SHOWN, RecipeName, recipe_options
from .fields import command_options
from .groups import NOT_PLANNED, filled, page
from .hints import did_you_mean
from .lengths import timed
from .lists import combinations, split
from .parsing import parsed
from .words import HELP, asks_for_help, regular

PROG = "bevia-fast"


AUTO = "auto"  # in place of a preset: sizes for the text, the machine and the time
AUTO_SHOWN = f"{AUTO} (sizes for this text, this machine and --minutes)"


@dataclass(frozen=True)
class TrainCommand:
    """Train a model on text."""

    config: Annotated[TrainConfig, arg(name="")]
    preset: Annotated[
        PresetName, arg(help=f"Sizes to start from; other options change them.\n{PRESETS_SHOWN}\n{AUTO_SHOWN}")
    ] = "laptop"
    recipe: Annotated[
        RecipeName | None,
        arg(metavar="{textbook,nanogpt,fast}", help_behavior_hint="(default: the defaults below)",
            help=f"Way of training to start from; other options change it.\n{RECIPES_SHOWN}"),
    ] = None  # fmt: skip
    config_file: Annotated[str, arg(name="config", metavar="FILE", help_behavior_hint=NONE)] = ""
    """Options from a file: TOML, or the options.json of a run. The options of the command line change them."""


@dataclass(frozen=True)
class PlanCommand(TrainCommand):
    """Predict memory and time of a training run, and the largest context that fits.

    It accepts all options of train; those that do not change a plan are not listed.

    Numbers and choices can be lists: --ctx 1024 2048 --batch 4 8 is four plans."""

    hours: float = 0.0
    """Find the number of steps for so many hours, like --minutes. 0: --steps."""
    fit: bool = False
    """Propose sizes for this text, this machine and --minutes or --hours, like train --preset auto."""
    json: Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)] = ""
    """Write the plan to this file, as one JSON object; - is standard output."""


@dataclass(frozen=True)
class PlansCommand:
    """Several plans, which differ in the options `varying`, such as --ctx; `values` has those of each plan."""

    plans: tuple[PlanCommand, ...]
    varying: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class AutoCommand:
    """`train --preset auto` or `plan --fit`: sizes are chosen before the command is run."""

    name: Literal["train", "plan"]
    words: tuple[str, ...]
    """The words of the command without those that ask for the choice."""
    asked: TrainConfig | PlanCommand
    """The command with the sizes of a preset in place of the chosen ones."""


@dataclass(frozen=True)
class GenerateCommand(GenerateConfig):
    """Write text with a trained model, token by token."""

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


@dataclass(frozen=True)
class CompletionConfig:
    """Print the script with which a shell completes commands and options."""

    shell: Positional[Annotated[Literal["bash", "zsh", "fish"], arg(metavar="{bash,zsh,fish}")]]
    """The shell to write for."""


COMMANDS: dict[str, type] = {
    "train": TrainCommand,
    "plan": PlanCommand,
    "generate": GenerateCommand,
    "check": CheckConfig,
    "bench": BenchCommand,
    "profile": ProfileCommand,
    "doctor": DoctorConfig,
    "explore": ExploreConfig,
    "attention": AttentionConfig,
    "parameters": ParametersConfig,
    "runs": RunsConfig,
    "plot": PlotConfig,
    "export": ExportConfig,
    "import": ImportConfig,
    "playbook": PlaybookConfig,
    "lab": LabConfig,
    "completion": CompletionConfig,
}


@on_the_command_line()
def parse(arguments: list[str]) -> Any:
    """Return the configuration of the requested command. Raises UserError, or SystemExit after printing help."""
    words = _help_asked(arguments)
    name = words[0]
    if words in (["--version"], ["-V"]):
        from .. import __version__

        print(f"{PROG} {__version__}")
        raise SystemExit(0)
    if name in HELP:
        return parsed(command_tree(), PROG, ["--help"], DESCRIPTION)
    if name.startswith("-") and name != "-":
        raise UserError(f"There is no option {name!r} before the command; see {PROG} --help.")
    if name not in COMMANDS:
        raise UserError(f"There is no command {name!r}{did_you_mean(name, COMMANDS)}; there are {', '.join(COMMANDS)}.")
    if name in ("bench", "profile"):
        return _parse_measuring(name, words[1:] or ["--help"])
    if name in ("train", "plan"):
        rest = _without_auto(words[1:], fitting=name == "plan")
        if rest != words[1:]:
            return AutoCommand("plan" if name == "plan" else "train", tuple(rest), _parse_training(name, rest))
    if name == "plan":
        return _parse_plans(words[1:])
    if name == "train":
        return _parse_training(name, words[1:])
    return _fill(COMMANDS[name], f"{PROG} {name}", words[1:])


DESCRIPTION = (
    "Train a small GPT from scratch on this machine's CPU, and write with it.\n\n"
    "bevia-fast help COMMAND shows the options of a command."
)


def _help_asked(arguments: list[str]) -> list[str]:
    """Return the arguments, with those of `help COMMAND` turned into `COMMAND --help`."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    return arguments or ["--help"]


def command_tree() -> Any:
    """Return the union of all commands, for the page that lists them."""
    return union([Annotated[kind, subcommand(name)] for name, kind in COMMANDS.items()])


def _without_auto(words: list[str], *, fitting: bool) -> list[str]:
    """Return the words without --preset auto and, if that is an option of the command, --fit."""
    rest: list[str] = []
    skip = False
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == f"--preset={AUTO}" or skip or (fitting and word == "--fit"):
            skip = False
        elif word == "--preset" and following == AUTO:
            skip = True
        elif word == "--":
            return rest + words[words.index("--") :]
        else:
            rest.append(word)
    return rest


def parse_with(command: AutoCommand, start: TrainConfig) -> Any:
    """Return what the words of a command say, over the options that were chosen for it."""
    return _parse_training(command.name, list(command.words), start)


def _parse_plans(words: list[str]) -> PlanCommand | PlansCommand:
    """Return one plan, or several if an option has several values."""
    rest, lists = split(words, command_options(PlanCommand))
    if not lists or asks_for_help(rest, command_options(PlanCommand)):
        plan: PlanCommand = _parse_training("plan", words)
        return plan
    values = combinations(lists)
    given = [[f"{name}={value}" for name, value in zip(lists, each, strict=True)] for each in values]
    plans: tuple[PlanCommand, ...] = tuple(_parse_training("plan", [*each, *rest]) for each in given)
    return PlansCommand(plans, tuple(lists), tuple(values))


def _parse_training(name: str, words: list[str], base: TrainConfig | None = None) -> Any:
    """Return the configuration of `train` or `plan`: a preset, a file or a run to resume, and options over it.

    `base` is what the options change instead, if sizes were chosen.
    """
    kind, asked = COMMANDS[name], f"{PROG} {name}"
    known = command_options(kind)
    helping = asks_for_help(words, known)
    if not helping:
        words = regular(words, known, asked, _owner)
    chosen, recipe, file, run, init = (
        _given(words, option) for option in ("--preset", "--recipe", "--config", "--resume", "--init")
    )
    chosen = chosen and preset_name(chosen)
    recipe_options(recipe)  # raises for an unknown one
    start = base or timed(_start(chosen, recipe, file, "" if helping else run, "" if helping else init), words)
    defaults = kind(start, chosen or "laptop", recipe or None, file)
    shown = page(kind, defaults, NOT_PLANNED if helping and name == "plan" else (), headings=True)
    command = filled(kind, parsed(shown, asked, ["--help"] if helping else words), defaults)
    if "--data" in words and not command.config.data:
        raise UserError("--data names no file; omit it to train on the default text.")
    if "--glob" in words and not command.config.glob:
        raise UserError("--glob names no pattern, such as '*.md'.")
    return command.config if name == "train" else command


def _given(words: list[str], option: str) -> str:
    """Return the value of an option in words that `regular` returned, or in those beside --help; "" without it."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == option or word.startswith(f"{option}="):
            value = following if word == option else word.removeprefix(f"{option}=")
            if not value:
                raise UserError(f"{option} needs a value.")
            return value
    return ""


def _start(chosen: str, recipe: Any, file: str, run: str, init: str) -> TrainConfig:
    """Return the options that the others change. Raises UserError if there is more than one thing to start from."""
    if chosen and run:
        raise UserError(f"--preset cannot be combined with --resume; {run} keeps the sizes that it started with.")
    if file and run:
        raise UserError(f"--config cannot be combined with --resume; {run} keeps the options that it started with.")
    if recipe and run:
        raise UserError(f"--recipe cannot be combined with --resume; {run} keeps the options that it started with.")
    if recipe and file:
        raise UserError(f"--recipe cannot be combined with --config; {file} can have a line recipe = ...")
    if chosen and file:
        raise UserError(f"--preset cannot be combined with --config; {file} has sizes, or can have a line preset = ...")
    if init and (chosen or file or recipe):
        other = "--preset" if chosen else "--config" if file else "--recipe"
        raise UserError(f"{other} cannot be combined with --init; {init} has its own sizes.")
    if init and not run:
        from ..runs.modelfile import load_model

        return TrainConfig(model=replace(load_model(init)[0].config, vocab_size=0))
    if run:
        from ..runs.checkpoint import stored_config

        return stored_config(run)
    if file:
        from .configfile import read_config

        return read_config(file)
    return preset(preset_name(chosen or "laptop"), recipe=recipe)


def _parse_measuring(name: str, arguments: list[str]) -> Any:
    """Return the configuration of `bench` or `profile`, whose options the other commands do not import."""
    from ..measuring import options as configs

    first, kinds = arguments[0], configs.PROFILES if name == "profile" else configs.BENCHES
    prog = f"{PROG} {name}"
    if first in kinds or name == "profile":
        kind = kinds.get(first, configs.ProfileKernelConfig)
        asked, rest = (f"{prog} {first}", arguments[1:]) if first in kinds else (prog, arguments)
        config = _fill(kind, asked, rest)
        configs.refuse_unclear(rest, config)
        return config
    if not first.startswith("-"):
        there = f"There is no command {prog} {first}{did_you_mean(first, kinds)}"
        raise UserError(f"{there}; there are {', '.join(kinds)}.")
    if first not in HELP:
        raise UserError(f"There is no option {first!r} before the command; see {prog} --help.")
    choices = [Annotated[config, subcommand(key)] for key, config in kinds.items()]
    return parsed(union(choices), prog, ["--help"], BenchCommand.__doc__ or "")


def _fill(kind: type, asked: str, words: list[str]) -> Any:
    """Return the configuration `kind` of the command `asked` from the words that follow it."""
    known = command_options(kind)
    words = ["--help"] if asks_for_help(words, known) else regular(words, known, asked, _owner)
    return filled(kind, parsed(page(kind), asked, words))


def _owner(option: str) -> str:
    """Return the first command that has an option, such as "bevia-fast generate", or nothing."""
    for name, kind in COMMANDS.items():
        known = command_options(kind)
        if option in known and not known[option].positional:
            return f"{PROG} {name}"
    return ""


def union(choices: list[Any]) -> Any:
    """Return the union of types, for tyro the choice between commands."""
    found = choices[0]
    for choice in choices[1:]:
        found = found | choice
    return found


def options(config: type) -> set[str]:
    """Return all options of a command."""
    return set(command_options(config))
