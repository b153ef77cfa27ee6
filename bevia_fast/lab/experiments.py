"""The experiments: each a question, what one expects, and the arms that differ in one thing.

A new experiment is an entry in EXPERIMENTS; nothing else needs to be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import ModelConfig, TrainConfig

MODEL = ModelConfig(dim=64, layers=4, heads=4)
TRAIN = TrainConfig(model=MODEL, batch=8, steps=400, warmup=40)
RATES = (1e-3, 3e-3, 1e-2)  # one rate misleads: what helps at one may harm at another
MUON = 20 / 3  # Muon's rate by that of AdamW: its default, 0.02, at the middle rate


@dataclass(frozen=True)
class Arm:
    """One of the things to compare: what it changes about the usual options.

    `model` and `train` are fields of ModelConfig and TrainConfig, also those that the command line does not have.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A question, a prediction, and the arms; the first arm is what the others are compared with.

    `characters`: how much of the text to train on; 0: all of it. `bits`: the arms have different tokens, so losses are
    in bits per byte.
    """

    question: str
    prediction: str
    arms: tuple[Arm, ...]
    base: TrainConfig = TRAIN
    rates: tuple[float, ...] = RATES
    characters: int = 0
    bits: bool = False

    @property
    def unit(self) -> str:
        """The unit of the losses."""
        return "bits per byte" if self.bits else "nats per character"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The values of --tokens that an arm has."""
        return tuple(dict.fromkeys(arm.train.get("tokens", self.base.tokens) for arm in self.arms))

    def rates_of(self, arm: Arm) -> tuple[float, ...]:
        """Return the learning rates to train an arm with: those of the experiment, unless the arm has its own."""
        return (arm.train["lr"],) if "lr" in arm.train else self.rates

    def config(self, arm: Arm, rate: float, seed: int, steps: int = 0) -> TrainConfig:
        """Return the options of one training run. The learning rate falls to a tenth, unless the arm says otherwise."""
        model = replace(self.base.model, **arm.model)
        found = replace(self.base, model=model, lr=rate, min_lr=rate / 10, muon_lr=MUON * rate, seed=seed)
        changes: dict[str, Any] = {name: rate if value == "lr" else value for name, value in arm.train.items()}
        found = replace(found, **changes)
        return replace(found, steps=steps, warmup=min(found.warmup, steps // 10)) if steps else found


def _sizes(**sizes: Any) -> TrainConfig:
    return replace(TRAIN, model=replace(MODEL, **sizes))


EXPERIMENTS: dict[str, Experiment] = {
    "scale": Experiment(
        "Does attention need the division by the square root of the head size, with heads of 16 channels?",
        "Hardly: the scores of small heads with small initial weights are small anyway.",
        (Arm("with the scale"), Arm("without", {"scale": False})),
    ),
    "scale-large": Experiment(
        "Does it need the division with one head of 128 channels?",
        "Yes, more than small heads do.",
        (Arm("with the scale"), Arm("without", {"scale": False})),
        _sizes(dim=128, heads=1, layers=2),
    ),
    "residual": Experiment(
        "What do four layers learn without residuals?",
        "Little: the rows of different positions become the same.",
        (Arm("with residuals"), Arm("without", {"residual": False})),
    ),
    "norm": Experiment(
        "Pre-norm or post-norm, with 4 layers?",
        "No large difference.",
        (Arm("pre-norm"), Arm("post-norm", {"norm": "post"})),
    ),
    "norm-deep": Experiment(
        "Pre-norm or post-norm, with 12 layers?",
        "Pre-norm is better, most of all at the high learning rate.",
        (Arm("pre-norm"), Arm("post-norm", {"norm": "post"})),
        replace(_sizes(layers=12, dim=48), steps=300, warmup=30),
    ),
    "activation": Experiment(
        "GELU or ReLU?",
        "A difference of a few hundredths of a nat at most.",
        (Arm("GELU"), Arm("ReLU", {"activation": "relu"})),
    ),
    "heads": Experiment(
        "How many heads should 64 channels have?",
        "2 or 4; one head looks at too little, and 8 channels are too few to tell positions apart.",
        tuple(Arm(f"{n} head{'s' if n > 1 else ''}", {"heads": n}) for n in (1, 2, 4, 8)),
    ),
    "warmup": Experiment(
        "What does a small pre-norm model lose without a warm-up?",
        "Something at the high learning rate, little at the low one.",
        (Arm("40 steps of warm-up"), Arm("none", train={"warmup": 0})),
    ),
    "decay": Experiment(
        "Should the learning rate fall at the end?",
        "Yes.",
        (Arm("cosine decay"), Arm("constant", train={"min_lr": "lr"})),
    ),
    "bias-correction": Experiment(
        "What does AdamW lose without bias correction, if there is no warm-up either?",
        "Little at low learning rates; at the high one, the first updates are too large.",
        (
            Arm("with correction", train={"warmup": 0}),
            Arm("without", train={"warmup": 0, "bias_correction": False}),
        ),
    ),
    "weight-decay": Experiment(
        "Does weight decay matter in a short run?",
        "No.",
        (Arm("weight decay 0.1"), Arm("none", train={"weight_decay": 0.0})),
    ),
    "optimizer": Experiment(
        "AdamW, or Muon for the matrices of the layers?",
        "Muon: it learns in 400 steps what AdamW takes far longer for.",
        (Arm("AdamW"), Arm("Muon", train={"optimizer": "muon"})),
    ),
    "rate": Experiment(
        "Which learning rate does AdamW want for a model of this size?",
        "About 4e-3, more than the 1e-3 that large models begin with.",
        tuple(Arm(f"{rate:g}", train={"lr": rate}) for rate in (1e-3, 4e-3, 1.6e-2, 6.4e-2)),
    ),
    "positions": Experiment(
        "A learned vector for each position, or a rotation of queries and keys?",
        "Rotary positions are better: how far apart two characters are need not be learned place by place.",
        (Arm("learned"), Arm("rotary", {"positions": "rotary"})),
    ),
    "window": Experiment(
        "What does a model of 256 characters lose if attention sees only 32 of them?",
        "Nothing that 400 steps could show, even with the window in all layers.",
        (
            Arm("no window"),
            Arm("in every second layer", {"window": 32}),
            Arm("in all layers", {"window": 32, "window_layers": "all"}),
        ),
        replace(_sizes(ctx=256), batch=2),
    ),
    "bf16": Experiment(
        "What does it cost to round the operands of all products to bfloat16?",
        "Nothing that three seeds could show.",
        (Arm("float32"), Arm("bfloat16", {"precision": "bf16"})),
    ),
    "tie": Experiment(
        "Should the output projection share the weights of the embedding?",
        "With characters, no large difference: both tables are small.",
        (Arm("shared"), Arm("two tables", {"tie": False})),
    ),
    "context": Experiment(
        "How far should the model see, at equal tokens per step?",
        "64 is better than 16; 256 has no time to pay off.",
        (
            Arm("context 64"),
            Arm("context 16", {"ctx": 16}, {"batch": 32}),
            Arm("context 256", {"ctx": 256}, {"batch": 2}),
        ),
    ),
    "dropout": Experiment(
        "Does dropout help on a text of 10,000 characters?",
        "Yes: without it, the model learns the text by heart.",
        (Arm("no dropout"), Arm("dropout 0.2", {"dropout": 0.2})),
        replace(TRAIN, steps=600),
        characters=10_000,
    ),
    "tokens": Experiment(
        "Characters, bytes or byte pairs, with as many tokens in a step and as many steps?",
        "Byte pairs: a step reads two or three times as much text, and a context reaches as much further.",
        (
            Arm("characters"),
            Arm("bytes", train={"tokens": "bytes"}),
            Arm("512 byte pairs", train={"tokens": "bpe:512"}),
            Arm("2048 byte pairs", train={"tokens": "bpe:2048"}),
        ),
        bits=True,
    ),
    "shape": Experiment(
        "Deep and narrow, or shallow and wide, at about 400,000 parameters?",
        "No large difference.",
        (Arm("2 layers of 128"), Arm("8 layers of 64", {"layers": 8, "dim": 64})),
        _sizes(layers=2, dim=128),
    ),
}  # fmt: skip
