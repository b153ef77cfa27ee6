from __future__ import annotations

from typing import Any

import pytest
from measured import each_backend, each_scale, run_kernel


@each_backend
@each_scale
@pytest.mark.parametrize("operation", ["embedding_forward", "embedding_backward"])
def test_embedding(benchmark: Any, operation: str, scale: str, backend: str) -> None:
    run_kernel(benchmark, operation, backend, scale)
