"""llm.c's model files: 256 integers, then all weights of one kind after another, each kind for all layers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError
from ..files import reading, refuse_special
from .foreign import from_bfloat16
from .gpt2 import Foreign, input_by_output

MAGIC = 20240326
HEADER = 256  # int32
DTYPES = {3: "<f4", 5: "<u2"}  # by the version of the file; 5 has bfloat16


def read_llmc(path: Path) -> Foreign:
    """Return the model of a .bin file of llm.c, without the rows that pad its vocabulary.

    Raises CheckpointError for any other file.
    """
    with reading(path):
        refuse_special(path)
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            header = np.frombuffer(file.read(HEADER * 4), "<i4")
            if header.size < HEADER or header[0] != MAGIC:
                raise CheckpointError(f"{path} is not a model of llm.c: its first number is not {MAGIC}.")
            version, T, V, L, NH, C, Vp = (int(number) for number in header[1:8])
            if version not in DTYPES:
                raise CheckpointError(f"{path} has version {version}; this program reads 3 (float32) and 5 (bfloat16).")
            try:
                config = ModelConfig(ctx=T, dim=C, layers=L, heads=NH, vocab_size=V)
                if not 0 < V <= Vp <= 1 << 21:
                    raise ConfigError(f"{V:,} tokens do not fit into {Vp:,} rows.")
            except ConfigError as error:
                raise CheckpointError(f"{path} is not a model of llm.c: {error}") from None
            kinds = _kinds(config, Vp)
            expected = HEADER * 4 + np.dtype(DTYPES[version]).itemsize * sum(map(math.prod, kinds.values()))
            if size != expected:
                raise CheckpointError(f"{path} has {size:,} bytes; a model of its sizes has {expected:,}.")
            tensors: dict[str, NDArray[Any]] = {}
            for name, shape in kinds.items():
                stored = np.fromfile(file, DTYPES[version], math.prod(shape))
                whole = (from_bfloat16(stored) if version == 5 else stored).reshape(shape)
                if "*" in name:
                    tensors |= {name.replace("*", str(layer)): part for layer, part in enumerate(whole)}
                else:
                    tensors[name] = whole[:V] if name == "wte.weight" else whole
    return Foreign(config, input_by_output(tensors))


def _kinds(config: ModelConfig, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the kinds of weights in the order of the file; * is each layer in turn."""
    C, L = config.dim, config.layers
    return {
        "wte.weight": (rows, C), "wpe.weight": (config.ctx, C),
        "h.*.ln_1.weight": (L, C), "h.*.ln_1.bias": (L, C),
        "h.*.attn.c_attn.weight": (L, 3 * C, C), "h.*.attn.c_attn.bias": (L, 3 * C),
        "h.*.attn.c_proj.weight": (L, C, C), "h.*.attn.c_proj.bias": (L, C),
        "h.*.ln_2.weight": (L, C), "h.*.ln_2.bias": (L, C),
        "h.*.mlp.c_fc.weight": (L, 4 * C, C), "h.*.mlp.c_fc.bias": (L, 4 * C),
        "h.*.mlp.c_proj.weight": (L, C, 4 * C), "h.*.mlp.c_proj.bias": (L, C),
        "ln_f.weight": (C,), "ln_f.bias": (C,),
    }  # fmt: skip
