"""Which files are read as text: those that are named, and in folders those that a pattern fits."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import DataError, counted
from ..files import METRICS, SAMPLE, mode
from ..naming import option

USUAL = ("*.txt", "*.txt.gz")  # what is read in a folder without --glob
ARCHIVED = "__MACOSX"  # what a Mac's zip adds for every file
HIDDEN, LINKED_FOLDER, SAMPLES, OTHER = "hidden", "linked folder", "sample of a run", "special file"
NO_EXTENSION = "file without an extension"
PLURALS = {LINKED_FOLDER: "linked folders", SAMPLES: "samples of runs", OTHER: "special files",
           NO_EXTENSION: "files without an extension"}  # fmt: skip
SHOWN = 6  # kinds of ignored files that a message lists

# Extensions of frequent files that no pattern makes text.
NOT_TEXT = {
    "pdf", "zip", "gz", "bz2", "xz", "7z", "rar", "tar", "docx", "doc", "odt", "rtf", "epub", "mobi", "xlsx", "pptx",
    "png", "jpg", "jpeg", "gif", "svg", "webp", "mp3", "mp4", "wav", "safetensors", "bin", "npy", "pyc", "so",
}  # fmt: skip

# Text with something else in between, which a model learns to write too.
MARKED_UP = {
    ".html": "its tags", ".htm": "its tags", ".xml": "its tags", ".csv": "its commas and quotes", ".tsv": "its tabs",
    ".json": "its punctuation", ".jsonl": "its punctuation", ".ipynb": "its punctuation",
}  # fmt: skip


@dataclass
class Selection:
    """The files that a path stands for, and what was left out."""

    path: str
    files: list[str]
    ignored: Counter[str] = field(default_factory=Counter)  # how many files of each kind, such as "*.md" or HIDDEN
    dangling: list[str] = field(default_factory=list)
    is_folder: bool = False

    def described(self) -> str:
        """Return what was taken and what was not, such as "2 files of books; ignored: 3 *.md and 1 hidden"."""
        taken = f"{counted(len(self.files), 'file')} of {self.path}"
        return f"{taken}; ignored: {listed(self.ignored)} (see {option('glob')})" if self.ignored else taken


def select(path: str, globs: Sequence[str] = ()) -> Selection:
    """Return the files that `path` stands for: itself, or the files of a folder, at any depth, in sorted order.

    In a folder, these are the files that one of the patterns `globs` fits, whatever the case of their letters, except
    hidden ones, what a Mac adds to a zip, and the samples of runs. Raises DataError if there is none, or if a folder
    cannot be read.
    """
    if path == "-" or not os.path.isdir(path):
        return Selection(path, [path])
    found = Selection(path, [], is_folder=True)
    patterns = [pattern.lower().split("/") for pattern in globs or USUAL]
    taken = [name for name in _walk(path, found, patterns) if _is_taken(path, name, found, patterns)]
    if not taken:
        raise DataError(_nothing(found, globs or USUAL))
    found.files = [str(name) for name in sorted(taken)]
    return found


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn an OSError into a DataError of one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or named(name)  # in a folder, the file
        raise DataError(f"Cannot read {where}: {reason}.") from None


def named(path: str) -> str:
    return "Standard input" if path == "-" else path


def listed(counts: Counter[str], most: int = SHOWN) -> str:
    """Return how many there are of each kind, the most frequent first: `3 *.md, 2 *.py and 1 hidden`."""
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {PLURALS.get(kind, kind) if count > 1 else kind}" for kind, count in kinds[:most]]
    if len(kinds) > most:
        parts.append(counted(sum(count for _, count in kinds[most:]), "other"))
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _walk(path: str, found: Selection, patterns: list[list[str]]) -> Iterator[Path]:
    """Yield the files of a folder, and count those that cannot be taken whatever the patterns are."""
    hidden_wanted = any(part.startswith(".") for pattern in patterns for part in pattern)

    def fail(error: OSError) -> None:
        raise error

    with reading(path):
        for folder, folders, names in os.walk(path, onerror=fail):
            for name in list(folders):
                hidden = name.startswith(".") and not hidden_wanted
                if name == ARCHIVED or hidden:
                    folders.remove(name)
                    if count := sum(len(files) for _, _, files in os.walk(os.path.join(folder, name))):
                        found.ignored[HIDDEN] += count
                elif os.path.islink(os.path.join(folder, name)):
                    found.ignored[LINKED_FOLDER] += 1
            yield from (Path(folder, name) for name in names)


def _is_taken(path: str, file: Path, found: Selection, patterns: list[list[str]]) -> bool:
    """Return whether a pattern fits a file, and count it if not."""
    parts = file.relative_to(path).parts
    fits = any(_fits([part.lower() for part in parts], ["**", *pattern]) for pattern in patterns)
    if not fits:
        hidden = any(part.startswith(".") for part in parts)
        found.ignored[HIDDEN if hidden else _kind(file)] += 1
        return False
    with reading(path):
        about = mode(file)
        is_sample = file.name == SAMPLE and mode(file.parent / METRICS) != 0
    if not about:
        found.dangling.append(str(file))
    elif not stat.S_ISREG(about):
        found.ignored[OTHER] += 1
    elif is_sample:  # a run must not train on what a run wrote
        found.ignored[SAMPLES] += 1
    else:
        return True
    return False


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a pattern fits a path, both as a list of names; ** stands for any number of folders.

    As in a shell, a leading period is matched only by a period.
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rests = range(len(parts) + 1)
        return any(
            _fits(parts[rest:], pattern[1:]) and not any(part.startswith(".") for part in parts[:rest])
            for rest in rests
        )
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _kind(file: Path) -> str:
    return f"*{file.suffix.lower()}" if file.suffix else NO_EXTENSION


def _nothing(found: Selection, globs: Sequence[str]) -> str:
    """Return the error for a folder without a file that is taken."""
    wanted = " or ".join(globs)
    error = f"The folder {found.path} contains no {wanted} file at any depth"
    if found.dangling:
        return f"{error} except a link to nothing, {found.dangling[0]}."
    if not found.ignored:
        return f"{error}; it is empty."
    kinds = [kind for kind, _ in found.ignored.most_common() if kind.startswith("*.") and kind[2:] not in NOT_TEXT]
    remedy = f"; {option('glob', (kinds[0],))} reads those" if kinds else ""
    return f"{error}, only {listed(found.ignored)}{remedy}."
