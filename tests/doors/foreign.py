"""Other people's programs, which the core suite does without and CI requires."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

REQUIRED = "BEVIA_FAST_DOORS"  # CI sets it to "required": then a missing program is a failure


def needed(name: str) -> Any:
    """Return a module of the extra doors-test; skip the test where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(f"{name} is not installed, and {REQUIRED}=required")
        pytest.skip(f"{name} is not installed")
