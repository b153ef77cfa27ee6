"""`--config FILE`: options of `train` and `plan` from a file, TOML or the options.json that a run wrote.

    preset = "tiny"          # what the other options change,
    recipe = "fast"          # and how it is trained
    data = ["book.txt"]
    steps = 5000
    min-lr = 1e-5            # or min_lr

    [model]                  # may be left out: the names are unique
    dim = 96

`--config -` reads TOML from standard input. From a run's options.json come the options that make the run anew: its
folder and its way of resuming are left behind.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..config import STANDARD, ModelConfig, TrainConfig, preset, preset_name
from ..errors import ConfigError, UserError, shown
from ..files import CONFIG, OPTIONS, is_folder, options_file, read_standard_input, reading, refuse_nul, refuse_special
from .fields import Option, command_options
from .hints import did_you_mean, other_name

LARGEST = 1 << 20  # bytes; a file of options has a few hundred
STARTS = ("preset", "recipe")  # what the other options change
OF_THE_RUN = ("out", "name", "resume", "allow_changed_text")  # options of options.json that another run must not share
OF_THE_LAB = ("scale", "residual", "bias_correction")  # options that the command line does not have


def read_config(name: str) -> TrainConfig:
    """Return the options in a file, or in the options.json of a run's folder.

    Raises UserError for a file that cannot be read, an unknown option, and a value of the wrong type or out of range.
    """
    path, text = _read(name)
    try:
        found = json.loads(text, object_pairs_hook=_once) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise UserError(f"{shown(path)} is not {kind}: {shown(error)}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{shown(path)} is not an object with options.")
    if path.name == CONFIG and "model_type" in found:
        raise UserError(
            f"{shown(path)} describes a model to other programs; the options of a run are in its {OPTIONS}."
        )
    known = {option.option[2:]: option for option in command_options(TrainConfig).values()}
    known |= {name.replace("_", "-"): Option(name, "", bool, (), False, False, None) for name in OF_THE_LAB}
    given: dict[str, Any] = {}
    for key, value in _entries(path, found):
        option = known.get(key.replace("_", "-"))
        if key in STARTS:
            option = Option(key, f"--{key}", str, (), False, False, None)
        if option is None:
            raise UserError(f"{shown(path)} has an unknown option {shown(key)}{_meant(key, known)}.")
        if option.field in given:
            raise UserError(f"{shown(path)} has two values of {option.field}.")
        given[option.field] = _typed(path, option, value)
    if given.get("resume"):
        raise UserError(f"{shown(path)} has resume, which a file cannot have: name the run with --resume.")
    name_of_run = given.pop("name", "")  # `preset` calls the preset's name so
    try:
        return replace(preset(preset_name(given.pop("preset", "laptop")), **given), name=name_of_run)
    except ConfigError as error:
        raise UserError(f"{shown(path)}: {error}") from None


def _read(name: str) -> tuple[Path, str]:
    if name == STANDARD:
        return Path("standard input"), read_standard_input("The file of options")
    refuse_nul(name, "a file of options")
    path = Path(name)
    with reading(path):
        path = options_file(path) if is_folder(path) else path
    with reading(path):
        if path.suffix.lower() not in (".toml", ".json"):
            raise UserError(f"{shown(path)} has no options: --config takes a .toml file, or the {OPTIONS} of a run.")
        refuse_special(path)
        if os.stat(path).st_size > LARGEST:
            raise UserError(f"{shown(path)} is larger than any file of options.")
        content = path.read_bytes()
    try:
        return path, content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises ValueError if a name is there twice, as TOML does."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _entries(path: Path, found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the options, without what a run's options.json has besides."""
    of_a_run = "format_version" in found and "facts" in found
    for key, value in found.items():
        if key == "model":
            if not isinstance(value, dict):
                raise UserError(f"{shown(path)}: model is {shown(repr(value), 40)}; it must be a table of sizes.")
            sizes = {each.name for each in fields(ModelConfig)}
            for name, size in value.items():
                if of_a_run and name == "vocab_size":  # taken from the text
                    continue
                if name.replace("-", "_") not in sizes:
                    raise UserError(f"{shown(path)} has an unknown option model.{shown(name)}{_meant(name, sizes)}.")
                yield name, size
        elif not (of_a_run and (key in OF_THE_RUN or key in ("format_version", "facts"))):
            yield key, value


def _meant(key: str, known: Any) -> str:
    name = key.lower().replace("_", "-")
    meant = other_name(name)
    if meant.replace("-", "_") in known or meant in known:
        return f"; that is {meant} here"
    return did_you_mean(name, [*(each.replace("_", "-") for each in known), *STARTS])


def _typed(path: Path, option: Option, value: Any) -> Any:
    """Return a value as its option has it. Raises UserError if it has another type."""
    if option.many:
        values = value if isinstance(value, list) else [value]
        if all(type(each) is str for each in values):
            return tuple(values)
        wanted = "a string or a list of strings"
    elif option.choices:
        if value in option.choices:
            return value
        wanted = f"one of {', '.join(map(repr, option.choices))}"
    elif option.kind is float:
        if type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max):
            return float(value)
        wanted = "a number"
    else:
        if type(value) is option.kind:
            return value
        wanted = {int: "an integer", bool: "true or false", str: "a string"}[option.kind]
    raise UserError(f"{shown(path)}: {option.field} is {shown(repr(value), 40)}; it must be {wanted}.")
