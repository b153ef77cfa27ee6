"""The pictures of the chapters: what they show is computed by the program, and stored beside them as numbers.

    python -m bevia_fast.playbook.figures         # in a checkout: compute and draw all of them anew

Each picture is a function that returns its data, and one that draws them. The data lie beside the picture as JSON; a
test computes them again and compares. Run the command above after a change that is meant to change them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..canvas import Figure, fixed_style, rendered
from ..files import write_atomically
from . import pictures_of_attention, pictures_of_layers, pictures_of_numbers
from .chapters import folder
from .picture import Data, Picture


def pictures() -> dict[str, Picture]:
    """Return all pictures by name."""
    return {
        **pictures_of_layers.PICTURES, **pictures_of_attention.PICTURES, **pictures_of_numbers.PICTURES,
    }  # fmt: skip


def stored(name: str) -> Data:
    """Return the data of a picture as they lie beside it."""
    found: Data = json.loads((folder() / "figures" / f"{name}.json").read_text("utf-8"))
    return found


def computed(name: str) -> Data:
    """Return the data of a picture, computed now, in the form in which they are stored."""
    found: Data = json.loads(as_json(pictures()[name].compute()))
    return found


def as_json(data: Data) -> str:
    """Return data as JSON with seven digits, a line for each name."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return float(f"{value:.7g}") if isinstance(value, float) else value

    lines = [f"  {json.dumps(name)}: {json.dumps(plain(value), ensure_ascii=False)}" for name, value in data.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def svg(name: str, data: Data) -> bytes:
    """Draw a picture from its data."""
    picture = pictures()[name]
    with fixed_style():
        figure = Figure(figsize=(7.0 if picture.panels > 1 else 5.6, picture.height), layout="constrained")
        axes = figure.subplots(1, picture.panels, squeeze=False)[0]
        picture.draw(axes[0] if picture.panels == 1 else axes, data)
    return rendered(figure, "svg")


def main() -> None:
    """Compute, draw and store all pictures."""
    for name in pictures():
        data = computed(name)
        write_atomically(folder() / "figures" / f"{name}.json", as_json(data).encode())
        write_atomically(folder() / "figures" / f"{name}.svg", svg(name, data))
        print(name)


if __name__ == "__main__":
    main()
