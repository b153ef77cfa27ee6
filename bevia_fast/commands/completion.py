"""`bevia-fast completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, subcommand

from ..measuring.kernel_jobs import families
from ..measuring.options import BENCHES, PROFILES, ProfileKernelConfig
from .arguments import COMMANDS, PROG, CompletionConfig, union
from .groups import page


def whole_tree() -> Any:
    """Return the union of all commands with their options, and of the commands below `bench` and `profile`."""
    kernels = dict.fromkeys(("all", *families(), *_kernels()), ProfileKernelConfig)
    below = {"bench": BENCHES, "profile": {**PROFILES, **kernels}}
    names: Any = Literal[tuple(COMMANDS)]
    about: Any = make_dataclass("help", [("command", Annotated[(names, Positional)])])
    choices: list[Any] = [Annotated[(about, subcommand("help"))]]
    for name, kind in COMMANDS.items():
        inside = _pages(below[name]) if name in below else None
        wanted: Any = make_dataclass(name, [("command", inside, field())]) if inside else _page(kind)
        choices.append(Annotated[(wanted, subcommand(name))])
    return union(choices)


def _kernels() -> list[str]:
    return [name for names in families().values() for name in names]


def _pages(kinds: dict[str, type]) -> Any:
    return union([Annotated[_page(kind), subcommand(name)] for name, kind in kinds.items()])


def _page(kind: type) -> type:
    """Return the options of a command, without what is given without a name: that is a file or a text of the user."""
    return page(kind, left_out=("run", "kernels", "a", "b"))


def run(config: CompletionConfig) -> int:
    """Print the script; return the exit code."""
    tyro.cli(
        whole_tree(), prog=PROG, args=["--tyro-print-completion", config.shell],
        config=(OmitArgPrefixes, OmitSubcommandPrefixes),
    )  # fmt: skip
    return 0
