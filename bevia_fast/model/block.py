"""A transformer block, forward and backward (Vaswani et al. 2017; Radford et al. 2019).

    pre-norm (GPT-2)                      post-norm (the original transformer)
    x = x + attn(ln_1(x))                 x = ln_1(x + attn(x))
    x = x + mlp(ln_2(x))                  x = ln_2(x + mlp(x))

    attn(x) = attention(x @ c_attn) @ attn_proj              mlp(x) = activation(x @ c_fc) @ mlp_proj

Each class reads like its formula; the backward pass goes through the same lines from the last to the first, and quotes
each. Only attention looks across rows. Everything else works on a chunk of rows at a time, and may be computed again
for that chunk in the backward pass; see `activations`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..config import ModelConfig
from ..kernels.contract import Backend
from .activations import Activations, LayerActivations, Rows
from .dropout import DropoutStream
from .parameters import Affine, LayerParameters, Parameters

Array = NDArray[Any]

ATTENTION, ATTENTION_BRANCH, MLP_BRANCH = "attention dropout", "attention residual dropout", "mlp residual dropout"


@dataclass(frozen=True)
class Pass:
    """What all blocks of one forward and backward pass share. Nothing is dropped if `dropout` is None."""

    config: ModelConfig
    kernels: Backend
    weights: Parameters
    acts: Activations
    dropout: DropoutStream | None
    gradients: Parameters | None = None

    def block(self, kept: LayerActivations) -> Block:
        """Return the block that keeps its activations in `kept`."""
        kind = PreNormBlock if self.config.norm == "pre" else PostNormBlock
        return kind(self, kept)


class Block(ABC):
    """The operations of a block. What they write is named in their first line."""

    def __init__(self, shared: Pass, kept: LayerActivations) -> None:
        self.config, self.kernels, self.acts, self.dropout = shared.config, shared.kernels, shared.acts, shared.dropout
        self.kept, self.layer = kept, kept.layer
        self.weights: LayerParameters = shared.weights.layers[kept.layer]
        # a forward pass alone has no gradients, and does not touch them
        self.gradients: LayerParameters = (shared.gradients or shared.weights).layers[kept.layer]

    def rows(self) -> list[Rows]:
        """Return the chunks of rows of this block."""
        return [self.acts.rows(self.kept, chunk) for chunk in self.acts.chunks]

    # ------------------------------------------------------------------------------------------------------ forward

    def attend(self) -> None:
        """attended = attention(qkv), over whole sequences, with one mask for each head."""
        kept, (B, T) = self.kept, self.acts.shape
        self.kernels.attention_forward(
            kept.attended.reshape(B, T, -1), kept.lse, kept.qkv.reshape(B, T, -1), **self.attention_dropout()
        )

    def norm(self, rows: Rows, inp: Array, ln: Affine, out: Array | None = None) -> Array:
        """normed = ln(inp), or out = ln(inp); rows.mean and rows.rstd then belong to `inp`."""
        out = rows.normed if out is None else out
        self.kernels.layernorm_forward(out, rows.mean, rows.rstd, inp, ln.weight, ln.bias)
        return out

    def add_branch(self, out: Array, inp: Array, proj: Affine, residual: Array, key: int | None) -> None:
        """out = residual + dropout(inp @ proj.weight + proj.bias)"""
        if key is None:
            self.kernels.linear_forward(out, inp, proj.weight, proj.bias, residual=residual)
        else:
            self.kernels.linear_forward(out, inp, proj.weight, proj.bias)
            self.kernels.dropout_forward(out, out, self.config.dropout, key, residual=residual)

    def hidden(self, rows: Rows, inp: Array) -> None:
        """activated = activation(preactivation), preactivation = inp @ c_fc.weight + c_fc.bias"""
        fc = self.weights.c_fc
        self.kernels.linear_forward(
            rows.activated, inp, fc.weight, fc.bias,
            activation=self.config.activation, preactivation=rows.preactivation,
        )  # fmt: skip

    def activate(self, rows: Rows) -> None:
        """activated = activation(preactivation), which is kept or was just recomputed."""
        gelu = self.config.activation == "gelu"
        (self.kernels.gelu_forward if gelu else self.kernels.relu_forward)(rows.activated, rows.preactivation)

    # ----------------------------------------------------------------------------------------------------- backward

    def attend_backward(self) -> None:
        """dqkv, from dattended"""
        acts, kept, (B, T) = self.acts, self.kept, self.acts.shape
        self.kernels.attention_backward(
            acts.dqkv.reshape(B, T, -1), acts.dattended.reshape(B, T, -1), kept.qkv.reshape(B, T, -1),
            kept.attended.reshape(B, T, -1), kept.lse, **self.attention_dropout(),
        )  # fmt: skip

    def norm_backward(
        self, rows: Rows, dinp: Array, dout: Array, inp: Array, ln: Affine, dln: Affine,
        dresidual: Array | None = None,
    ) -> None:  # fmt: skip
        """dinp = the gradient of `inp` (+ dresidual), and those of ln; `norm` must have seen these rows last."""
        self.kernels.layernorm_backward(
            dinp, dln.weight, dln.bias, dout, inp, ln.weight, rows.mean, rows.rstd, dresidual=dresidual
        )

    def linear_backward(
        self, dinp: Array, dout: Array, inp: Array, linear: Affine, dlinear: Affine, **options: Any
    ) -> None:
        """dinp = dout @ weight^T, and the gradients of weight and bias"""
        self.kernels.linear_backward(dinp, dlinear.weight, dlinear.bias, dout, inp, linear.weight, **options)

    def branch_gradient(self, rows: Rows, key: int | None) -> Array:
        """dbranch = dstream through the branch's dropout"""
        if key is None:
            return rows.dstream
        self.kernels.dropout_backward(rows.dbranch, rows.dstream, self.config.dropout, key)
        return rows.dbranch

    # ------------------------------------------------------------------------------------------------------ dropout

    def key(self, place: str, rows: Rows) -> int | None:
        """Return the key of a branch's dropout mask for these rows, or None if nothing is dropped."""
        return self.dropout.key(place, self.layer, rows.start) if self.dropout else None

    def attention_dropout(self) -> dict[str, Any]:
        """Return the dropout options of the attention kernels."""
        if self.dropout is None:
            return {"dropout_rate": 0.0, "dropout_key": 0}
        return {"dropout_rate": self.config.dropout, "dropout_key": self.dropout.key(ATTENTION, self.layer)}

    # ----------------------------------------------------------------------------------- what the two formulas define

    @abstractmethod
    def forward_attention(self) -> None:
        """attended = attention(c_attn(...)), of all rows"""

    @abstractmethod
    def forward_rows(self, rows: Rows) -> None:
        """residual_out, from residual_in and attended, of some rows"""

    @abstractmethod
    def backward_rows(self, rows: Rows) -> None:
        """dattended, and dstream from the gradient of residual_out to that of the first residual sum, of some rows"""

    @abstractmethod
    def backward_attention(self) -> None:
        """dstream from the gradient of the first residual sum to that of residual_in, of all rows"""


class PreNormBlock(Block):
    """x = x + attn(ln_1(x));  x = x + mlp(ln_2(x))"""

    def forward_attention(self) -> None:
        w = self.weights
        for rows in self.rows():
            # qkv = c_attn(ln_1(x))
            normed = self.norm(rows, rows.residual_in, w.ln_1)
            self.kernels.linear_forward(rows.qkv, normed, w.c_attn.weight, w.c_attn.bias)
        self.attend()

    def forward_rows(self, rows: Rows) -> None:
        w = self.weights
        self.forward_mid(rows)
        # x = x + mlp_proj(activation(c_fc(ln_2(x))))
        normed = self.norm(rows, rows.mid, w.ln_2)
        self.hidden(rows, normed)
        self.add_branch(rows.residual_out, rows.activated, w.mlp_proj, rows.mid, self.key(MLP_BRANCH, rows))

    def forward_mid(self, rows: Rows) -> None:
        # x = x + attn_proj(attended)
        key = self.key(ATTENTION_BRANCH, rows)
        self.add_branch(rows.mid, rows.attended, self.weights.attn_proj, rows.residual_in, key)

    def backward_rows(self, rows: Rows) -> None:
        w, g = self.weights, self.gradients
        if not self.acts.keeps_rows:
            self.forward_mid(rows)
        normed = self.norm(rows, rows.mid, w.ln_2)
        if self.acts.keeps_rows:
            self.activate(rows)
        else:
            self.hidden(rows, normed)
        # x = x + mlp_proj(activation(c_fc(ln_2(x))))
        dbranch = self.branch_gradient(rows, self.key(MLP_BRANCH, rows))
        activation = {"activation": self.config.activation, "preactivation": rows.preactivation}
        self.linear_backward(rows.dwide, dbranch, rows.activated, w.mlp_proj, g.mlp_proj, **activation)
        self.linear_backward(rows.dnormed, rows.dwide, normed, w.c_fc, g.c_fc)
        self.norm_backward(rows, rows.dstream, rows.dnormed, rows.mid, w.ln_2, g.ln_2, rows.dstream)
        # x = x + attn_proj(attended)
        dbranch = self.branch_gradient(rows, self.key(ATTENTION_BRANCH, rows))
        self.linear_backward(rows.dattended, dbranch, rows.attended, w.attn_proj, g.attn_proj)

    def backward_attention(self) -> None:
        w, g = self.weights, self.gradients
        self.attend_backward()
        for rows in self.rows():
            # qkv = c_attn(ln_1(x))
            normed = self.norm(rows, rows.residual_in, w.ln_1)
            self.linear_backward(rows.dnormed, rows.dqkv, normed, w.c_attn, g.c_attn)
            self.norm_backward(rows, rows.dstream, rows.dnormed, rows.residual_in, w.ln_1, g.ln_1, rows.dstream)


class PostNormBlock(Block):
    """x = ln_1(x + attn(x));  x = ln_2(x + mlp(x)). `mid` and `mlp_sum` are the sums before their norms."""

    def forward_attention(self) -> None:
        w = self.weights
        for rows in self.rows():
            # qkv = c_attn(x)
            self.kernels.linear_forward(rows.qkv, rows.residual_in, w.c_attn.weight, w.c_attn.bias)
        self.attend()

    def forward_rows(self, rows: Rows) -> None:
        w = self.weights
        # mid = x + attn_proj(attended);  x = ln_1(mid)
        key = self.key(ATTENTION_BRANCH, rows)
        self.add_branch(rows.mid, rows.attended, w.attn_proj, rows.residual_in, key)
        normed = self.norm(rows, rows.mid, w.ln_1)
        # mlp_sum = x + mlp_proj(activation(c_fc(x)));  x = ln_2(mlp_sum)
        self.hidden(rows, normed)
        self.add_branch(rows.mlp_sum, rows.activated, w.mlp_proj, normed, self.key(MLP_BRANCH, rows))
        self.norm(rows, rows.mlp_sum, w.ln_2, rows.residual_out)

    def backward_rows(self, rows: Rows) -> None:
        w, g = self.weights, self.gradients
        if not self.acts.keeps_rows:
            self.forward_rows(rows)
        self.norm(rows, rows.mlp_sum, w.ln_2)
        # x = ln_2(mlp_sum)
        self.norm_backward(rows, rows.dstream, rows.dstream, rows.mlp_sum, w.ln_2, g.ln_2)
        normed = self.norm(rows, rows.mid, w.ln_1)
        self.activate(rows)
        # mlp_sum = x + mlp_proj(activation(c_fc(x)))
        dbranch = self.branch_gradient(rows, self.key(MLP_BRANCH, rows))
        activation = {"activation": self.config.activation, "preactivation": rows.preactivation}
        self.linear_backward(rows.dwide, dbranch, rows.activated, w.mlp_proj, g.mlp_proj, **activation)
        self.linear_backward(rows.dstream, rows.dwide, normed, w.c_fc, g.c_fc, dresidual=rows.dstream)
        # x = ln_1(mid)
        self.norm_backward(rows, rows.dstream, rows.dstream, rows.mid, w.ln_1, g.ln_1)
        # mid = x + attn_proj(attended)
        dbranch = self.branch_gradient(rows, self.key(ATTENTION_BRANCH, rows))
        self.linear_backward(rows.dattended, dbranch, rows.attended, w.attn_proj, g.attn_proj)

    def backward_attention(self) -> None:
        w, g = self.weights, self.gradients
        self.attend_backward()
        for rows in self.rows():
            # qkv = c_attn(x)
            self.linear_backward(
                rows.dstream, rows.dqkv, rows.residual_in, w.c_attn, g.c_attn, dresidual=rows.dstream
            )
