"""The help page of a command: which options it shows, under which headings, and with which defaults.

tyro makes a heading of each dataclass inside a dataclass. The configurations have one inside another only where that
means something, so this module makes the dataclasses that the headings need, and puts the parsed values back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass, replace
from typing import Annotated, Any

from tyro.conf import arg

from ..describing import field_docstrings
from .fields import bare, own_fields

# The heading under which a field stands, and the fields after it up to the next one that is named here. Without a
# heading: the general options, at the top.
HEADINGS = {
    "preset": "", "out": "", "seed": "", "data": "data", "allow_changed_text": "data", "ctx": "model",
    "steps": "optimizer", "on_nan": "optimizer", "eval_every": "evaluation", "patience": "evaluation",
    "resume": "checkpoint", "save_every": "checkpoint", "recompute": "memory", "backend": "backend",
}  # fmt: skip
ORDER = ("data", "model", "optimizer", "evaluation", "checkpoint", "memory", "backend")

# Options of `train` that change nothing about what `plan` prints. `plan` takes them too, but does not list them.
NOT_PLANNED = {
    "out", "name", "allow_changed_text", "lr", "min_lr", "warmup", "muon_lr", "muon_momentum", "weight_decay", "beta1",
    "beta2", "eps", "grad_clip", "eval_every", "eval_batches", "sample_every", "save_every", "save_seconds",
    "patience", "on_nan", "ignore_memory", "seed",
}  # fmt: skip


def page(kind: type, defaults: Any = None, left_out: Collection[str] = (), headings: bool = False) -> type:
    """Return a dataclass for tyro with the options of a configuration, except those that are `left_out`.

    `defaults` is a configuration whose values are the defaults; without it, the fields' own ones are.
    """
    parts: dict[str, list[tuple[str, Any, Any]]] = {heading: [] for heading in ("", *ORDER)}
    heading = ""
    for name, hint, default in _entries(kind, defaults):
        heading = HEADINGS.get(name, heading) if headings else ""
        if name not in left_out:
            parts[heading].append((name, hint, field() if default is MISSING else field(default=default)))
    found = sorted(parts.pop(""), key=lambda part: part[2].default is not MISSING)  # as dataclasses want it
    for name, inside in parts.items():
        if inside:
            group = make_dataclass(name, inside, frozen=True)
            found.append((name, Annotated[group, arg(help="")], field(default_factory=group)))
    return make_dataclass(kind.__name__, found, frozen=True, namespace={"__doc__": kind.__doc__})


def _entries(kind: type, defaults: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, type with its description, default) of each option, those of dataclasses inside it last."""
    about = field_docstrings(kind)
    declared = {each.name: each for each in fields(kind)}
    inside = []
    for name, hint in own_fields(kind):
        if is_dataclass(bare(hint)):
            inside.append((bare(hint), None if defaults is None else getattr(defaults, name)))
            continue
        default = declared[name].default if defaults is None else getattr(defaults, name)
        note = arg(help=about.get(name), help_behavior_hint=_default_shown(default))
        yield name, Annotated[(bare(hint), note, *getattr(hint, "__metadata__", ()))], default
    for part, values in inside:
        yield from _entries(part, values)


def _default_shown(default: Any) -> str | None:
    """Return what help shows as the default, or None for the value itself.

    An empty default says nothing that the description does not say better, and a flag that is off goes without saying.
    """
    if isinstance(default, bool):
        return "(on by default)" if default else ""
    return "" if default in ("", ()) else None


def filled(kind: type, parsed: Any, defaults: Any = None) -> Any:
    """Return the configuration with the parsed values of its page; what the page left out keeps its default."""
    return _filled(kind, dict(_values(parsed)), defaults)


def _values(parsed: Any) -> Iterator[tuple[str, Any]]:
    for each in fields(parsed):
        value = getattr(parsed, each.name)
        if is_dataclass(value):
            yield from _values(value)
        else:
            yield each.name, value


def _filled(kind: type, values: dict[str, Any], defaults: Any) -> Any:
    changes = {}
    for name, hint in own_fields(kind):
        if is_dataclass(bare(hint)):
            changes[name] = _filled(bare(hint), values, None if defaults is None else getattr(defaults, name))
        elif name in values:
            changes[name] = values[name]
    return kind(**changes) if defaults is None else replace(defaults, **changes)
