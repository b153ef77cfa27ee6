"""Files as other programs write them, made without those programs."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevia_fast.config import ModelConfig
from bevia_fast.model.parameters import Parameters

Array = NDArray[Any]

KINDS = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "bool": "BOOL", "uint8": "U8"}


def bfloat16(numbers: Array) -> Array:
    """Return the upper halves of float32 numbers, as uint16; the lower halves are cut off."""
    return (np.ascontiguousarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: Mapping[str, Array], **changes: Any) -> None:
    """Write a file without a checksum. `changes` replace entries of its header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        content = np.ascontiguousarray(tensor).tobytes()
        header[name] = {
            "dtype": KINDS[tensor.dtype.name], "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }  # fmt: skip
        data += content
    text = json.dumps(header | changes).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


# ------------------------------------------------------------------------------------------------------------- pickles


class Stored:
    """An array that is pickled as PyTorch pickles a tensor."""

    def __init__(self, array: Array, storage: str, transposed: bool = False) -> None:
        """With `transposed`, the tensor is a transposed view of the stored numbers, with their strides."""
        self.storage, self.shape = storage, array.shape
        self.stored = np.ascontiguousarray(array.T if transposed else array).reshape(-1)
        steps = np.empty(array.T.shape if transposed else array.shape, np.int8).strides
        self.stride = steps[::-1] if transposed else steps

    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        place = Place(self)
        return rebuild, (place, 0, self.shape, self.stride, False, OrderedDict())


class Place:
    def __init__(self, tensor: Stored) -> None:
        self.tensor = tensor


class TorchPickler(pickle.Pickler):
    """Pickles `Stored` arrays, and keeps their bytes under their keys in `data`."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.data: dict[str, bytes] = {}

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Place):
            return None
        key, tensor = str(len(self.data)), thing.tensor
        self.data[key] = tensor.stored.tobytes()
        return "storage", getattr(sys.modules["torch"], tensor.storage), key, "cpu", tensor.stored.size


@contextlib.contextmanager
def named_like_torch() -> Iterator[None]:
    """Inside this context, `torch` has the few names that its pickles mention."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    before = {name: sys.modules.pop(name, None) for name in ("torch", "torch._utils")}
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def write_torch(path: Path, content: Any) -> None:
    """Write what torch.save writes: a zip with a pickle and the numbers of each tensor."""
    file = io.BytesIO()
    with named_like_torch():
        pickler = TorchPickler(file)
        pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ckpt/data.pkl", file.getvalue())
        archive.writestr("ckpt/byteorder", "little")
        for key, numbers in pickler.data.items():
            archive.writestr(f"ckpt/data/{key}", numbers)


def nanogpt_checkpoint(weights: Parameters, prefix: str = "_orig_mod.") -> dict[str, Any]:
    """Return what nanoGPT saves of a model with our weights, without its optimizer."""
    config = weights.config
    tensors = {}
    for name, view in weights.items():
        linear = view.ndim == 2 and name.startswith("h.")
        tensors[f"{prefix}transformer.{name}"] = Stored(view.T if linear else view, "FloatStorage", linear)
    tensors[f"{prefix}lm_head.weight"] = Stored(weights["wte.weight"], "FloatStorage")
    sizes = {
        "n_layer": config.layers, "n_head": config.heads, "n_embd": config.dim, "block_size": config.ctx,
        "bias": config.bias, "vocab_size": config.vocab_size, "dropout": config.dropout,
    }  # fmt: skip
    loss = Stored(np.float32([1.5]), "FloatStorage")
    return {"model": OrderedDict(tensors), "model_args": sizes, "iter_num": 250, "best_val_loss": loss, "config": {}}


# ---------------------------------------------------------------------------------------------------------------- llm.c


def write_llmc(path: Path, weights: Parameters, version: int, rows: int) -> None:
    """Write the model file of llm.c, with a vocabulary that is padded to `rows` rows."""
    config = weights.config
    header = np.zeros(256, np.int32)
    header[:8] = 20240326, version, config.ctx, config.vocab_size, config.layers, config.heads, config.dim, rows
    padded = np.full((rows, config.dim), 7, np.float32)
    padded[: config.vocab_size] = weights["wte.weight"]
    parts = [padded, weights["wpe.weight"]]
    for name in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
        for kind in ("weight", "bias"):
            parts += [weights[f"h.{layer}.{name}.{kind}"].T for layer in range(config.layers)]
    parts += [weights["ln_f.weight"], weights["ln_f.bias"]]
    flat = np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
    path.write_bytes(header.tobytes() + (flat if version == 3 else bfloat16(flat)).tobytes())


def sizes(alphabet: str, **changes: Any) -> ModelConfig:
    """Return the sizes of a small model."""
    options: dict[str, Any] = {"ctx": 8, "dim": 12, "layers": 2, "heads": 3, "vocab_size": len(alphabet), **changes}
    return ModelConfig(**options)
