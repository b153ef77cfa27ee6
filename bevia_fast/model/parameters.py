"""The weights of a model: one flat buffer, and named views of it.

With a flat buffer, clipping, AdamW, saving and comparing are each one pass over one array. Matrices come first and
vectors last, so that weight decay applies to a prefix. Names, shapes and layouts are GPT-2's (linear weights: input x
output).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..describing import table
from ..kernels.contract import MatrixAt
from ..kernels.memory import CACHE_LINE, aligned_zeros
from ..kernels.rng import stream_key

INIT_STD = 0.02  # Radford et al. 2019 (GPT-2)


@dataclass(frozen=True)
class ParameterSpec:
    """One tensor of the model."""

    name: str
    shape: tuple[int, ...]
    init: str  # "normal", "residual" (normal, scaled down with depth), "ones" or "zeros"

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def hidden(self) -> bool:
        """Whether it is a matrix of a layer, with activations on either side."""
        return len(self.shape) == 2 and self.name.startswith("h.")


def parameter_specs(config: ModelConfig) -> list[ParameterSpec]:
    """Return all tensors of a model in the order of the flat buffer: matrices, then vectors."""
    C, V, T = config.dim, config.vocab_size, config.ctx
    matrices = [ParameterSpec("wte.weight", (V, C), "normal")]
    if config.positions == "learned":
        matrices.append(ParameterSpec("wpe.weight", (T, C), "normal"))
    vectors = []

    def linear(name: str, inputs: int, outputs: int, init: str = "normal") -> None:
        matrices.append(ParameterSpec(f"{name}.weight", (inputs, outputs), init))
        if config.bias:
            vectors.append(ParameterSpec(f"{name}.bias", (outputs,), "zeros"))

    def norm(name: str) -> None:
        vectors.append(ParameterSpec(f"{name}.weight", (C,), "ones"))
        if config.bias:
            vectors.append(ParameterSpec(f"{name}.bias", (C,), "zeros"))

    for layer in range(config.layers):
        norm(f"h.{layer}.ln_1")
        linear(f"h.{layer}.attn.c_attn", C, 3 * C)
        linear(f"h.{layer}.attn.c_proj", C, C, "residual")
        norm(f"h.{layer}.ln_2")
        linear(f"h.{layer}.mlp.c_fc", C, 4 * C)
        linear(f"h.{layer}.mlp.c_proj", 4 * C, C, "residual")
    norm("ln_f")
    if not config.tie:
        matrices.append(ParameterSpec("lm_head.weight", (V, C), "normal"))
    return matrices + vectors


class Affine(NamedTuple):
    """Weight and bias of a linear layer or of a layer normalization, or their gradients."""

    weight: NDArray[Any]  # (inputs, outputs), or (C,) of a layer normalization
    bias: NDArray[Any] | None  # (outputs,), or (C,); None with --no-bias


class LayerParameters(NamedTuple):
    """The parameters of one block, or their gradients, in the order in which pre-norm uses them."""

    ln_1: Affine
    qkv: Affine  # GPT-2: attn.c_attn
    attn_proj: Affine  # attn.c_proj
    ln_2: Affine
    fc: Affine  # mlp.c_fc
    mlp_proj: Affine  # mlp.c_proj


class Parameters(Mapping[str, NDArray[Any]]):
    """Weights, or their gradients, or their moments: a flat buffer with named views.

    `flat` is (P,) of the config's dtype. Each tensor starts at a cache line, and the gaps between tensors stay 0. The
    first `decayed` elements belong to matrices, those of `hidden` to the matrices of the layers.
    `parameters["wte.weight"]` is a view of shape (V, C). `layers` and `ln_f` are the same views, grouped for the
    model.
    """

    def __init__(
        self, config: ModelConfig, *, empty: Callable[[int, Any], NDArray[Any]] = aligned_zeros, hidden: bool = True
    ) -> None:
        """All elements are 0. `empty(size, dtype)` allocates the buffer. Without `hidden`, there is no room for the
        matrices of the layers."""
        self.config = config
        self.has_hidden = hidden
        self.specs = [spec for spec in parameter_specs(config) if hidden or not spec.hidden]
        dtype = np.dtype(config.dtype)
        line = CACHE_LINE // dtype.itemsize
        offsets, end, self.decayed = [], 0, 0
        for spec in self.specs:
            offsets.append(end)
            end += -(-spec.count // line) * line
            if len(spec.shape) == 2:
                self.decayed = end
        self.flat = empty(end, dtype)
        self._offsets = dict(zip((spec.name for spec in self.specs), offsets, strict=True))
        self._views = {
            spec.name: self.flat[start : start + spec.count].reshape(spec.shape)
            for spec, start in zip(self.specs, offsets, strict=True)
        }

    @classmethod
    def initial(cls, config: ModelConfig, seed: int) -> Parameters:
        """Return weights initialized as in GPT-2 (Radford et al. 2019).

        Matrices are normal with standard deviation 0.02. The projections that write to the residual stream are scaled
        by 1/sqrt(2 layers), so that its variance does not grow with depth. Each tensor is drawn in float64 from its own
        random stream, so that it depends only on the seed and the tensor.
        """
        parameters = cls(config)
        for index, spec in enumerate(parameters.specs):
            view = parameters[spec.name]
            if spec.init in ("ones", "zeros"):
                view.fill(1.0 if spec.init == "ones" else 0.0)
                continue
            std = INIT_STD / math.sqrt(2 * config.layers) if spec.init == "residual" else INIT_STD
            generator = np.random.Generator(np.random.Philox(key=stream_key(seed, "weights", index)))
            view[...] = generator.normal(0.0, std, spec.shape)
        return parameters

    def __repr__(self) -> str:
        return f"<Parameters: {self.count:,} {self.config.dtype} numbers in {len(self)} tensors>"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, ...]] = [
            (spec.name, " x ".join(map(str, spec.shape)), f"{spec.count:,}") for spec in self.specs
        ]
        rows.append(("total", self.config.dtype, f"{self.count:,}"))
        return table("Parameters", rows, ("name", "shape", "count"))

    @property
    def count(self) -> int:
        """The number of trained parameters, without the gaps."""
        return sum(spec.count for spec in self.specs)

    @cached_property
    def hidden(self) -> slice:
        """The part of `flat` that holds the matrices of the layers."""
        found = [spec for spec in self.specs if spec.hidden]
        return slice(self._offsets[found[0].name], self._offsets[found[-1].name] + found[-1].count)

    @cached_property
    def hidden_matrices(self) -> tuple[MatrixAt, ...]:
        """The matrices of the layers, placed in `flat[hidden]`. Those of queries, keys and values count as three, since
        they have nothing to do with each other but their input."""
        found = []
        for spec in self.specs:
            if spec.hidden:
                (rows, columns), start = spec.shape, self._offsets[spec.name] - self.hidden.start
                each = columns // 3 if spec.name.endswith("c_attn.weight") else columns
                found += [MatrixAt(start + j, rows, each, columns) for j in range(0, columns, each)]
        return tuple(found)

    @cached_property
    def layers(self) -> list[LayerParameters]:
        """The parameters of each block."""
        names = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        return [
            LayerParameters(*(self._affine(f"h.{layer}.{name}") for name in names))
            for layer in range(self.config.layers)
        ]

    @cached_property
    def ln_f(self) -> Affine:
        """The parameters of the last layer normalization."""
        return self._affine("ln_f")

    def _affine(self, name: str) -> Affine:
        return Affine(self[f"{name}.weight"], self.get(f"{name}.bias"))

    @property
    def head(self) -> NDArray[Any]:
        """The output projection (V, C): a matrix of its own, or with --tie the token embedding."""
        return self["wte.weight" if self.config.tie else "lm_head.weight"]

    def positions(self, T: int) -> NDArray[Any] | None:
        """The learned vectors (T, C) of the first T positions, or None with rotary positions."""
        return self["wpe.weight"][:T] if "wpe.weight" in self else None

    def get(self, name: str, default: Any = None) -> Any:
        """Return the tensor called `name`, or `default` if the model has none, such as a bias with --no-bias."""
        return self._views.get(name, default)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
