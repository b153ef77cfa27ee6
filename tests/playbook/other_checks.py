"""What the chapters quote beside the kernels, compared with the plain loops of the text: a check for each file.

Each takes the module, which may have been changed, and returns whether it computes what the text says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CHECKS: dict[str, Callable[[Any], bool]] = {}
