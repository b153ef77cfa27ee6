from __future__ import annotations

from typing import Any

import pytest
from measured import each_backend, each_scale, run_kernel


@each_backend
@each_scale
@pytest.mark.parametrize("operation", ["attention_forward", "attention_backward", "attention_weights"])
def test_attention(benchmark: Any, operation: str, scale: str, backend: str) -> None:
    run_kernel(benchmark, operation, backend, scale)
