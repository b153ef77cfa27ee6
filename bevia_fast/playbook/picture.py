"""What a picture of the playbook is; see `figures`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Data = Mapping[str, Any]  # of numbers, texts and lists of them
TOLERANCE = 1e-6  # relative to the largest number of a list


@dataclass(frozen=True)
class Picture:
    """A picture: its data, computed anew by each call, and how they are drawn. `panels` are drawn side by side."""

    compute: Callable[[], Data]
    draw: Callable[[Any, Data], None]
    panels: int = 1
    height: float = 3.2  # inches
    tolerance: float = TOLERANCE
