"""`bevia-fast completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from ..config import LabConfig
from ..lab.experiments import EXPERIMENTS
from ..measuring.kernel_jobs import families
from ..measuring.options import BENCHES, PROFILES, ProfileKernelConfig
from .arguments import COMMANDS, PROG, CompletionConfig, union
from .fields import command_options
from .groups import page


@dataclass(frozen=True)
class Word:
    """Nothing more than its name."""


def whole_tree() -> Any:
    """Return the union of all commands with their options, and of the words that follow some of them.

    What is one of a few words is a command here, because tyro completes commands, but not words without an option.
    """
    kernels = dict.fromkeys(("all", *families(), *_kernels()), ProfileKernelConfig)
    following: dict[str, dict[str, type]] = {
        "bench": BENCHES,
        "profile": {**PROFILES, **kernels},
        "completion": dict.fromkeys(command_options(CompletionConfig)["--shell"].choices, Word),
        "help": dict.fromkeys(COMMANDS, Word),
        "lab": dict.fromkeys(("list", *EXPERIMENTS), LabConfig),
    }
    choices: list[Any] = []
    for name, kind in {**COMMANDS, "help": Word}.items():
        wanted: Any = _page(kind)
        if name in following:
            words = union([Annotated[(_page(kind), subcommand(word))] for word, kind in following[name].items()])
            wanted = make_dataclass(name, [("word", words)])
        choices.append(Annotated[(wanted, subcommand(name))])
    return union(choices)


def _kernels() -> list[str]:
    return [name for names in families().values() for name in names]


def _page(kind: type) -> type:
    """Return the options of a command, without what is given without a name: that is a file or a text of the user."""
    return page(kind, left_out=("run", "runs", "folder", "source", "kernels", "a", "b", "experiment"))


def run(config: CompletionConfig) -> int:
    """Print the script; return the exit code."""
    tyro.cli(
        whole_tree(), prog=PROG, args=["--tyro-print-completion", config.shell],
        config=(OmitArgPrefixes, OmitSubcommandPrefixes),
    )  # fmt: skip
    return 0
