"""Threads that wait for each other: Python's, in code that lets go of its lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Array

from bevia_fast.kernels.numba_jit._runtime.jit import kernel
from bevia_fast.kernels.numba_jit._runtime.team import ARRIVED, DELAYED, TEAM_SIZE, barrier


@kernel(parallel=False)
def _meet(team: Array, patient: Any) -> None:
    barrier(team, 2, patient)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not happen")


@pytest.mark.parametrize("patient", [False, True])
def test_a_long_wait_is_a_delay_unless_it_was_expected(patient: bool) -> None:
    _meet(np.ones(TEAM_SIZE, np.int64), patient)  # compiles it, and finds that the other is there
    team = np.zeros(TEAM_SIZE, np.int64)
    first = threading.Thread(target=_meet, args=(team, patient), daemon=True)
    first.start()
    wait_until(lambda: bool(team[ARRIVED] == 1))
    if patient:
        time.sleep(0.2)
    else:
        wait_until(lambda: bool(team[DELAYED] == 1))
    _meet(team, patient)
    first.join()
    assert (team[ARRIVED], team[DELAYED]) == (2, 0 if patient else 1)
