"""A transformer block: what pre-norm and post-norm have in common.

    pre-norm (Radford et al. 2019)           post-norm (Vaswani et al. 2017)
    x = x + attn(ln_1(x))                    x = ln_1(x + attn(x))
    x = x + mlp(ln_2(x))                     x = ln_2(x + mlp(x))

    attn(x) = dropout(attention(x @ w.qkv) @ w.attn_proj)      with rotary positions, attention(rotated(x @ w.qkv))
    mlp(x) = dropout(activation(x @ w.fc) @ w.mlp_proj)

The formulas are in `pre_norm` and `post_norm`, forward and backward facing each other. Only attention looks across the
rows of a batch. Everything else is computed on one chunk of rows at a time, and what a block does not keep is
recomputed for a chunk in the backward pass; see `activations`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ..config import ModelConfig
from ..kernels.contract import Backend
from ..kernels.tape import Keys
from .activations import Activations, LayerActivations, Rows
from .dropout import LayerDropout
from .parameters import Affine, LayerParameters, Parameters
from .rotary import tables_for

Array = NDArray[Any]


class Block(ABC):
    """One block in one pass over a batch. `forward` and `backward` say in which order its parts are computed."""

    def __init__(
        self, layer: int, config: ModelConfig, kernels: Backend, weights: Parameters, acts: Activations,
        keys: Keys | None,
    ) -> None:  # fmt: skip
        self.kernels, self.acts, self.activation = kernels, acts, config.activation
        self.weights: LayerParameters = weights.layers[layer]
        self.kept: LayerActivations = acts.blocks[layer]
        self.rows: list[Rows] = acts.rows(self.kept)
        self.dropout = LayerDropout(keys, layer, config.dropout)
        self.window = config.windows[layer]
        self.angles = tables_for(config, acts.shape[1], acts.embedded) if config.positions == "rotary" else None

    def forward(self, look: Callable[[LayerActivations], None]) -> None:
        """Compute residual_out from residual_in. `look` is called with the block's activations after attention."""
        self.attention()
        look(self.kept)
        for x in self.rows:
            self.attention_residual(x)
            self.mlp(x)

    def backward(self, dw: LayerParameters) -> None:
        """Turn acts.dstream from the gradient of residual_out into that of residual_in, and add to `dw`."""
        for x in self.rows:
            self.recompute(x)
            self.mlp_backward(x, dw)
            self.attention_residual_backward(x, dw)
        self.attention_backward(dw)

    # ------------------------------------------------------------------------------------- parts that the norm decides

    @abstractmethod
    def attention(self) -> None:
        """Compute attended from residual_in, of all rows."""

    @abstractmethod
    def mlp(self, x: Rows) -> None:
        """Compute residual_out from mid."""

    @abstractmethod
    def recompute(self, x: Rows) -> None:
        """Recompute what `mlp_backward` reads and the block does not keep."""

    @abstractmethod
    def mlp_backward(self, x: Rows, dw: LayerParameters) -> None:
        """Turn x.dstream from the gradient of residual_out into that of mid."""

    @abstractmethod
    def attention_backward(self, dw: LayerParameters) -> None:
        """Turn acts.dstream from the gradient of mid into that of residual_in, of all rows."""

    # ------------------------------------------------------------------------------------------- forward, in both norms

    def attend(self) -> None:
        """attended = attention(qkv);  with rotary positions, qkv = rotated(qkv) before"""
        kept, sequences = self.kept, self.acts.sequences
        if self.angles is not None:
            self.kernels.rotary_forward(sequences(kept.qkv), *self.angles)
        self.kernels.attention_forward(
            sequences(kept.attended), kept.lse, sequences(kept.qkv), **self.attention_options()
        )

    def attention_options(self) -> dict[str, Any]:
        """The window and the dropout of attention, as far as there are any."""
        options: dict[str, Any] = dict(self.dropout.attention())
        return options | {"window": self.window} if self.window else options

    def attention_residual(self, x: Rows) -> None:
        """mid = residual_in + dropout(attended @ w.attn_proj)"""
        key = self.dropout.attention_residual(x.start)
        self.add_branch(x.mid, x.attended, self.weights.attn_proj, key, residual=x.residual_in)

    def add_branch(self, out: Array, inp: Array, proj: Affine, key: int | None, *, residual: Array) -> None:
        """out = residual + dropout(inp @ weight + bias)"""
        if key is None:
            self.kernels.linear_forward(out, inp, *proj, residual=residual)
        else:
            self.kernels.linear_forward(out, inp, *proj)
            self.kernels.dropout_forward(out, out, self.dropout.rate, key, residual=residual)

    def activate(self, x: Rows) -> None:
        """activated = activation(preactivation)"""
        kernels = self.kernels
        kinds = {"gelu": kernels.gelu_forward, "gelu_erf": kernels.gelu_erf_forward, "relu": kernels.relu_forward}
        kinds[self.activation](x.activated, x.preactivation)

    # ------------------------------------------------------------------------------------------ backward, in both norms

    def branch_gradient(self, x: Rows, key: int | None) -> Array:
        """forward: dropout, in out = residual + dropout(branch). Return the gradient of the branch."""
        if key is None:
            return x.dstream
        self.kernels.dropout_backward(x.dbranch, x.dstream, self.dropout.rate, key)
        return x.dbranch

    def attention_residual_backward(self, x: Rows, dw: LayerParameters) -> None:
        """forward: mid = residual_in + dropout(attended @ w.attn_proj)"""
        dbranch = self.branch_gradient(x, self.dropout.attention_residual(x.start))
        self.kernels.linear_backward(x.dattended, *dw.attn_proj, dbranch, x.attended, self.weights.attn_proj.weight)

    def attend_backward(self) -> None:
        """forward: attended = attention(qkv);  with rotary positions, qkv = rotated(qkv) before"""
        acts, kept, sequences = self.acts, self.kept, self.acts.sequences
        self.kernels.attention_backward(
            sequences(acts.dqkv), sequences(acts.dattended),
            sequences(kept.qkv), sequences(kept.attended), kept.lse, **self.attention_options(),
        )  # fmt: skip
        if self.angles is not None:
            self.kernels.rotary_backward(sequences(acts.dqkv), *self.angles)
