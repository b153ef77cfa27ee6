"""What all tests share: the backends as a fixture, and hypothesis drawing the same examples in every run."""

from __future__ import annotations

import pytest
from hypothesis import settings

from bevia_fast.kernels import BACKENDS, Backend, get_backend

settings.register_profile("repeatable", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    return get_backend(request.param)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
