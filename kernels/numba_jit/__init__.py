"""The fast backend: each kernel compiled by Numba for the CPU at hand, parallel over its cores.

Reading order: `linear`, `linear_backward`, `activation`, `layernorm`, `rotary`, `attention`, `attention_backward`,
`embedding`, `cross_entropy`, `dropout`, `adamw`, `muon`, `decode`, `sampling`. Each reads beside the file of its name
in `numpy_ref`, where the forward and backward passes share a file.
"""

from ._runtime.launches import conditions, launches
from .activation import (
    gelu_backward,
    gelu_erf_backward,
    gelu_erf_forward,
    gelu_forward,
    relu_backward,
    relu_forward,
)
from .adamw import adamw, squared_norm
from .attention import attention_forward, attention_weights
from .attention_backward import attention_backward
from .cross_entropy import cross_entropy
from .decode import decode_tokens
from .dropout import dropout_backward, dropout_forward
from .embedding import embedding_backward, embedding_forward
from .layernorm import layernorm_backward, layernorm_forward
from .linear import linear_forward
from .linear_backward import linear_backward
from .muon import muon
from .rotary import rotary_backward, rotary_forward
from .sampling import sample_token

name = "numba"

__all__ = [
    "adamw",
    "attention_backward",
    "attention_forward",
    "attention_weights",
    "conditions",
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
    "launches",
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
