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

from .config import ModelConfig
from .kernels import Backend
from .kernels.memory import aligned_empty
from .kernels.rng import stream_key
from .parameters import Parameters

Array = NDArray[Any]

LOGITS_BYTES = 16 << 20  # the logits are made a block of rows at a time; one block is at most about this large


@dataclass(frozen=True)
class DropoutStream:
    """Where the dropout masks of one forward and backward pass come from: a pure function of (seed, step)."""

    seed: int
    step: int  # counts micro-batches, so that accumulated ones differ

    def key(self, place: str, layer: int = 0) -> int:
        return stream_key(self.seed, place, self.step, layer)


class Block:
    """What one layer keeps of its forward pass, and its weights by short names."""

    def __init__(self, config: ModelConfig, B: int, T: int, residual_in: Array) -> None:
        N, C, NH = B * T, config.dim, config.heads

        def rows(width: int) -> Array:
            return aligned_empty((N, width), config.dtype)

        self.residual_in = residual_in  # the stream as it enters
        self.normed_1, self.mean_1, self.rstd_1 = rows(C), *aligned_empty((2, N), config.dtype)
        self.qkv = rows(3 * C)
        self.lse = aligned_empty((B, NH, T), config.dtype)
        self.attended = rows(C)
        self.residual_mid = rows(C)  # the stream between attention and MLP
        self.normed_2, self.mean_2, self.rstd_2 = rows(C), *aligned_empty((2, N), config.dtype)
        self.preactivation, self.activated = rows(4 * C), rows(4 * C)
        self.residual_out = rows(C)


class Activations:
    """All arrays of a forward and backward pass over a batch of B x T tokens, allocated once."""

    def __init__(self, config: ModelConfig, B: int, T: int) -> None:
        N, C, V = B * T, config.dim, config.vocab_size

        def rows(width: int, count: int = N) -> Array:
            return aligned_empty((count, width), config.dtype)

        self.shape = (B, T)
        self.embedded = rows(C)
        self.blocks: list[Block] = []
        for _ in range(config.layers):
            stream = self.blocks[-1].residual_out if self.blocks else self.embedded
            self.blocks.append(Block(config, B, T, stream))
        self.final, self.mean_f, self.rstd_f = rows(C), *aligned_empty((2, N), config.dtype)
        self.head_rows = max(1, min(N, LOGITS_BYTES // (V * self.final.itemsize)))
        self.logits = rows(V, self.head_rows)
        self.losses = aligned_empty(N, config.dtype)
        # gradients with respect to activations; each is used again in every layer
        self.dstream, self.dbranch, self.dnarrow = rows(C), rows(C), rows(C)
        self.dwide, self.dqkv = rows(4 * C), rows(3 * C)


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


class Decoder:
    """Generation one token at a time: the keys and values of all earlier positions are kept in a cache.

    `keys`, `values`: a list over layers of (1, NH, ctx, HS).
    """

    def __init__(self, model: GPT) -> None:
        config = model.config
        self.model = model
        self.position = 0  # tokens in the cache
        shape = (1, config.heads, config.ctx, config.head_size)
        self.keys = [aligned_empty(shape, config.dtype) for _ in range(config.layers)]
        self.values = [aligned_empty(shape, config.dtype) for _ in range(config.layers)]
        self._block = Block(config, 1, 1, aligned_empty((1, config.dim), config.dtype))
        self._mean, self._rstd = aligned_empty((2, 1), config.dtype)
        self._final = aligned_empty((1, config.dim), config.dtype)
        self._logits = aligned_empty((1, config.vocab_size), config.dtype)
        self._reading: Activations | None = None

    def read(self, tokens: Array) -> Array:
        """Forget what was, and take in `tokens` (T,) int32, T <= ctx, at once; return the logits (V,) of the next one,
        in a buffer that the next call overwrites."""
        model, config, T = self.model, self.model.config, tokens.size
        if self._reading is None or self._reading.shape[1] != T:
            self._reading = Activations(config, 1, T)
        model._forward(self._reading, tokens.reshape(1, T), None)
        for layer, block in enumerate(self._reading.blocks):
            qkv = block.qkv.reshape(T, 3, config.heads, config.head_size)
            self.keys[layer][0, :, :T] = qkv[:, 1].swapaxes(0, 1)
            self.values[layer][0, :, :T] = qkv[:, 2].swapaxes(0, 1)
        self.position = T
        model.backend.linear_forward(self._logits, self._reading.final[-1:], model.parameters.head.T)
        logits: Array = self._logits[0]
        return logits

    def feed(self, token: int) -> Array:
        """Take in one more token; return the logits (V,) of the next one, in a buffer that the next call overwrites.

        Raises ValueError when the context is full.
        """
        model, block, position = self.model, self._block, self.position
        kernels, weights, config = model.backend, model.parameters, model.config
        if position == config.ctx:
            raise ValueError(f"the context of {config.ctx} tokens is full")
        x, mid, out = block.residual_in, block.residual_mid, block.residual_out
        kernels.embedding_forward(
            x.reshape(1, 1, -1), np.array([[token]], np.int32), weights["wte.weight"],
            weights["wpe.weight"][position : position + 1],
        )  # fmt: skip
        for layer in range(config.layers):
            pre, attn, mlp = config.norm == "pre", f"h.{layer}.attn", f"h.{layer}.mlp"
            inp = x
            if pre:
                inp = block.normed_1
                model._norm(inp, block.mean_1, block.rstd_1, x, f"h.{layer}.ln_1")
            kernels.linear_forward(block.qkv, inp, weights[f"{attn}.c_attn.weight"], weights.get(f"{attn}.c_attn.bias"))
            kernels.attention_decode(block.attended, self.keys[layer], self.values[layer], block.qkv, position)
            model._residual(mid, block.attended, f"{attn}.c_proj", x, None)
            inp = block.normed_2 if pre else block.normed_1
            model._norm(inp, block.mean_2, block.rstd_2, mid, f"h.{layer}.ln_2" if pre else f"h.{layer}.ln_1")
            kernels.linear_forward(
                block.activated, inp, weights[f"{mlp}.c_fc.weight"], weights.get(f"{mlp}.c_fc.bias"),
                activation=config.activation,
            )  # fmt: skip
            if pre:
                model._residual(out, block.activated, f"{mlp}.c_proj", mid, None)
                x, out = out, x
            else:
                model._residual(block.normed_2, block.activated, f"{mlp}.c_proj", inp, None)
                model._norm(x, block.mean_2, block.rstd_2, block.normed_2, f"h.{layer}.ln_2")
        model._norm(self._final, self._mean, self._rstd, x, "ln_f")
        kernels.linear_forward(self._logits, self._final, weights.head.T)
        self.position += 1
        logits: Array = self._logits[0]
        return logits
