"""What the tests of planning share."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import pytest

from bevia_fast.backends import open_backend

THREADS = min(2, numba.config.NUMBA_NUM_THREADS)


@pytest.fixture
def two_threads() -> Iterator[int]:
    """Plan memory here with as many threads as the child processes use in which it is measured."""
    before = numba.get_num_threads()
    open_backend("numba", THREADS)
    yield THREADS
    numba.set_num_threads(before)
