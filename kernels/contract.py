"""The contract: what every backend promises. `numpy_ref` and `numba_jit` are two of them.

`operations` declares the operations, each as a function without a body: signature, formula, shapes, errors, cost. Each
backend implements all of them under `@implements(contract.<operation>)`, which puts the same checks in front of both.

Laws:

- Kernels write into arrays of the caller. Gradients of parameters (`dweight`, `dbias`, `d*_table`) are **added to**;
  every other output is overwritten.
- All floating-point arrays of a call have one dtype, float32 or float64, and are C-contiguous. A weight may also be
  F-contiguous, that is the `.T` of a C-contiguous array, so that a tied output head shares the embedding's memory.
- An operation with the option `precision` may round the operands of its products to bfloat16; see `kernels.bfloat16`.
- An output may share memory with an input only where the operation says "in place".
- A wrong shape, dtype or layout, or a read-only output, raises a `ContractError` that names the operation and the
  argument. Then nothing is written.
"""

from __future__ import annotations

from .checks import (
    UNCHECKED,
    Activation,
    Norm,
    Precision,
    check_decoding,
    check_ids,
    check_matrices,
    check_rows,
    check_window,
    check_windows,
    implements,
)
from .costs import FUNCTION, Cost
from .declaration import OPERATIONS, Array, ArraySpec, ContractError, Operation, operation
from .newton_schulz import MatrixAt
from .operations import (
    NORM_EPS,
    adamw,
    attention_backward,
    attention_forward,
    attention_weights,
    cross_entropy,
    decode_tokens,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    gelu_backward,
    gelu_erf_backward,
    gelu_erf_forward,
    gelu_forward,
    layernorm_backward,
    layernorm_forward,
    linear_backward,
    linear_forward,
    muon,
    relu_backward,
    relu_forward,
    rotary_backward,
    rotary_forward,
    sample_token,
    squared_norm,
)

__all__ = [
    "FUNCTION",
    "NORM_EPS",
    "OPERATIONS",
    "UNCHECKED",
    "Activation",
    "Array",
    "ArraySpec",
    "Backend",
    "ContractError",
    "Cost",
    "MatrixAt",
    "Norm",
    "Operation",
    "Precision",
    "adamw",
    "attention_backward",
    "attention_forward",
    "attention_weights",
    "check_decoding",
    "check_ids",
    "check_matrices",
    "check_rows",
    "check_window",
    "check_windows",
    "cross_entropy",
    "decode_tokens",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "gelu_backward",
    "gelu_erf_backward",
    "gelu_erf_forward",
    "gelu_forward",
    "implements",
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_forward",
    "muon",
    "operation",
    "relu_backward",
    "relu_forward",
    "rotary_backward",
    "rotary_forward",
    "sample_token",
    "squared_norm",
]


class Backend:
    """All operations of the contract, as the model gets them. A package of kernels is a backend; see `get_backend`.

    A backend may have three more functions, which record passes on a `tape.Tape` and replay them. `launches` returns a
    context that notes which compiled functions the operations call; `conditions` returns a value that must not change
    between a recording and its replay; `play` replaces the tape's own. A backend that wraps another one, to observe or
    change its operations, must not pass on `launches` unless its `play` does the same as its operations.
    """

    name: str

    embedding_forward = staticmethod(embedding_forward)
    embedding_backward = staticmethod(embedding_backward)
    layernorm_forward = staticmethod(layernorm_forward)
    layernorm_backward = staticmethod(layernorm_backward)
    linear_forward = staticmethod(linear_forward)
    linear_backward = staticmethod(linear_backward)
    relu_forward = staticmethod(relu_forward)
    relu_backward = staticmethod(relu_backward)
    gelu_forward = staticmethod(gelu_forward)
    gelu_backward = staticmethod(gelu_backward)
    gelu_erf_forward = staticmethod(gelu_erf_forward)
    gelu_erf_backward = staticmethod(gelu_erf_backward)
    rotary_forward = staticmethod(rotary_forward)
    rotary_backward = staticmethod(rotary_backward)
    attention_forward = staticmethod(attention_forward)
    attention_backward = staticmethod(attention_backward)
    attention_weights = staticmethod(attention_weights)
    decode_tokens = staticmethod(decode_tokens)
    sample_token = staticmethod(sample_token)
    dropout_forward = staticmethod(dropout_forward)
    dropout_backward = staticmethod(dropout_backward)
    cross_entropy = staticmethod(cross_entropy)
    squared_norm = staticmethod(squared_norm)
    adamw = staticmethod(adamw)
    muon = staticmethod(muon)
