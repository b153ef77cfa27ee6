"""The post-norm block (Vaswani et al. 2017): each sum of the stream and a branch is normalized.

    x = ln_1(x + attn(x)):    qkv = residual_in @ w.qkv
                              attended = attention(qkv)
                              mid = residual_in + dropout(attended @ w.attn_proj)
                              normed = ln_1(mid)
    x = ln_2(x + mlp(x)):     preactivation = normed @ w.fc
                              activated = activation(preactivation)
                              mlp_sum = normed + dropout(activated @ w.mlp_proj)
                              residual_out = ln_2(mlp_sum)

A product with `w` includes the bias. The backward pass is the forward pass from the last line to the first, and quotes
the line that it differentiates. `activations.Rows` gives the shapes of the arrays.
"""

from __future__ import annotations

from .activations import Rows
from .block import Block
from .parameters import LayerParameters


class PostNormBlock(Block):
    """x = ln_1(x + attn(x));  x = ln_2(x + mlp(x))"""

    # --------------------------------------------------------------------------------------------------------- forward

    def attention(self) -> None:
        """attended = attention(residual_in @ w.qkv)"""
        for x in self.rows:
            self.kernels.linear_forward(x.qkv, x.residual_in, *self.weights.qkv)
        self.attend()

    def mlp(self, x: Rows) -> None:
        """normed = ln_1(mid);  residual_out = ln_2(normed + dropout(activation(normed @ w.fc) @ w.mlp_proj))"""
        kernels, w, key = self.kernels, self.weights, self.dropout.mlp_residual(x.start)
        kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.mid, *w.ln_1)
        kernels.linear_forward(x.activated, x.normed, *w.fc, activation=self.activation, preactivation=x.preactivation)
        self.add_branch(x.mlp_sum, x.activated, w.mlp_proj, key, residual=x.normed)
        kernels.layernorm_forward(x.residual_out, x.mean, x.rstd, x.mlp_sum, *w.ln_2)

    # -------------------------------------------------------------------------------------------------------- backward

    def recompute(self, x: Rows) -> None:
        """Recompute mid, preactivation and mlp_sum, unless the block keeps them."""
        if not self.acts.keeps_rows:
            self.attention_residual(x)
            self.mlp(x)

    def mlp_backward(self, x: Rows, dw: LayerParameters) -> None:
        """forward: residual_out = ln_2(normed + dropout(activation(normed @ w.fc) @ w.mlp_proj))"""
        kernels, w = self.kernels, self.weights

        # forward: residual_out = ln_2(mlp_sum)
        kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.mlp_sum, *w.ln_2)  # recomputed, for mean and rstd
        kernels.layernorm_backward(x.dstream, *dw.ln_2, x.dstream, x.mlp_sum, w.ln_2.weight, x.mean, x.rstd)

        kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.mid, *w.ln_1)  # recomputed, as is activated
        self.activate(x)

        # forward: mlp_sum = normed + dropout(activated @ w.mlp_proj),  activated = activation(preactivation)
        dbranch = self.branch_gradient(x, self.dropout.mlp_residual(x.start))
        kernels.linear_backward(
            x.dpreactivation, *dw.mlp_proj, dbranch, x.activated, w.mlp_proj.weight,
            activation=self.activation, preactivation=x.preactivation,
        )  # fmt: skip

        # forward: preactivation = normed @ w.fc,  where normed also goes around the MLP
        kernels.linear_backward(x.dstream, *dw.fc, x.dpreactivation, x.normed, w.fc.weight, dresidual=x.dstream)

        # forward: normed = ln_1(mid)
        kernels.layernorm_backward(x.dstream, *dw.ln_1, x.dstream, x.mid, w.ln_1.weight, x.mean, x.rstd)

    def attention_backward(self, dw: LayerParameters) -> None:
        """forward: attended = attention(residual_in @ w.qkv)"""
        self.attend_backward()
        for x in self.rows:
            # forward: qkv = residual_in @ w.qkv,  where residual_in also goes around attention
            self.kernels.linear_backward(
                x.dstream, *dw.qkv, x.dqkv, x.residual_in, self.weights.qkv.weight, dresidual=x.dstream
            )
