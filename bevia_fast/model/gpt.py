"""The transformer: embeddings, blocks, head and loss, forward and backward, as a sequence of kernel calls.

Begin with `Pass`, and read its `forward` beside its `backward`: one is the other in reverse. The kernels do the
arithmetic; this module and the blocks (`block`, `pre_norm`, `post_norm`) say what is computed from what, and
`activations` what is kept for the backward pass. From the third pass of a kind on, the same calls are replayed without
this module; see `kernels.tape`.

Letters: B batch · T time · C channels · NH heads · V vocabulary · N = B·T rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..describing import table
from ..errors import ConfigError
from ..kernels.contract import Backend, ContractError, check_ids
from ..kernels.memory import aligned_empty
from ..kernels.tape import Keys
from .activations import Activations, LayerActivations, Room
from .changes import changed
from .dropout import DropoutStream
from .parameters import Parameters
from .post_norm import PostNormBlock
from .pre_norm import PreNormBlock

Array = NDArray[Any]


class Pass:
    """One pass over a batch of B x T tokens: forward, and with `head` and `backward` back again.

    `acts` holds the arrays. The masks of dropout come from `dropout`; without it, nothing is dropped.
    """

    def __init__(
        self, config: ModelConfig, kernels: Backend, weights: Parameters, acts: Activations,
        dropout: Keys | None = None,
    ) -> None:  # fmt: skip
        self.config, self.kernels, self.weights, self.acts, self.dropout = config, kernels, weights, acts, dropout
        kind = PreNormBlock if config.norm == "pre" else PostNormBlock
        self.blocks = [kind(layer, config, kernels, weights, acts, dropout) for layer in range(config.layers)]

    def forward(self, tokens: Array, look: Callable[[LayerActivations], None] = lambda kept: None) -> None:
        """Compute the last block's residual_out from `tokens` (B, T) int32.

        `look` is called with each block's activations after its attention.
        """
        kernels, weights, acts, T = self.kernels, self.weights, self.acts, tokens.shape[1]

        # x = dropout(wte[tokens] + wpe);  with rotary positions, there is no wpe
        kernels.embedding_forward(acts.sequences(acts.embedded), tokens, weights["wte.weight"], weights.positions(T))
        if self.dropout:
            key = self.dropout.key("embedding dropout")
            kernels.dropout_forward(acts.embedded, acts.embedded, self.config.dropout, key)

        # x = block(x)
        for block in self.blocks:
            block.forward(look)

    def logits(self, out: Array) -> None:
        """out (N, V) = ln_f(x) @ head^T"""
        kernels, weights = self.kernels, self.weights
        for chunk, x in zip(self.acts.chunks, self.blocks[-1].rows, strict=True):
            kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.residual_out, *weights.ln_f)
            kernels.linear_forward(out[chunk], x.normed, weights.head.T)

    def head(self, targets: Array, gradients: Parameters | None, scale: float) -> None:
        """losses = cross_entropy(ln_f(x) @ head^T, targets), for `targets` (N,) int32.

        With `gradients`, also the backward pass: acts.dstream becomes the gradient of scale * mean(losses) with respect
        to the last block's residual_out. Both run on some rows at a time, so that the logits (N, V) are never held.
        """
        kernels, weights, N = self.kernels, self.weights, targets.size
        for x in self.acts.head_rows(targets):
            kernels.layernorm_forward(x.normed, x.mean, x.rstd, x.residual_out, *weights.ln_f)
            kernels.linear_forward(x.logits, x.normed, weights.head.T)
            if gradients is None:
                kernels.cross_entropy(x.losses, None, x.logits, x.targets)
                continue

            # losses = cross_entropy(logits, targets),  whose gradient replaces the logits
            kernels.cross_entropy(x.losses, x.logits, x.logits, x.targets, scale=scale / N)

            # forward: logits = normed @ head^T
            kernels.linear_backward(x.dnormed, gradients.head.T, None, x.logits, x.normed, weights.head.T)

            # forward: normed = ln_f(residual_out)
            kernels.layernorm_backward(
                x.dstream, *gradients.ln_f, x.dnormed, x.residual_out, weights.ln_f.weight, x.mean, x.rstd
            )

    def backward(self, tokens: Array, gradients: Parameters) -> None:
        """Add the gradients of the blocks and the embeddings, from acts.dstream as `head` leaves it."""
        kernels, acts, T = self.kernels, self.acts, tokens.shape[1]

        # forward: x = block(x)
        for block, dw in zip(reversed(self.blocks), reversed(gradients.layers), strict=True):
            if acts.recompute and block is not self.blocks[-1]:  # the last block's attention is still there
                block.attention()
            block.backward(dw)

        # forward: x = dropout(wte[tokens] + wpe)
        if self.dropout:
            key = self.dropout.key("embedding dropout")
            kernels.dropout_backward(acts.dstream, acts.dstream, self.config.dropout, key)
        kernels.embedding_backward(
            gradients["wte.weight"], gradients.positions(T), acts.sequences(acts.dstream), tokens
        )


class GPT:
    """A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019) on one of the two backends.

    Models may share `parameters`, so that two backends can be compared on the same weights. With `recompute`, layers
    keep only their input and are computed again in the backward pass (Chen et al. 2016): the same bits, more slowly, in
    less memory. Raises ConfigError if `config` has no vocabulary, as before a text is read.
    """

    def __init__(
        self, config: ModelConfig, backend: Backend, parameters: Parameters, *, recompute: bool = False
    ) -> None:
        if not config.vocab_size:
            raise ConfigError("A model needs a vocabulary: its vocab_size is 0.")
        self.config = config
        self.backend = changed(backend, config)
        self.parameters = parameters
        self.recompute = recompute
        self._room = Room()
        self._activations: Activations | None = None

    def __repr__(self) -> str:
        c = self.config
        sizes = f"ctx {c.ctx:,}, dim {c.dim:,}, layers {c.layers:,}, heads {c.heads:,}, vocabulary {c.vocab_size:,}"
        return f"<GPT of {self.parameters.count:,} parameters on {self.backend.name}: {sizes}, {c.dtype}>"

    def _repr_html_(self) -> str:
        rows = [(field.name, getattr(self.config, field.name)) for field in fields(self.config)]
        return table("GPT", [("parameters", f"{self.parameters.count:,}"), ("backend", self.backend.name), *rows])

    def loss(self, tokens: Array, targets: Array) -> float:
        """Return the mean cross-entropy in nats per token, without dropout.

        `tokens` and `targets` are (B, T) of any integer dtype, with T <= ctx. Raises ContractError for other arrays,
        and for an id that is not in [0, V).
        """
        return self._mean_loss(tokens, targets, None, 1.0, None)

    def loss_and_gradients(
        self,
        tokens: Array,
        targets: Array,
        gradients: Parameters,
        *,
        scale: float = 1.0,
        dropout: DropoutStream | None = None,
    ) -> float:
        """Return the mean cross-entropy of a batch, and add the gradient of `scale` times it to `gradients`.

        With `scale` = 1/k, k micro-batches add up to the gradient of one batch k times as large. Without a `dropout`
        stream, nothing is dropped. The model may hold a reference to `gradients` until `forget`.
        """
        return self._mean_loss(tokens, targets, gradients, scale, dropout if self.config.dropout > 0.0 else None)

    def logits(self, tokens: Array) -> Array:
        """Return the logits (B, T, V) of the next token at each position of `tokens` (B, T), as a new array.

        `tokens` may have any integer dtype. Raises ContractError for an id that is not in [0, V).
        """
        tokens = self._ids("tokens", tokens, "B, T")
        logits = aligned_empty((tokens.size, self.config.vocab_size), self.config.dtype)
        self.forward(self.buffers(*tokens.shape), tokens).logits(logits)
        return logits.reshape(*tokens.shape, self.config.vocab_size)

    def attention_maps(self, tokens: Array) -> Array:
        """Return the attention weights (layers, NH, T, T) of all layers and heads for one sequence `tokens` (T,).

        `tokens` may have any integer dtype. Raises ContractError for an id that is not in [0, V).
        """
        tokens = self._ids("tokens", tokens, "T")
        T, NH = tokens.size, self.config.heads
        maps = aligned_empty((self.config.layers, 1, NH, T, T), self.config.dtype)

        def look(kept: LayerActivations) -> None:
            window = self.config.windows[kept.layer]
            self.backend.attention_weights(maps[kept.layer], kept.qkv.reshape(1, T, -1), window=window)

        self.forward(self.buffers(1, T), tokens.reshape(1, T), look)
        return maps[:, 0]

    def forward(
        self, acts: Activations, tokens: Array, look: Callable[[LayerActivations], None] = lambda kept: None
    ) -> Pass:
        """Run a forward pass without dropout, and return it; see `Pass.forward`."""
        forward = Pass(self.config, self.backend, self.parameters, acts)
        forward.forward(tokens, look)
        return forward

    def _mean_loss(
        self, tokens: Array, targets: Array, gradients: Parameters | None, scale: float, dropout: DropoutStream | None
    ) -> float:
        """Run a pass forward and, with `gradients`, backward; from the third pass of a kind on, replay its tape."""
        tokens, targets = self._ids("tokens", tokens, "B, T"), self._ids("targets", targets, "B, T")
        if tokens.shape != targets.shape:
            raise ContractError(f"a batch: targets has shape {targets.shape}; wanted {tokens.shape}, that of tokens")
        acts = self.buffers(*tokens.shape)
        acts.tokens[...], acts.targets[...] = tokens, targets

        def run(kernels: Backend, keys: Keys | None) -> None:
            made = Pass(self.config, kernels, self.parameters, acts, keys)
            made.forward(acts.tokens)
            made.head(acts.targets.reshape(-1), gradients, scale)
            if gradients is not None:
                made.backward(acts.tokens, gradients)

        # by identity: comparing their elements would take longer than the pass
        kind = id(self.backend), id(self.parameters), id(gradients), scale, dropout is None
        acts.tapes.run(self.backend, kind, run, dropout, self.parameters, gradients)
        return float(acts.losses.mean(dtype=np.float64))

    def _ids(self, name: str, ids: Any, dims: str) -> Array:
        """Return token ids as an int32 array; any integers will do, if they are ids. Raises ContractError."""
        ids = np.asarray(ids)
        if ids.dtype.kind not in "iu" or ids.ndim != len(dims.split()) or not ids.size:
            raise ContractError(
                f"a batch: {name} has shape {ids.shape} and dtype {ids.dtype}; wanted integers of shape ({dims})"
            )
        check_ids("a batch", name, ids, self.config.vocab_size)  # before larger integers are cut to 32 bits
        return np.ascontiguousarray(ids, np.int32)

    def forget(self) -> None:
        """Release the gradients and the kernels' working memory that are held to replay passes."""
        if self._activations is not None:
            self._activations.tapes.clear()

    def buffers(self, B: int, T: int) -> Activations:
        """Return the arrays for a batch of B x T, in memory that is allocated once for the largest batch.

        Raises ValueError if T > ctx.
        """
        if self.config.ctx < T:
            raise ValueError(f"{T} tokens are more than the model's context of {self.config.ctx}")
        if self._activations is None or self._activations.shape != (B, T):
            self._activations = None  # frees its memory before more is allocated
            self._activations = self._room.activations(self.config, B, T, recompute=self.recompute)
        return self._activations
