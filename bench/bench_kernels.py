"""Benchmark every kernel at the sizes of a small, a medium and a large model."""

from __future__ import annotations

from typing import Any

import pytest
from measured import each_backend, each_scale, run_kernel

from bevia_fast.kernels.contract import OPERATIONS


@each_backend
@each_scale
@pytest.mark.parametrize("operation", OPERATIONS)
def test_kernel(benchmark: Any, operation: str, scale: str, backend: str) -> None:
    run_kernel(benchmark, operation, backend, scale)
