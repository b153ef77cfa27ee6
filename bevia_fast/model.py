"""The transformer: forward and backward, as a sequence of kernel calls.

Read `forward` and `backward` side by side: one is the other upside down. Arithmetic happens in the kernels only; here
it is decided what is computed from what, and what is kept for the way back.

Letters: B batch · T time · C channels · NH heads · V vocabulary · N = B·T rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import Activations, Block
from .config import ModelConfig
from .kernels import Backend
from .kernels.memory import aligned_empty
from .kernels.rng import stream_key
from .parameters import Parameters

Array = NDArray[Any]


@dataclass(frozen=True)
class DropoutStream:
    """Where the dropout masks of one forward and backward pass come from: a pure function of (seed, step)."""

    seed: int
    step: int  # counts micro-batches, so that accumulated ones differ

    def key(self, place: str, layer: int = 0) -> int:
        return stream_key(self.seed, place, self.step, layer)


class GPT:
    """A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019) on one of the two backends.

    `parameters` may be shared between models, so that two backends can look at the same weights.
    """

    def __init__(self, config: ModelConfig, backend: Backend, parameters: Parameters) -> None:
        self.config = config
        self.backend = backend
        self.parameters = parameters
        self._activations: Activations | None = None

    # ------------------------------------------------------------------------------------------------ what it is for

    def loss(self, tokens: Array, targets: Array) -> float:
        """Mean cross-entropy in nats a token, without dropout. `tokens`, `targets`: (B, T) int32, T <= ctx."""
        acts = self._buffers(*tokens.shape)
        self._forward(acts, tokens, None)
        self._head(acts, targets.reshape(-1), None, 1.0)
        return float(acts.losses.mean(dtype=np.float64))

    def loss_and_gradients(
        self,
        tokens: Array,
        targets: Array,
        gradients: Parameters,
        *,
        scale: float = 1.0,
        dropout: DropoutStream | None = None,
    ) -> float:
        """Mean cross-entropy of a batch; the gradient of `scale` times it is added to `gradients`.

        With `scale` = 1/k, k micro-batches add up to the gradient of one batch k times as large. Without a `dropout`
        stream nothing is dropped.
        """
        acts = self._buffers(*tokens.shape)
        stream = dropout if self.config.dropout > 0.0 else None
        self._forward(acts, tokens, stream)
        self._head(acts, targets.reshape(-1), gradients, scale)
        self._backward(acts, tokens, gradients, stream)
        return float(acts.losses.mean(dtype=np.float64))

    def logits(self, tokens: Array) -> Array:
        """The logits (B, T, V) of the next token at each place of `tokens` (B, T), as a new array."""
        acts = self._buffers(*tokens.shape)
        self._forward(acts, tokens, None)
        logits = aligned_empty((tokens.size, self.config.vocab_size), self.config.dtype)
        self.backend.linear_forward(logits, acts.final, self.parameters.head.T)
        return logits.reshape(*tokens.shape, self.config.vocab_size)

    def attention_maps(self, tokens: Array) -> Array:
        """The attention weights (layers, NH, T, T) of every layer and head for one sequence `tokens` (T,)."""
        T, NH = tokens.size, self.config.heads
        acts = self._buffers(1, T)
        self._forward(acts, tokens.reshape(1, T), None)
        maps = aligned_empty((self.config.layers, 1, NH, T, T), self.config.dtype)
        for layer, block in enumerate(acts.blocks):
            self.backend.attention_weights(maps[layer], block.qkv.reshape(1, T, -1))
        return maps[:, 0]

    # ------------------------------------------------------------------------------------------------------- forward

    def _forward(self, acts: Activations, tokens: Array, dropout: DropoutStream | None) -> None:
        """Fill `acts` up to the final normalisation."""
        kernels, weights = self.backend, self.parameters
        (B, T), rate = acts.shape, self.config.dropout
        kernels.embedding_forward(
            acts.embedded.reshape(B, T, -1), tokens, weights["wte.weight"], weights["wpe.weight"][:T]
        )
        if dropout:
            kernels.dropout_forward(acts.embedded, acts.embedded, rate, dropout.key("embedding dropout"))
        for layer, block in enumerate(acts.blocks):
            if self.config.norm == "pre":  # x + f(norm(x))
                self._norm(block.normed_1, block.mean_1, block.rstd_1, block.residual_in, f"h.{layer}.ln_1")
                self._attention(acts, block, layer, block.normed_1, block.residual_mid, dropout)
                self._norm(block.normed_2, block.mean_2, block.rstd_2, block.residual_mid, f"h.{layer}.ln_2")
                self._mlp(acts, block, layer, block.normed_2, block.residual_mid, block.residual_out, dropout)
            else:  # norm(x + f(x)): here residual_mid and normed_2 hold the sums, before their normalisation
                self._attention(acts, block, layer, block.residual_in, block.residual_mid, dropout)
                self._norm(block.normed_1, block.mean_1, block.rstd_1, block.residual_mid, f"h.{layer}.ln_1")
                self._mlp(acts, block, layer, block.normed_1, block.normed_1, block.normed_2, dropout)
                self._norm(block.residual_out, block.mean_2, block.rstd_2, block.normed_2, f"h.{layer}.ln_2")
        self._norm(acts.final, acts.mean_f, acts.rstd_f, acts.blocks[-1].residual_out, "ln_f")

    def _attention(
        self, acts: Activations, block: Block, layer: int, inp: Array, out: Array, dropout: DropoutStream | None
    ) -> None:
        """out = residual_in + dropout(projection(attention(qkv(inp))))"""
        kernels, weights, name = self.backend, self.parameters, f"h.{layer}.attn"
        (B, T), rate = acts.shape, self.config.dropout
        kernels.linear_forward(block.qkv, inp, weights[f"{name}.c_attn.weight"], weights.get(f"{name}.c_attn.bias"))
        kernels.attention_forward(
            block.attended.reshape(B, T, -1),
            block.lse,
            block.qkv.reshape(B, T, -1),
            dropout_rate=rate if dropout else 0.0,
            dropout_key=dropout.key("attention dropout", layer) if dropout else 0,
        )
        self._residual(
            out, block.attended, f"{name}.c_proj", block.residual_in,
            dropout.key("attention residual dropout", layer) if dropout else None,
        )  # fmt: skip

    def _mlp(
        self, acts: Activations, block: Block, layer: int, inp: Array, residual: Array, out: Array,
        dropout: DropoutStream | None,
    ) -> None:  # fmt: skip
        """out = residual + dropout(projection(activation(expansion(inp))))"""
        kernels, weights, name = self.backend, self.parameters, f"h.{layer}.mlp"
        kernels.linear_forward(
            block.activated,
            inp,
            weights[f"{name}.c_fc.weight"],
            weights.get(f"{name}.c_fc.bias"),
            activation=self.config.activation,
            preactivation=block.preactivation,
        )
        self._residual(
            out, block.activated, f"{name}.c_proj", residual,
            dropout.key("mlp residual dropout", layer) if dropout else None,
        )  # fmt: skip

    def _residual(self, out: Array, inp: Array, name: str, residual: Array, dropout_key: int | None) -> None:
        """out = residual + dropout(inp @ weight + bias): where a branch joins the stream again."""
        kernels, weight, bias = self.backend, self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        if dropout_key is None:
            kernels.linear_forward(out, inp, weight, bias, residual=residual)
        else:
            kernels.linear_forward(out, inp, weight, bias)
            kernels.dropout_forward(out, out, self.config.dropout, dropout_key, residual=residual)

    def _norm(self, out: Array, mean: Array, rstd: Array, inp: Array, name: str) -> None:
        weights = self.parameters
        self.backend.layernorm_forward(out, mean, rstd, inp, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def _head(self, acts: Activations, targets: Array, gradients: Parameters | None, scale: float) -> None:
        """Fill `acts.losses`, a block of rows at a time so that N x V is never held; with `gradients` also go back
        through the head at once: acts.dnarrow = d(scale * mean loss) / d(acts.final)."""
        kernels, head, N = self.backend, self.parameters.head.T, targets.size
        for start in range(0, N, acts.head_rows):
            rows = slice(start, min(start + acts.head_rows, N))
            logits = acts.logits[: rows.stop - rows.start]
            kernels.linear_forward(logits, acts.final[rows], head)
            if gradients is None:
                kernels.cross_entropy(acts.losses[rows], None, logits, targets[rows])
            else:
                kernels.cross_entropy(acts.losses[rows], logits, logits, targets[rows], scale=scale / N)
                kernels.linear_backward(
                    acts.dnarrow[rows], gradients.head.T, None, logits, acts.final[rows], head
                )

    # ------------------------------------------------------------------------------------------------------ backward

    def _backward(
        self, acts: Activations, tokens: Array, gradients: Parameters, dropout: DropoutStream | None
    ) -> None:
        """From acts.dnarrow, the gradient of the final normalisation's output, down to the embeddings."""
        kernels, (B, T), rate = self.backend, acts.shape, self.config.dropout
        dstream = acts.dstream  # the gradient of the residual stream, at the place where the loop stands
        stream = acts.blocks[-1].residual_out
        self._norm_backward(dstream, acts.dnarrow, stream, acts.mean_f, acts.rstd_f, "ln_f", gradients)
        for layer in reversed(range(self.config.layers)):
            block = acts.blocks[layer]
            norm_1, norm_2 = f"h.{layer}.ln_1", f"h.{layer}.ln_2"
            if self.config.norm == "pre":
                self._mlp_backward(acts, block, layer, acts.dnarrow, block.normed_2, None, gradients, dropout)
                self._norm_backward(
                    dstream, acts.dnarrow, block.residual_mid, block.mean_2, block.rstd_2, norm_2, gradients, dstream
                )
                self._attention_backward(acts, block, layer, acts.dnarrow, block.normed_1, None, gradients, dropout)
                self._norm_backward(
                    dstream, acts.dnarrow, block.residual_in, block.mean_1, block.rstd_1, norm_1, gradients, dstream
                )
            else:
                self._norm_backward(dstream, dstream, block.normed_2, block.mean_2, block.rstd_2, norm_2, gradients)
                self._mlp_backward(acts, block, layer, dstream, block.normed_1, dstream, gradients, dropout)
                self._norm_backward(dstream, dstream, block.residual_mid, block.mean_1, block.rstd_1, norm_1, gradients)
                self._attention_backward(acts, block, layer, dstream, block.residual_in, dstream, gradients, dropout)
        if dropout:
            kernels.dropout_backward(dstream, dstream, rate, dropout.key("embedding dropout"))
        kernels.embedding_backward(
            gradients["wte.weight"], gradients["wpe.weight"][:T], dstream.reshape(B, T, -1), tokens
        )

    def _mlp_backward(
        self, acts: Activations, block: Block, layer: int, dinp: Array, inp: Array, dresidual: Array | None,
        gradients: Parameters, dropout: DropoutStream | None,
    ) -> None:  # fmt: skip
        """dinp = gradient of the branch's input, from acts.dstream, the gradient of its output (+ dresidual)"""
        dbranch = self._dropped(acts, dropout.key("mlp residual dropout", layer) if dropout else None)
        name = f"h.{layer}.mlp"
        self._linear_backward(
            acts.dwide, dbranch, block.activated, f"{name}.c_proj", gradients,
            activation=self.config.activation, preactivation=block.preactivation,
        )  # fmt: skip
        self._linear_backward(dinp, acts.dwide, inp, f"{name}.c_fc", gradients, dresidual=dresidual)

    def _attention_backward(
        self, acts: Activations, block: Block, layer: int, dinp: Array, inp: Array, dresidual: Array | None,
        gradients: Parameters, dropout: DropoutStream | None,
    ) -> None:  # fmt: skip
        """dinp = gradient of the branch's input, from acts.dstream, the gradient of its output (+ dresidual)"""
        (B, T), rate, name = acts.shape, self.config.dropout, f"h.{layer}.attn"
        dbranch = self._dropped(acts, dropout.key("attention residual dropout", layer) if dropout else None)
        self._linear_backward(acts.dnarrow, dbranch, block.attended, f"{name}.c_proj", gradients)
        self.backend.attention_backward(
            acts.dqkv.reshape(B, T, -1),
            acts.dnarrow.reshape(B, T, -1),
            block.qkv.reshape(B, T, -1),
            block.attended.reshape(B, T, -1),
            block.lse,
            dropout_rate=rate if dropout else 0.0,
            dropout_key=dropout.key("attention dropout", layer) if dropout else 0,
        )
        self._linear_backward(dinp, acts.dqkv, inp, f"{name}.c_attn", gradients, dresidual=dresidual)

    def _dropped(self, acts: Activations, dropout_key: int | None) -> Array:
        """The gradient that a branch receives from acts.dstream, through the branch's dropout."""
        if dropout_key is None:
            return acts.dstream
        self.backend.dropout_backward(acts.dbranch, acts.dstream, self.config.dropout, dropout_key)
        return acts.dbranch

    def _linear_backward(
        self, dinp: Array, dout: Array, inp: Array, name: str, gradients: Parameters, **options: Any
    ) -> None:
        weight, bias = f"{name}.weight", f"{name}.bias"
        self.backend.linear_backward(
            dinp, gradients[weight], gradients.get(bias), dout, inp, self.parameters[weight], **options
        )

    def _norm_backward(
        self, dinp: Array, dout: Array, inp: Array, mean: Array, rstd: Array, name: str, gradients: Parameters,
        dresidual: Array | None = None,
    ) -> None:  # fmt: skip
        weight, bias = f"{name}.weight", f"{name}.bias"
        self.backend.layernorm_backward(
            dinp, gradients[weight], gradients.get(bias), dout, inp, self.parameters[weight], mean, rstd,
            dresidual=dresidual,
        )  # fmt: skip

    def _buffers(self, B: int, T: int) -> Activations:
        """The arrays for a batch of this shape; made anew only when the shape changes."""
        if self.config.ctx < T:
            raise ValueError(f"{T} tokens are more than the model's context of {self.config.ctx}")
        if self._activations is None or self._activations.shape != (B, T):
            self._activations = None  # let the old ones go before the new ones come
            self._activations = Activations(self.config, B, T)
        return self._activations
