"""A table that fits the terminal: columns give way in the order of their importance, and lines break between words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

GAP = 2  # spaces between columns
LEAST_WRAPPED = 14  # characters: a column of sentences takes this much room before another column gives way to it


@dataclass(frozen=True)
class Sheet:
    """A table of text. `left` columns of text stand before `right` columns of numbers.

    `blocks` holds rows under their headings; a table without headings has one block, under "". Where the table is too
    wide, the columns in `droppable` give way, the first of them first. `sentences` names columns of text that break
    between words before that; other columns of text break only once nothing is left to drop.
    """

    title: str
    left: Sequence[str]
    right: Sequence[str]
    blocks: Mapping[str, Sequence[Sequence[str]]]
    droppable: Sequence[str] = ()
    sentences: Sequence[str] = ()
    styles: Mapping[str, str] = field(default_factory=lambda: {"title": "italic", "head": "bold", "heading": "bold"})

    def lines(self, width: int | None) -> list[tuple[str, str]]:
        """Return (style, line) of each line, at most `width` characters long if that is given and words allow it."""
        names = [*self.left, *self.right]
        rows = [names, *(row for block in self.blocks.values() for row in block)]
        kept, widths = self._fitted(rows, width)
        found = [(self.styles["title"], line) for line in wrapped(self.title, width)]
        head = [line for line in self._row(names, kept, widths) if line]
        found += [(self.styles["head"], line) for line in head]
        if "" in self.blocks and head:
            found.append(("", "─" * (sum(widths.values()) + GAP * (len(kept) - 1))))
        for heading, block in self.blocks.items():
            found += [(self.styles["heading"], line) for line in wrapped(heading, width)]
            found += [("", line) for row in block for line in self._row(row, kept, widths)]
        left_out = [names[column] for column in range(len(names)) if column not in kept]
        if left_out:
            found += [("", line) for line in wrapped(f"Too wide for this terminal: {', '.join(left_out)}.", width)]
        return [*found, ("", "")]

    def _fitted(self, rows: Sequence[Sequence[str]], width: int | None) -> tuple[list[int], dict[int, int]]:
        """Return the columns that are shown, and their widths."""
        names = rows[0]
        kept = list(range(len(names)))
        whole = {column: max(cell_len(row[column]) for row in rows) for column in kept}
        words = {column: max(_longest_word(row[column]) for row in rows) for column in kept[: len(self.left)]}
        room = float("inf") if width is None else width
        least = dict(whole)
        for column in words:
            if names[column] in self.sentences:
                least[column] = min(whole[column], max(words[column], LEAST_WRAPPED))

        def total(widths: Mapping[int, int]) -> int:
            return sum(widths[column] for column in kept) + GAP * (len(kept) - 1)

        for name in self.droppable:
            if total(least) > room and name in names:
                kept.remove(names.index(name))
        for column in sorted(words, key=lambda column: -least[column]):
            if column in kept and total(least) > room:
                least[column] = max(words[column], least[column] - int(total(least) - room))
        for column in words:  # what room is left goes to the sentences
            if column in kept and least[column] < whole[column]:
                least[column] = int(min(whole[column], least[column] + max(0, room - total(least))))
        return kept, {column: least[column] for column in kept}

    def _row(self, row: Sequence[str], kept: Sequence[int], widths: Mapping[int, int]) -> list[str]:
        """Return the lines of a row; cells that break between words have several."""
        cells = [
            textwrap.wrap(row[column], widths[column], break_long_words=False, break_on_hyphens=False) or [""]
            if cell_len(row[column]) > widths[column] else [row[column]]
            for column in kept
        ]  # fmt: skip
        found = []
        for number in range(max(map(len, cells), default=0)):
            parts = []
            for column, cell in zip(kept, cells, strict=True):
                text = cell[number] if number < len(cell) else ""
                space = " " * (widths[column] - cell_len(text))
                parts.append(text + space if column < len(self.left) else space + text)
            found.append((" " * GAP).join(parts).rstrip())
        return found


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """Return a text as lines of at most `width` characters that break between words; all but the first begin with
    `indent`. A word that is longer than that, such as a path, is not broken."""
    if width is None or cell_len(text) <= width:
        return [text] if text else []
    found = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return found or [text]


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)
