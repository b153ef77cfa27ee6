"""The transformer: forward and backward, as a sequence of kernel calls.

Read `forward` and `backward` side by side: one is the other upside down. Arithmetic happens in the kernels only; here
it is decided what is computed from what, and what is kept for the way back. Attention takes whole sequences; all else
is done a chunk of rows at a time, see `activations`. The third pass of a kind, and those behind it, are the same calls
without this module: see `kernels.tape`.

Letters: B batch · T time · C channels · NH heads · V vocabulary · N = B·T rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import ConfigError
from ..kernels.contract import Backend, ContractError, check_ids
from ..kernels.memory import aligned_empty
from ..kernels.rng import from_row, stream_key
from .activations import Activations, Block, Room, part
from .parameters import Parameters

Array = NDArray[Any]


@dataclass(frozen=True)
class DropoutStream:
    """Where the dropout masks of one forward and backward pass come from: a pure function of (seed, step)."""

    seed: int
    step: int  # counts micro-batches, so that accumulated ones differ

    def key(self, place: str, layer: int = 0, row: int = 0) -> int:
        """The key of the mask at a place, from some row of the batch on."""
        return from_row(stream_key(self.seed, place, self.step, layer), row)


class GPT:
    """A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019) on one of the two backends.

    `parameters` may be shared between models, so that two backends can look at the same weights. With `recompute`,
    layers keep their input only and are computed again on the way back (Chen et al. 2016): the same bits, more slowly,
    in less memory. Raises ConfigError if `config` has no vocabulary, as before a text was read.
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

    # ------------------------------------------------------------------------------------------------ what it is for

    def loss(self, tokens: Array, targets: Array) -> float:
        """Mean cross-entropy in nats a token, without dropout. `tokens`, `targets`: (B, T) int32, T <= ctx."""
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
        """Mean cross-entropy of a batch; the gradient of `scale` times it is added to `gradients`.

        With `scale` = 1/k, k micro-batches add up to the gradient of one batch k times as large. Without a `dropout`
        stream nothing is dropped. `gradients` may be held afterwards, until `forget`.
        """
        return self._mean_loss(tokens, targets, gradients, scale, dropout if self.config.dropout > 0.0 else None)

    def logits(self, tokens: Array) -> Array:
        """The logits (B, T, V) of the next token at each place of `tokens` (B, T), as a new array."""
        acts = self.buffers(*tokens.shape)
        self.forward(acts, tokens, None)
        logits = aligned_empty((tokens.size, self.config.vocab_size), self.config.dtype)
        for rows in acts.chunks:
            final = self._norm(acts, acts.blocks[-1].residual_out[rows], "ln_f")
            self.backend.linear_forward(logits[rows], final, self.parameters.head.T)
        return logits.reshape(*tokens.shape, self.config.vocab_size)

    def attention_maps(self, tokens: Array) -> Array:
        """The attention weights (layers, NH, T, T) of every layer and head for one sequence `tokens` (T,)."""
        T, NH = tokens.size, self.config.heads
        maps = aligned_empty((self.config.layers, 1, NH, T, T), self.config.dtype)

        def look(block: Block) -> None:
            self.backend.attention_weights(maps[block.layer], block.qkv.reshape(1, T, -1))

        self.forward(self.buffers(1, T), tokens.reshape(1, T), None, look)
        return maps[:, 0]

    def _mean_loss(
        self, tokens: Array, targets: Array, gradients: Parameters | None, scale: float, dropout: DropoutStream | None
    ) -> float:
        """A pass forward and, with `gradients`, back again; from the third of its kind on played from a tape."""
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
            model = copy.copy(self)  # another thread may ask this one for something meanwhile
            model.backend = kernels
            model.forward(acts, acts.tokens, keys)
            model.head(acts, acts.targets.reshape(-1), gradients, scale)
            if gradients is not None:
                model.backward(acts, acts.tokens, gradients, keys)

        # by identity: to compare their numbers would take longer than the pass
        kind = id(self.backend), id(self.parameters), id(gradients), scale, dropout is None
        acts.tapes.run(self.backend, kind, make, dropout, self.parameters, gradients)
        return float(acts.losses.mean(dtype=np.float64))

    # ------------------------------------------------------------------------------------------------------- forward

    def forward(
        self, acts: Activations, tokens: Array, dropout: DropoutStream | None,
        look: Callable[[Block], None] = lambda block: None,
    ) -> None:  # fmt: skip
        """Fill `acts` up to the last layer's residual_out. `look` is shown each layer after its attention."""
        kernels, weights = self.backend, self.parameters
        B, T = acts.shape
        kernels.embedding_forward(
            acts.embedded.reshape(B, T, -1), tokens, weights["wte.weight"], weights["wpe.weight"][:T]
        )
        if dropout:
            kernels.dropout_forward(
                acts.embedded, acts.embedded, self.config.dropout, dropout.key("embedding dropout")
            )
        for block in acts.blocks:
            self._attention(acts, block, dropout)
            look(block)
            for rows in acts.chunks:
                self._attention_branch(acts, block, rows, dropout)
                self._mlp_branch(acts, block, rows, dropout)

    def _attention(self, acts: Activations, block: Block, dropout: DropoutStream | None) -> None:
        """attended = attention(qkv(norm(residual_in)))"""
        kernels, weights, name = self.backend, self.parameters, f"h.{block.layer}.attn"
        B, T = acts.shape
        for rows in acts.chunks:
            kernels.linear_forward(
                block.qkv[rows], self._attention_input(acts, block, rows), weights[f"{name}.c_attn.weight"],
                weights.get(f"{name}.c_attn.bias"),
            )  # fmt: skip
        kernels.attention_forward(
            block.attended.reshape(B, T, -1),
            block.lse,
            block.qkv.reshape(B, T, -1),
            dropout_rate=self.config.dropout if dropout else 0.0,
            dropout_key=dropout.key("attention dropout", block.layer) if dropout else 0,
        )

    def _attention_input(self, acts: Activations, block: Block, rows: slice) -> Array:
        if self.config.norm == "pre":  # x + f(norm(x))
            return self._norm(acts, block.residual_in[rows], f"h.{block.layer}.ln_1")
        return block.residual_in[rows]  # norm(x + f(x))

    def _attention_branch(
        self, acts: Activations, block: Block, rows: slice, dropout: DropoutStream | None
    ) -> Array:
        """residual_mid = residual_in + dropout(projection(attended)), of some rows"""
        out = part(block.residual_mid, acts.mid, rows)
        key = dropout.key("attention residual dropout", block.layer, rows.start) if dropout else None
        self._residual(out, block.attended[rows], f"h.{block.layer}.attn.c_proj", block.residual_in[rows], key)
        return out

    def _mlp_branch(self, acts: Activations, block: Block, rows: slice, dropout: DropoutStream | None) -> None:
        """residual_out = residual_mid + dropout(projection(activated)), of some rows; with post-norm both normalised"""
        mid, out = part(block.residual_mid, acts.mid, rows), block.residual_out[rows]
        inp, activated = self._mlp_hidden(acts, block, rows, mid)
        key = dropout.key("mlp residual dropout", block.layer, rows.start) if dropout else None
        name = f"h.{block.layer}"
        if self.config.norm == "pre":
            self._residual(out, activated, f"{name}.mlp.c_proj", mid, key)
        else:
            mlp_sum = part(block.mlp_sum, acts.mlp_sum, rows)
            self._residual(mlp_sum, activated, f"{name}.mlp.c_proj", inp, key)
            self._norm(acts, mlp_sum, f"{name}.ln_2", out)

    def _mlp_hidden(
        self, acts: Activations, block: Block, rows: slice, mid: Array, *, again: bool = False
    ) -> tuple[Array, Array]:
        """(inp, activated) of some rows: inp = norm(mid), activated = activation(expansion(inp)); the latter from the
        preactivation if it is there already, `again` on the way back."""
        kernels, weights, name = self.backend, self.parameters, f"h.{block.layer}.mlp"
        inp = self._norm(acts, mid, f"h.{block.layer}.{'ln_2' if self.config.norm == 'pre' else 'ln_1'}")
        preactivation = part(block.preactivation, acts.preactivation, rows)
        activated = acts.activated[: len(mid)]
        if again and (acts.keeps_rows or self.config.norm == "post"):
            activate = kernels.gelu_forward if self.config.activation == "gelu" else kernels.relu_forward
            activate(activated, preactivation)
        else:
            kernels.linear_forward(
                activated, inp, weights[f"{name}.c_fc.weight"], weights.get(f"{name}.c_fc.bias"),
                activation=self.config.activation, preactivation=preactivation,
            )  # fmt: skip
        return inp, activated

    def _residual(self, out: Array, inp: Array, name: str, residual: Array, dropout_key: int | None) -> None:
        """out = residual + dropout(inp @ weight + bias): where a branch joins the stream again."""
        kernels, weight, bias = self.backend, self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        if dropout_key is None:
            kernels.linear_forward(out, inp, weight, bias, residual=residual)
        else:
            kernels.linear_forward(out, inp, weight, bias)
            kernels.dropout_forward(out, out, self.config.dropout, dropout_key, residual=residual)

    def _norm(self, acts: Activations, inp: Array, name: str, out: Array | None = None) -> Array:
        """The normalised rows, in acts.normed unless told otherwise; acts.mean and acts.rstd belong to them."""
        weights, N = self.parameters, len(inp)
        out = acts.normed[:N] if out is None else out
        self.backend.layernorm_forward(
            out, acts.mean[:N], acts.rstd[:N], inp, weights[f"{name}.weight"], weights.get(f"{name}.bias")
        )
        return out

    def head(self, acts: Activations, targets: Array, gradients: Parameters | None, scale: float) -> None:
        """Fill `acts.losses`, some rows at a time so that N x V is never held; with `gradients` also go back through
        the head at once: acts.dstream = d(scale * mean loss) / d(the last layer's residual_out)."""
        kernels, head, N = self.backend, self.parameters.head.T, targets.size
        for rows in acts.head_chunks:
            stream = acts.blocks[-1].residual_out[rows]
            logits, dfinal = acts.logits[: len(stream)], acts.dnormed[: len(stream)]
            final = self._norm(acts, stream, "ln_f")
            kernels.linear_forward(logits, final, head)
            if gradients is None:
                kernels.cross_entropy(acts.losses[rows], None, logits, targets[rows])
            else:
                kernels.cross_entropy(acts.losses[rows], logits, logits, targets[rows], scale=scale / N)
                kernels.linear_backward(dfinal, gradients.head.T, None, logits, final, head)
                self._norm_backward(acts, acts.dstream[rows], dfinal, stream, "ln_f", gradients)

    # ------------------------------------------------------------------------------------------------------ backward

    def backward(
        self, acts: Activations, tokens: Array, gradients: Parameters, dropout: DropoutStream | None
    ) -> None:
        """From acts.dstream, the gradient of the last layer's output, down to the embeddings."""
        kernels, (B, T) = self.backend, acts.shape
        for block in reversed(acts.blocks):
            if acts.recompute and block is not acts.blocks[-1]:  # the last one's is still there
                self._attention(acts, block, dropout)
            for rows in acts.chunks:
                self._mlp_branch_backward(acts, block, rows, gradients, dropout)
                self._attention_branch_backward(acts, block, rows, gradients, dropout)
            self._attention_backward(acts, block, gradients, dropout)
        if dropout:
            kernels.dropout_backward(
                acts.dstream, acts.dstream, self.config.dropout, dropout.key("embedding dropout")
            )
        kernels.embedding_backward(
            gradients["wte.weight"], gradients["wpe.weight"][:T], acts.dstream.reshape(B, T, -1), tokens
        )

    def _mlp_branch_backward(
        self, acts: Activations, block: Block, rows: slice, gradients: Parameters, dropout: DropoutStream | None
    ) -> None:
        """acts.dstream of some rows, from the gradient of residual_out to that of residual_mid"""
        name, dstream = f"h.{block.layer}", acts.dstream[rows]
        mid = part(block.residual_mid, acts.mid, rows)
        if not acts.keeps_rows:
            self._attention_branch(acts, block, rows, dropout)
        if self.config.norm == "post":
            if not acts.keeps_rows:
                self._mlp_branch(acts, block, rows, dropout)
            mlp_sum = part(block.mlp_sum, acts.mlp_sum, rows)
            self._norm(acts, mlp_sum, f"{name}.ln_2")
            self._norm_backward(acts, dstream, dstream, mlp_sum, f"{name}.ln_2", gradients)
        inp, activated = self._mlp_hidden(acts, block, rows, mid, again=True)
        dbranch = self._dropped(acts, rows, dropout, "mlp residual dropout", block)
        dwide, dinp = acts.dwide[: len(mid)], acts.dnormed[: len(mid)]
        self._linear_backward(
            dwide, dbranch, activated, f"{name}.mlp.c_proj", gradients,
            activation=self.config.activation, preactivation=part(block.preactivation, acts.preactivation, rows),
        )  # fmt: skip
        if self.config.norm == "pre":
            self._linear_backward(dinp, dwide, inp, f"{name}.mlp.c_fc", gradients)
            self._norm_backward(acts, dstream, dinp, mid, f"{name}.ln_2", gradients, dstream)
        else:
            self._linear_backward(dstream, dwide, inp, f"{name}.mlp.c_fc", gradients, dresidual=dstream)
            self._norm_backward(acts, dstream, dstream, mid, f"{name}.ln_1", gradients)

    def _attention_branch_backward(
        self, acts: Activations, block: Block, rows: slice, gradients: Parameters, dropout: DropoutStream | None
    ) -> None:
        """acts.dattended of some rows, from acts.dstream, there the gradient of residual_mid"""
        dbranch = self._dropped(acts, rows, dropout, "attention residual dropout", block)
        name = f"h.{block.layer}.attn.c_proj"
        self._linear_backward(acts.dattended[rows], dbranch, block.attended[rows], name, gradients)

    def _attention_backward(
        self, acts: Activations, block: Block, gradients: Parameters, dropout: DropoutStream | None
    ) -> None:
        """acts.dstream, from the gradient of residual_mid to that of residual_in, which is also attention's input"""
        (B, T), name = acts.shape, f"h.{block.layer}"
        self.backend.attention_backward(
            acts.dqkv.reshape(B, T, -1),
            acts.dattended.reshape(B, T, -1),
            block.qkv.reshape(B, T, -1),
            block.attended.reshape(B, T, -1),
            block.lse,
            dropout_rate=self.config.dropout if dropout else 0.0,
            dropout_key=dropout.key("attention dropout", block.layer) if dropout else 0,
        )
        for rows in acts.chunks:
            dstream, stream, dqkv = acts.dstream[rows], block.residual_in[rows], acts.dqkv[rows]
            inp, dinp = self._attention_input(acts, block, rows), acts.dnormed[: len(stream)]
            if self.config.norm == "pre":
                self._linear_backward(dinp, dqkv, inp, f"{name}.attn.c_attn", gradients)
                self._norm_backward(acts, dstream, dinp, stream, f"{name}.ln_1", gradients, dstream)
            else:
                self._linear_backward(dstream, dqkv, inp, f"{name}.attn.c_attn", gradients, dresidual=dstream)

    def _dropped(
        self, acts: Activations, rows: slice, dropout: DropoutStream | None, place: str, block: Block
    ) -> Array:
        """The gradient that a branch receives from acts.dstream, through the branch's dropout."""
        dstream = acts.dstream[rows]
        if not dropout:
            return dstream
        dbranch = acts.dbranch[: len(dstream)]
        self.backend.dropout_backward(
            dbranch, dstream, self.config.dropout, dropout.key(place, block.layer, rows.start)
        )
        return dbranch

    def _linear_backward(
        self, dinp: Array, dout: Array, inp: Array, name: str, gradients: Parameters, **options: Any
    ) -> None:
        weight, bias = f"{name}.weight", f"{name}.bias"
        self.backend.linear_backward(
            dinp, gradients[weight], gradients.get(bias), dout, inp, self.parameters[weight], **options
        )

    def _norm_backward(
        self, acts: Activations, dinp: Array, dout: Array, inp: Array, name: str, gradients: Parameters,
        dresidual: Array | None = None,
    ) -> None:  # fmt: skip
        """`inp` are the rows that `_norm` had last."""
        weight, bias, N = f"{name}.weight", f"{name}.bias", len(inp)
        self.backend.layernorm_backward(
            dinp, gradients[weight], gradients.get(bias), dout, inp, self.parameters[weight],
            acts.mean[:N], acts.rstd[:N], dresidual=dresidual,
        )  # fmt: skip

    def forget(self) -> None:
        """Let go the arrays of others, gradients and working memory, that are held to play passes again."""
        if self._activations is not None:
            self._activations.tapes.clear()

    def buffers(self, B: int, T: int) -> Activations:
        """The arrays for a batch of this shape, in memory that is taken once for the largest."""
        if self.config.ctx < T:
            raise ValueError(f"{T} tokens are more than the model's context of {self.config.ctx}")
        if self._activations is None or self._activations.shape != (B, T):
            self._activations = None  # or its memory could not go, where more is needed
            self._activations = self._room.activations(self.config, B, T, recompute=self.recompute)
        return self._activations
