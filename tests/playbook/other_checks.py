"""What the chapters quote beside the kernels, compared with the plain loops of the text: a check for each file.

Each takes the module, which may have been changed, and returns whether it computes what the text says.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from helpers import random_parameters

from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Cost
from bevia_fast.kernels.rng import stream_key
from bevia_fast.model.activations import Activations
from bevia_fast.model.parameters import Parameters
from bevia_fast.playbook.twins import namespace

TWINS = SimpleNamespace(**{name: value for name, value in namespace().items() if not name.startswith("__")})
NAMES = {
    "ln_1": "ln_1", "qkv": "attn.c_attn", "attn_proj": "attn.c_proj", "ln_2": "ln_2", "fc": "mlp.c_fc",
    "mlp_proj": "mlp.c_proj",
}  # fmt: skip
CLOSE = 1e-10


def close(a: Any, b: Any) -> bool:
    return bool(np.abs(np.asarray(a) - np.asarray(b)).max() <= CLOSE)


def tokenizer(module: Any) -> bool:
    alphabet = "".join(map(chr, range(32, 232)))  # so many that a token that is 1 % too large is another one
    text = alphabet[::-1] + "banana"
    ids = module.Tokenizer(alphabet).encode(text).tolist()
    return bool(ids == TWINS.encode(text, alphabet))


def corpus(module: Any) -> bool:
    ids = np.arange(100, 150, dtype=np.int32)
    batches = module.Batches(ids, 7, 3, 1)
    tokens, targets = batches[2]
    wanted = [TWINS.window(ids.tolist(), start, 7) for start in batches.starts(6, 3).tolist()]
    return (tokens.tolist(), targets.tolist()) == ([one for one, _ in wanted], [other for _, other in wanted])


def initial_weights(module: Any) -> bool:
    config = ModelConfig(ctx=4, dim=8, layers=3, heads=2, vocab_size=5, dtype="float64")
    found, right = module.Parameters.initial(config, 9), []
    for index, spec in enumerate(found.specs):
        if len(spec.shape) == 2:
            generator = np.random.Generator(np.random.Philox(key=stream_key(9, "weights", index)))
            std = TWINS.initial_std(3, spec.name.endswith("c_proj.weight"))
            right.append(close(found[spec.name], generator.normal(0.0, std, spec.shape)))
    return all(right)


def schedule(module: Any) -> bool:
    return all(
        abs(module.learning_rate(step, **options) - TWINS.learning_rate(step, **options)) < 1e-15
        for options in (
            {"steps": 30, "lr": 3e-3, "min_lr": 1e-4, "warmup": 7}, {"steps": 8, "lr": 1e-3, "min_lr": 0.0, "warmup": 7}
        )
        for step in range(1, options["steps"] + 1)
    )  # fmt: skip


def clipping(module: Any) -> bool:
    """The scale that AdamW gets, for gradients below, at and above several limits."""
    model = ModelConfig(ctx=2, dim=2, layers=1, heads=1, vocab_size=3)
    seen: list[float] = []
    backend = SimpleNamespace(name="watching", adamw=lambda *arrays, **options: seen.append(options["gradient_scale"]))
    wanted = []
    for limit in (0.0, 0.05, 1.0):
        trainer = module.Trainer(TrainConfig(model=model, grad_clip=limit), model, backend, np.zeros(9, np.int32))
        for norm in (0.01, 0.5, 1.0, 1.5):
            trainer.update(1, 1.0, norm)
            wanted.append(TWINS.clip_scale(norm, limit))
    return close(seen, wanted)


def block_of(kind: Any, norm: Any, activation: Any) -> Any:
    """A block of random weights after its forward pass, with its input and its weights as the twins want them."""
    sizes = {"ctx": 5, "dim": 6, "layers": 1, "heads": 2, "vocab_size": 3}
    config = ModelConfig(norm=norm, activation=activation, dtype="float64", **sizes)
    weights, x = random_parameters(config), np.random.default_rng(2).normal(size=(5, 6))
    acts = Activations(config, 1, 5)
    acts.blocks[0].residual_in[...] = x
    block = kind(0, config, get_backend("numpy"), weights, acts, None)
    block.forward(lambda kept: None)
    plain = {
        name: tuple(weights[f"h.0.{ours}.{part}"].tolist() for part in ("weight", "bias"))
        for name, ours in NAMES.items()
    }  # fmt: skip
    return config, acts, block, x.tolist(), plain


def pre_norm(module: Any) -> bool:
    right = []
    for activation in ("gelu", "gelu_erf", "relu"):
        config, acts, block, x, w = block_of(module.PreNormBlock, "pre", activation)
        out, kept = TWINS.pre_norm_block(x, w, 2, activation)
        right.append(close(acts.blocks[0].residual_out, out))
        dout = np.random.default_rng(3).normal(size=(5, 6))
        acts.dstream[...] = dout
        gradients = Parameters(config)
        block.backward(gradients.layers[0])
        dx, dw = TWINS.pre_norm_block_backward(dout.tolist(), kept, w, 2, activation)
        right.append(close(acts.dstream, dx))
        for name, ours in NAMES.items():
            for part, wanted in zip(("weight", "bias"), dw[name], strict=True):
                right.append(close(gradients[f"h.0.{ours}.{part}"], wanted))
    return all(right)


def post_norm(module: Any) -> bool:
    right = []
    for activation in ("gelu", "gelu_erf", "relu"):
        config, acts, block, x, w = block_of(module.PostNormBlock, "post", activation)
        right.append(close(acts.blocks[0].residual_out, TWINS.post_norm_block(x, w, 2, activation)))
        dout = np.random.default_rng(3).normal(size=(5, 6))
        acts.dstream[...] = dout
        block.backward(Parameters(config).layers[0])
        row, dx = x[3], acts.dstream[3]

        def loss() -> float:
            out = TWINS.post_norm_block(x, w, 2, activation)  # noqa: B023  # used within this turn
            return float((dout * out).sum())  # noqa: B023

        right.append(bool(np.abs([dx[c] - TWINS.slope_of(loss, row, c) for c in range(6)]).max() < 1e-6))
    return all(right)


def roofline(module: Any) -> bool:
    calls = [(4e6, 2e5, 100.0, 20.0), (1e4, 2e5, 100.0, 20.0), (1e6, 2e5, 100.0, 20.0)]  # the last one: a tie
    return all(
        (found.ns, found.by) == TWINS.least_time(*call)
        for call in calls for found in [module.Bound.of(Cost(*call[:2]), *call[2:])]
    )  # fmt: skip


def sums(module: Any) -> bool:
    """In float64, where the order of the sum shows in the last bit; small whole numbers would not tell orders apart."""
    generator, right = np.random.default_rng(4), []
    for N in (1, 2, 128, 129, 300, 1001):
        x = generator.normal(size=(N, 3))
        right.append(bool((module.sum_of_rows(x) == np.array(TWINS.sum_of_rows(x.tolist()))).all()))
    return all(right)


def tolerances(module: Any) -> bool:
    found = [module.tolerance("linear_forward", "out", dtype, {"C": 100}) for dtype in ("float32", "float64")]
    return found == [TWINS.allowed_error(eps, 4, 100) for eps in (2.0**-23, 2.0**-52)]


def comparison(module: Any) -> bool:
    a, b = np.array([1.0, -2.5, 4.0]), np.array([1.0, -2.0, 3.0])
    right = [
        module.difference("x", a, b, 0.1, relative).error == TWINS.relative_error(a.tolist(), b.tolist(), relative)
        for relative in (None, 0.5)
    ]
    return all(right)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "bevia_fast/data/tokenizer.py": tokenizer,
    "bevia_fast/data/corpus.py": corpus,
    "bevia_fast/model/parameters.py": initial_weights,
    "bevia_fast/training/schedule.py": schedule,
    "bevia_fast/training/step.py": clipping,
    "bevia_fast/model/pre_norm.py": pre_norm,
    "bevia_fast/model/post_norm.py": post_norm,
    "bevia_fast/measuring/roofline.py": roofline,
    "kernels/numpy_ref/_sums.py": sums,
    "bevia_fast/agreement/tolerances.py": tolerances,
    "bevia_fast/agreement/comparison.py": comparison,
}
