"""ONNX: the model as a graph of standard operators, which onnxruntime and other runtimes execute.

Since opset 23 there are operators for attention and rotary positions (https://onnx.ai/onnx/operators), so a block is a
dozen nodes, and every model of ours has a graph: none is refused.

Input: `tokens`, int64 (batch, length), with length at most ctx. Output: `logits`, float32 (batch, length, vocabulary).
The file's metadata have ctx, and the `alphabet` as JSON, or for other tokens their `tokenizer.json`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.tokenizer import Tokenizer
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, ConfigError
from ..files import mode, refuse_nul, write_atomically, writing
from ..model.parameters import Parameters
from ..model.rotary import tables
from ..naming import option
from .hub import EPSILON, tokenizer_file

Array = NDArray[Any]

OPSET, IR_VERSION = 23, 11  # the first with Attention, and the version of the format that came with it
LARGEST = 2_000_000_000  # bytes of weights; a file of protocol buffers ends at 2 GiB


def export_onnx(parameters: Parameters, tokenizer: Vocabulary, name: str, path: Path) -> None:
    """Write a model as a new ONNX file, with weights in float32; `name` is its name there.

    Raises ConfigError if the package onnx is not installed or the model is larger than such a file can be, and
    CheckpointError if the file exists or cannot be written.
    """
    onnx = _package()
    if 4 * parameters.count > LARGEST:
        raise ConfigError(f"The model has {parameters.count:,} parameters; an ONNX file holds at most 500 million.")
    refuse_nul(path, "a file")
    with writing(path):
        if mode(path):
            raise CheckpointError(f"{path} exists; choose another file with {option('to')}.")
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _model(onnx, parameters, tokenizer, name).SerializeToString())


def _package() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ConfigError(
            f"{option('format', 'onnx')} needs the package onnx ({error}): pip install 'bevia-fast[onnx]'."
        ) from error


class Graph:
    """Nodes one after another; a value is known by its name."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, value: Array) -> str:
        """Return the name of a constant, under which it is stored once."""
        if name not in self.constants:
            self.constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or of its `count` outputs."""
        outputs = [f"{kind}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs[0] if count == 1 else outputs


def _model(onnx: Any, parameters: Parameters, tokenizer: Vocabulary, name: str) -> Any:
    """Return the model as a message of protocol buffers."""
    config, helper, kinds = parameters.config, onnx.helper, onnx.TensorProto
    graph = Graph(onnx)
    Writer(graph, parameters).logits("tokens")
    graph.nodes[-1].output[0] = "logits"
    whole = helper.make_graph(
        graph.nodes, name,
        [helper.make_tensor_value_info("tokens", kinds.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, ["batch", "length", config.vocab_size])],
        list(graph.constants.values()),
    )  # fmt: skip
    model = helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="bevia-fast"
    )
    if isinstance(tokenizer, Tokenizer):
        vocabulary = {"alphabet": json.dumps(tokenizer.alphabet)}
    else:
        vocabulary = {"tokenizer.json": tokenizer_file(tokenizer)}
    helper.set_model_props(model, {**vocabulary, "ctx": str(config.ctx)})
    return model


class Writer:
    """The forward pass of a model as nodes, in the order of `model.gpt`."""

    def __init__(self, graph: Graph, parameters: Parameters) -> None:
        self.graph, self.parameters, self.config = graph, parameters, parameters.config
        self.windows: dict[int, str] = {}

    def weight(self, name: str) -> str:
        return self.graph.constant(name, self.parameters[name].astype(np.float32))

    def integers(self, *numbers: int) -> str:
        return self.graph.constant(f"integers{numbers}", np.array(numbers, np.int64))

    def logits(self, tokens: str) -> None:
        """The last node computes logits = ln_f(blocks(wte[tokens] + wpe)) @ head^T"""
        node, config = self.graph.node, self.config
        length = node("Shape", tokens, start=1)
        if config.positions == "rotary" or any(config.windows):
            zero, one = (self.graph.constant(f"number {number}", np.array(number, np.int64)) for number in (0, 1))
            self.places = node("Range", zero, node("Squeeze", length), one)
        x = node("Gather", self.weight("wte.weight"), tokens)
        rotary: tuple[str, ...] = ()
        if config.positions == "rotary":
            angles = tables(config, 0, config.ctx)
            names = (self.graph.constant(f"angles {i}", each.astype(np.float32)) for i, each in enumerate(angles))
            rotary = (*names, node("Expand", self.places, node("Shape", tokens)))
        else:
            x = node("Add", x, node("Slice", self.weight("wpe.weight"), self.integers(0), length, self.integers(0)))
        for layer in range(config.layers):
            x = self.block(layer, x, rotary)
        head = self.weight("wte.weight" if config.tie else "lm_head.weight")
        transposed = node("Transpose", head, perm=[1, 0])
        node("MatMul", self.norm(x, "ln_f"), transposed)

    def block(self, layer: int, x: str, rotary: tuple[str, ...]) -> str:
        """x = x + attn(ln_1(x));  x = x + mlp(ln_2(x));  with post-norm, x = ln_1(x + attn(x)) and so on"""
        for ln, branch in (("ln_1", self.attention), ("ln_2", self.mlp)):
            name = f"h.{layer}.{ln}"
            before = self.norm(x, name) if self.config.norm == "pre" else x
            added = branch(layer, before, rotary)
            x = self.graph.node("Add", x, added) if self.config.residual else added
            x = self.norm(x, name) if self.config.norm == "post" else x
        return x

    def attention(self, layer: int, x: str, rotary: tuple[str, ...]) -> str:
        node, config = self.graph.node, self.config
        q, k, v = node("Split", self.linear(x, f"h.{layer}.attn.c_attn"), count=3, axis=-1, num_outputs=3)
        if rotary:
            q, k = (node("RotaryEmbedding", each, *rotary, num_heads=config.heads) for each in (q, k))
        window = config.windows[layer]
        mask = (self.mask(window),) if window else ()
        mixed = node(
            "Attention", q, k, v, *mask, is_causal=1, q_num_heads=config.heads, kv_num_heads=config.heads,
            scale=config.head_size**-0.5 if config.scale else 1.0,
        )  # fmt: skip
        return self.linear(mixed, f"h.{layer}.attn.c_proj")

    def mask(self, window: int) -> str:
        """Which keys a query sees: i - j < window. That j <= i is an option of Attention."""
        if window not in self.windows:
            node = self.graph.node
            rows, columns = (node("Unsqueeze", self.places, self.integers(axis)) for axis in (1, 0))
            self.windows[window] = node("Less", node("Sub", rows, columns), self.integers(window))
        return self.windows[window]

    def mlp(self, layer: int, x: str, rotary: tuple[str, ...]) -> str:
        hidden = self.linear(x, f"h.{layer}.mlp.c_fc")
        if self.config.activation == "relu":
            hidden = self.graph.node("Relu", hidden)
        else:
            form = "tanh" if self.config.activation == "gelu" else "none"
            hidden = self.graph.node("Gelu", hidden, approximate=form)
        return self.linear(hidden, f"h.{layer}.mlp.c_proj")

    def linear(self, x: str, name: str) -> str:
        product = self.graph.node("MatMul", x, self.weight(f"{name}.weight"))
        bias = (self.weight(f"{name}.bias"),) if self.config.bias else ()
        return str(self.graph.node("Add", product, *bias) if bias else product)

    def norm(self, x: str, name: str) -> str:
        bias = (self.weight(f"{name}.bias"),) if self.config.bias else ()
        weight = self.weight(f"{name}.weight")
        return str(self.graph.node("LayerNormalization", x, weight, *bias, axis=-1, epsilon=EPSILON))
