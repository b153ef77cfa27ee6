"""The transformer: embeddings, blocks, head and loss, forward and backward, as a sequence of kernel calls.

Read `forward` and `backward` side by side: one is the other in reverse. The kernels do the arithmetic; this module and
`block` decide what is computed from what, and `activations` what is kept for the backward pass. From the third pass of
a kind on, the same calls are replayed without this module; see `kernels.tape`.

Letters: B batch · T time · C channels · NH heads · V vocabulary · N = B·T rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import ConfigError
from ..kernels.contract import Backend, ContractError, check_ids
from ..kernels.memory import aligned_empty
from .activations import Activations, LayerActivations, Room
from .block import Pass
from .dropout import DropoutStream
from .parameters import Parameters

Array = NDArray[Any]

EMBEDDING = "embedding dropout"


class GPT:
    """A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019) on one of the two backends.

    Several models may share `parameters`, so that two backends can be compared on the same weights. With `recompute`,
    layers keep only their input and are computed again in the backward pass (Chen et al. 2016): the same bits, more
    slowly, in less memory. Raises ConfigError if `config` has no vocabulary, as before a text is read.
    """

    def __init__(
        self, config: ModelConfig, backend: Backend, parameters: Parameters, *, recompute: bool = False
    ) -> None:
        if not config.vocab_size:
            raise ConfigError("A model needs a vocabulary: its vocab_size is 0.")
        self.config = config
        self.backend = backend
        self.parameters = parameters
        self.recompute = recompute
        self._room = Room()
        self._activations: Activations | None = None

    # ------------------------------------------------------------------------------------------------ what it computes

    def loss(self, tokens: Array, targets: Array) -> float:
        """Return the mean cross-entropy in nats per token, without dropout.

        `tokens` and `targets` are (B, T) int32, with T <= ctx.
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
        stream, nothing is dropped. The model holds a reference to `gradients` until `forget`.
        """
        return self._mean_loss(tokens, targets, gradients, scale, dropout if self.config.dropout > 0.0 else None)

    def logits(self, tokens: Array) -> Array:
        """Return the logits (B, T, V) of the next token at each position of `tokens` (B, T), as a new array."""
        acts = self.buffers(*tokens.shape)
        self.forward(acts, tokens, None)
        logits = aligned_empty((tokens.size, self.config.vocab_size), self.config.dtype)
        for chunk in acts.chunks:
            final = self._final_norm(acts, acts.blocks[-1].residual_out[chunk])
            self.backend.linear_forward(logits[chunk], final, self.parameters.head.T)
        return logits.reshape(*tokens.shape, self.config.vocab_size)

    def attention_maps(self, tokens: Array) -> Array:
        """Return the attention weights (layers, NH, T, T) of all layers and heads for one sequence `tokens` (T,)."""
        T, NH = tokens.size, self.config.heads
        maps = aligned_empty((self.config.layers, 1, NH, T, T), self.config.dtype)

        def look(kept: LayerActivations) -> None:
            self.backend.attention_weights(maps[kept.layer], kept.qkv.reshape(1, T, -1))

        self.forward(self.buffers(1, T), tokens.reshape(1, T), None, look)
        return maps[:, 0]

    def _mean_loss(
        self, tokens: Array, targets: Array, gradients: Parameters | None, scale: float, dropout: DropoutStream | None
    ) -> float:
        """Run a pass forward and, with `gradients`, backward; from the third pass of a kind on, replay its tape."""
        for name, array in (("tokens", tokens), ("targets", targets)):
            if array.shape != tokens.shape or array.dtype != np.int32:
                raise ContractError(
                    f"a batch: {name} has shape {array.shape} and dtype {array.dtype}; wanted {tokens.shape} and int32"
                )
        acts = self.buffers(*tokens.shape)
        acts.tokens[...], acts.targets[...] = tokens, targets
        for name, array in (("tokens", acts.tokens), ("targets", acts.targets)):
            check_ids("a batch", name, array, self.config.vocab_size)

        def make(kernels: Backend, keys: DropoutStream | None) -> None:
            model = copy.copy(self)  # another thread may use this one meanwhile
            model.backend = kernels
            model.forward(acts, acts.tokens, keys)
            model.head(acts, acts.targets.reshape(-1), gradients, scale)
            if gradients is not None:
                model.backward(acts, acts.tokens, gradients, keys)

        # by identity: comparing the numbers would take longer than the pass
        kind = id(self.backend), id(self.parameters), id(gradients), scale, dropout is None
        acts.tapes.run(self.backend, kind, make, dropout, self.parameters, gradients)
        return float(acts.losses.mean(dtype=np.float64))

    # --------------------------------------------------------------------------------------------------------- forward

    def forward(
        self, acts: Activations, tokens: Array, dropout: DropoutStream | None,
        look: Callable[[LayerActivations], None] = lambda kept: None,
    ) -> None:  # fmt: skip
        """Fill `acts` up to the last layer's residual_out. `look` sees each layer after its attention."""
        kernels, weights, (B, T) = self.backend, self.parameters, acts.shape
        # x = dropout(wte[tokens] + wpe)
        kernels.embedding_forward(
            acts.embedded.reshape(B, T, -1), tokens, weights["wte.weight"], weights["wpe.weight"][:T]
        )
        if dropout:
            kernels.dropout_forward(acts.embedded, acts.embedded, self.config.dropout, dropout.key(EMBEDDING))
        # x = block(x), layer by layer
        shared = Pass(self.config, kernels, weights, acts, dropout)
        for kept in acts.blocks:
            block = shared.block(kept)
            block.forward_attention()
            look(kept)
            for rows in block.rows():
                block.forward_rows(rows)

    def head(self, acts: Activations, targets: Array, gradients: Parameters | None, scale: float) -> None:
        """losses = cross_entropy(ln_f(x) @ head^T, targets), and with `gradients` also its backward pass.

        The rows are processed in chunks, so that the logits (N, V) are never held. With `gradients`, acts.dstream
        becomes the gradient of scale * mean(losses) with respect to the last layer's residual_out.
        """
        kernels, weights, head, N = self.backend, self.parameters, self.parameters.head.T, targets.size
        for chunk in acts.head_chunks:
            x = acts.blocks[-1].residual_out[chunk]
            n = len(x)
            logits, dfinal = acts.logits[:n], acts.dnormed[:n]
            final = self._final_norm(acts, x)
            kernels.linear_forward(logits, final, head)
            if gradients is None:
                kernels.cross_entropy(acts.losses[chunk], None, logits, targets[chunk])
                continue
            # losses = cross_entropy(logits, targets), whose gradient takes the place of the logits
            kernels.cross_entropy(acts.losses[chunk], logits, logits, targets[chunk], scale=scale / N)
            # logits = final @ head
            kernels.linear_backward(dfinal, gradients.head.T, None, logits, final, head)
            # final = ln_f(x)
            kernels.layernorm_backward(
                acts.dstream[chunk], gradients.ln_f.weight, gradients.ln_f.bias, dfinal, x, weights.ln_f.weight,
                acts.mean[:n], acts.rstd[:n],
            )  # fmt: skip

    def _final_norm(self, acts: Activations, x: Array) -> Array:
        """final = ln_f(x), in acts.normed; acts.mean and acts.rstd then belong to `x`."""
        n, ln_f = len(x), self.parameters.ln_f
        final = acts.normed[:n]
        self.backend.layernorm_forward(final, acts.mean[:n], acts.rstd[:n], x, ln_f.weight, ln_f.bias)
        return final

    # -------------------------------------------------------------------------------------------------------- backward

    def backward(
        self, acts: Activations, tokens: Array, gradients: Parameters, dropout: DropoutStream | None
    ) -> None:
        """Add to `gradients`, from acts.dstream, the gradient of the last layer's residual_out, to the embeddings."""
        kernels, (B, T) = self.backend, acts.shape
        # x = block(x), layer by layer
        shared = Pass(self.config, kernels, self.parameters, acts, dropout, gradients)
        for kept in reversed(acts.blocks):
            block = shared.block(kept)
            if acts.recompute and kept is not acts.blocks[-1]:  # the last layer's attention is still there
                block.forward_attention()
            for rows in block.rows():
                block.backward_rows(rows)
            block.backward_attention()
        # x = dropout(wte[tokens] + wpe)
        if dropout:
            kernels.dropout_backward(acts.dstream, acts.dstream, self.config.dropout, dropout.key(EMBEDDING))
        kernels.embedding_backward(
            gradients["wte.weight"], gradients["wpe.weight"][:T], acts.dstream.reshape(B, T, -1), tokens
        )

    # ---------------------------------------------------------------------------------------------------------- memory

    def forget(self) -> None:
        """Release the gradients and the working memory that are held to replay passes."""
        if self._activations is not None:
            self._activations.tapes.clear()

    def buffers(self, B: int, T: int) -> Activations:
        """Return the arrays for a batch of this shape, in memory that is allocated once for the largest batch."""
        if self.config.ctx < T:
            raise ValueError(f"{T} tokens are more than the model's context of {self.config.ctx}")
        if self._activations is None or self._activations.shape != (B, T):
            self._activations = None  # frees its memory before more is allocated
            self._activations = self._room.activations(self.config, B, T, recompute=self.recompute)
        return self._activations
