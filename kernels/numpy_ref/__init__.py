"""The reference backend: each kernel in plain NumPy, one line of code per line of the formula.

Reading order: `linear`, `activation`, `layernorm`, `rotary`, `attention`, `embedding`, `cross_entropy`, `dropout`,
`adamw`, `muon`, `decode`, `sampling`.
"""

from .activation import (
    gelu_backward,
    gelu_erf_backward,
    gelu_erf_forward,
    gelu_forward,
    relu_backward,
    relu_forward,
)
from .adamw import adamw, squared_norm
from .attention import attention_backward, attention_forward, attention_weights
from .cross_entropy import cross_entropy
from .decode import decode_tokens
from .dropout import dropout_backward, dropout_forward
from .embedding import embedding_backward, embedding_forward
from .layernorm import layernorm_backward, layernorm_forward
from .linear import linear_backward, linear_forward
from .muon import muon
from .rotary import rotary_backward, rotary_forward
from .sampling import sample_token

name = "numpy"

__all__ = [
    "adamw",
    "attention_backward",
    "attention_forward",
    "attention_weights",
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
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_forward",
    "muon",
    "name",
    "relu_backward",
    "relu_forward",
    "rotary_backward",
    "rotary_forward",
    "sample_token",
    "squared_norm",
]
