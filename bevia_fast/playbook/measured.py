"""What the lab found, as the playbook tells it: from stored results to sentences, a table and a picture.

    python -m bevia_fast.playbook.measured lab    # in a checkout: take over the results in lab/ and renew the sentences

The results lie beside the chapters in `lab/NAME.json`, each with the command that made it. In a chapter, a paragraph
after `<!-- lab: NAME -->` is the sentence about one of them; a test compares it with the result.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomically
from ..lab.answers import NATS, differences, sentence
from ..lab.experiments import EXPERIMENTS
from .chapters import folder, read_chapters
from .picture import Data

MEASURED = re.compile(r"^<!-- lab: ([\w-]+) -->\n(> .*?)$", re.MULTILINE)
TABLE = re.compile(r"(?<=<!-- all results -->\n).*?(?=\n<!-- end of the results -->)", re.DOTALL)


def results() -> dict[str, Any]:
    """Return the stored results by name, in the order of the experiments."""
    found = {}
    for name in EXPERIMENTS:
        path = folder() / "lab" / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text("utf-8"))
    return found


def said(result: Any) -> str:
    """Return the paragraph about a result."""
    return f"> **Measured** with {result['facts']['command']}. {answer(result)}"


def answer(result: Any) -> str:
    """Return the sentence of a result, computed anew from its cells."""
    return sentence(result["cells"], result["arms"], result["steps"], result.get("unit", NATS))


def table(found: dict[str, Any]) -> str:
    """Return a table of all results, the expectation beside the answer."""
    lines = ["| experiment | question | expected | answer |", "|---|---|---|---|"]
    for name, result in found.items():
        short = answer(result).partition(": ")[2].rpartition(". Each")[0]
        lines.append(f"| `{name}` | {result['question']} | {result['prediction']} | {short} |")
    return "\n".join(lines)


def renewed(text: str, found: dict[str, Any]) -> str:
    """Return the text of a chapter with the sentences and the table of these results."""
    text = MEASURED.sub(lambda match: f"<!-- lab: {match[1]} -->\n{said(found[match[1]])}", text)
    return TABLE.sub(lambda match: table(found), text)


def all_differences() -> Data:
    """The difference of each arm from the first arm of its experiment, with its confidence interval."""
    rows = []
    for name, result in results().items():
        for other in differences(result["cells"], result["arms"])[1:]:
            rows.append((f"{name}: {other.arm}", float(other.mean), float(other.margin)))
    names, means, margins = zip(*rows, strict=True)
    return {"arm": list(names), "difference": list(means), "margin": list(margins)}


def take_over(lab: Path) -> None:
    """Store the results in the folder `lab` beside the chapters, and renew what the chapters say."""
    for name in EXPERIMENTS:
        path = lab / name / "result.json"
        if path.exists():
            result = json.loads(path.read_text("utf-8"))
            result.pop("pages", None)  # which lie beside the report
            for cell in result["cells"]:
                curve = cell.pop("curve")  # which is long, and which the command makes again
                cell["train_loss"] = curve[-1][1] if curve else None
            cells = ",\n".join(f"  {json.dumps(_short(cell))}" for cell in result.pop("cells"))
            content = json.dumps({**result, "cells": []}, indent=1).replace('"cells": []', f'"cells": [\n{cells}\n ]')
            write_atomically(folder() / "lab" / f"{name}.json", (content + "\n").encode())
    for chapter in read_chapters():
        text = renewed(chapter.text, results())
        if text != chapter.text:
            write_atomically(folder() / f"{chapter.name}.md", text.encode())


def _short(value: Any) -> Any:
    """Return a value with its numbers cut to six digits."""
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise UserError("Name the folder with the reports of the experiments, such as lab.")
    take_over(Path(sys.argv[1]))
