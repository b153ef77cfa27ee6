"""The pre-norm block (Radford et al. 2019): the input of each branch is normalized, the stream itself never is.

    x = x + attn(ln_1(x)):    normed = ln_1(residual_in)
                              qkv = normed @ w.qkv
                              attended = attention(qkv)
                              mid = residual_in + dropout(attended @ w.attn_proj)
    x = x + mlp(ln_2(x)):     normed = ln_2(mid)
                              preactivation = normed @ w.fc
                              activated = activation(preactivation)
                              residual_out = mid + dropout(activated @ w.mlp_proj)

A product with `w` includes the bias. The backward pass is the forward pass from the last line to the first, and quotes
the line that it differentiates. `activations.Rows` gives the shapes of the arrays.
"""

from __future__ import annotations

from .activations import Rows
from .block import Block
from .parameters import LayerParameters


class PreNormBlock(Block):
    """x = x + attn(ln_1(x));  x = x + mlp(ln_2(x))"""

    # --------------------------------------------------------------------------------------------------------- forward

    def attention(self) -> None:
        """attended = attention(ln_1(residual_in) @ w.qkv)"""
        kernels, w = self.kernels, self.weights
        for x in self.rows:
            kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.residual_in, *w.ln_1)
            kernels.linear_forward(x.qkv, x.normed, *w.qkv)
        self.attend()

    def mlp(self, x: Rows) -> None:
        """residual_out = mid + dropout(activation(ln_2(mid) @ w.fc) @ w.mlp_proj)"""
        self.hidden(x)
        key = self.dropout.mlp_residual(x.start)
        self.add_branch(x.residual_out, x.activated, self.weights.mlp_proj, key, residual=x.mid)

    def hidden(self, x: Rows) -> None:
        """activated = activation(ln_2(mid) @ w.fc)"""
        kernels, w = self.kernels, self.weights
        kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.mid, *w.ln_2)
        kernels.linear_forward(x.activated, x.normed, *w.fc, activation=self.activation, preactivation=x.preactivation)

    # -------------------------------------------------------------------------------------------------------- backward

    def recompute(self, x: Rows) -> None:
        """Recompute normed and activated; also mid and preactivation, unless the block keeps them."""
        if self.acts.keeps_rows:
            self.kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.mid, *self.weights.ln_2)
            self.activate(x)
        else:
            self.attention_residual(x)
            self.hidden(x)

    def mlp_backward(self, x: Rows, dw: LayerParameters) -> None:
        """forward: residual_out = mid + dropout(activation(ln_2(mid) @ w.fc) @ w.mlp_proj)"""
        kernels, w = self.kernels, self.weights

        # forward: residual_out = mid + dropout(activated @ w.mlp_proj),  activated = activation(preactivation)
        dbranch = self.branch_gradient(x, self.dropout.mlp_residual(x.start))
        kernels.linear_backward(
            x.dpreactivation, *dw.mlp_proj, dbranch, x.activated, w.mlp_proj.weight,
            activation=self.activation, preactivation=x.preactivation,
        )  # fmt: skip

        # forward: preactivation = normed @ w.fc
        kernels.linear_backward(x.dnormed, *dw.fc, x.dpreactivation, x.normed, w.fc.weight)

        # forward: normed = ln_2(mid),  where mid also goes around the MLP
        kernels.layernorm_backward(
            x.dstream, *dw.ln_2, x.dnormed, x.mid, w.ln_2.weight, x.mean, x.rstd, dresidual=x.dstream
        )

    def attention_backward(self, dw: LayerParameters) -> None:
        """forward: attended = attention(ln_1(residual_in) @ w.qkv)"""
        kernels, w = self.kernels, self.weights
        self.attend_backward()
        for x in self.rows:
            kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.residual_in, *w.ln_1)  # recomputed

            # forward: qkv = normed @ w.qkv
            kernels.linear_backward(x.dnormed, *dw.qkv, x.dqkv, x.normed, w.qkv.weight)

            # forward: normed = ln_1(residual_in),  where residual_in also goes around attention
            kernels.layernorm_backward(
                x.dstream, *dw.ln_1, x.dnormed, x.residual_in, w.ln_1.weight, x.mean, x.rstd, dresidual=x.dstream
            )
