"""The kernels of a GPT, twice: `numpy_ref` reads like the mathematics, `numba_jit` runs near the machine's limit.

Start with `contract.py`, the laws that hold for all operations, and `operations.py`, each operation with its formula,
its shapes and its cost. Then read any operation in `numpy_ref/<operation>.py` and `numba_jit/<operation>.py` side by
side: both have the same signatures, the same names and the same order.

A backend is a package with one function per operation. The model gets it as an object:

    from bevia_fast.kernels import get_backend
    backend = get_backend("numba")
    backend.layernorm_forward(out, mean, rstd, inp, weight, bias)
"""

from __future__ import annotations

import importlib
from typing import cast

from .contract import Backend, ContractError

BACKENDS = {"numpy": "numpy_ref", "numba": "numba_jit"}

__all__ = ["BACKENDS", "Backend", "ContractError", "get_backend"]


def get_backend(name: str) -> Backend:
    """Return the backend "numpy" or "numba". There is no fallback from one to the other.

    Raises ValueError for another name, ImportError if the backend's packages do not load.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are {' and '.join(map(repr, BACKENDS))}")
    return cast(Backend, importlib.import_module(f".{BACKENDS[name]}", __name__))
