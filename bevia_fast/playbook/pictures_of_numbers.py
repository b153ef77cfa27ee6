"""Pictures of training and of arithmetic: AdamW, the schedule, dropout, sampling, rooflines, orders, tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..agreement.tolerances import tolerance
from ..canvas import BLUE, VERMILLION
from ..config import ModelConfig, TrainConfig, preset
from ..kernels import get_backend
from ..kernels.contract import OPERATIONS
from ..kernels.numpy_ref.dropout import dropout_mask
from ..model.optimizer import FOREVER
from ..training.schedule import learning_rate
from .measured import all_differences
from .picture import Data, Picture


def bias_correction() -> Data:
    """The size of each update, in learning rates, for a gradient that is always 1."""
    found: dict[str, Any] = {"step": list(range(1, 101))}
    for name, corrected in (("with", True), ("without", False)):
        backend = get_backend("numpy")
        w, g, m, v = np.zeros((4, 1))
        sizes = []
        for step in found["step"]:
            before, g[0] = w[0], 1.0
            backend.adamw(w, g, m, v, step=step if corrected else FOREVER, decayed=0, learning_rate=1.0, beta1=0.9,
                          beta2=0.99, eps=1e-8, weight_decay=0.0)  # fmt: skip
            sizes.append(float(before - w[0]))
        found[name] = sizes
    return found


def draw_bias_correction(axes: Any, data: Data) -> None:
    axes.plot(data["step"], data["with"], color=BLUE, label="with bias correction")
    axes.plot(data["step"], data["without"], color=VERMILLION, label="without")
    axes.set(xlabel="step", ylabel="update / learning rate", ylim=(0, None))
    axes.legend()


def schedule() -> Data:
    """The learning rate of every tenth step of a run by the textbook."""
    usual = preset("laptop", recipe="textbook")
    steps = list(range(1, usual.steps + 1, 9))
    rates = [
        learning_rate(step, steps=usual.steps, lr=usual.lr, min_lr=usual.min_lr, warmup=usual.warmup) for step in steps
    ]
    return {"step": steps, "rate": rates}


def draw_schedule(axes: Any, data: Data) -> None:
    axes.plot(data["step"], data["rate"], color=BLUE)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))


def dropout() -> Data:
    """A mask, as 0 and 1."""
    return {"mask": dropout_mask(3, 24, 48, 0.2).astype(int)}


def draw_dropout(axes: Any, data: Data) -> None:
    axes.imshow(data["mask"], cmap="gray", vmin=0, vmax=1)
    share = 1 - np.mean(data["mask"])
    axes.set(xlabel="channel", ylabel="row", title=f"{share:.1%} dropped")


def temperature() -> Data:
    """The probabilities of eight characters at three temperatures, counted over evenly spread random numbers."""
    logits = np.array([2.5, 2.0, 1.2, 1.0, 0.4, 0.0, -0.8, -1.5])
    draws, found = 4000, {"characters": list("etaonisr")}
    for heat in (0.5, 1.0, 2.0):
        drawn = [
            get_backend("numpy").sample_token(logits, temperature=heat, top_k=0, top_p=1.0, noise=(i + 0.5) / draws)
            for i in range(draws)
        ]
        found[f"at {heat}"] = (np.bincount(drawn, minlength=8) / draws).tolist()
    return found


def draw_temperature(axes: Any, data: Data) -> None:
    for offset, (heat, color) in zip((-0.27, 0.0, 0.27), ((0.5, BLUE), (1.0, "0.5"), (2.0, VERMILLION)), strict=True):
        axes.bar(np.arange(8) + offset, data[f"at {heat}"], 0.25, color=color, label=f"temperature {heat}")
    axes.set_xticks(range(8), data["characters"])
    axes.set(ylabel="probability")
    axes.legend()


def intensity() -> Data:
    """Operations per byte of the operations of a training step of the usual model, in float32."""
    model, batch = ModelConfig(), TrainConfig().batch
    B, T, C, NH = batch, model.ctx, model.dim, model.heads
    letters = {"B": B, "T": T, "C": C, "NH": NH, "HS": C // NH, "N": B * T, "V": 96, "OC": 4 * C, "P": 800_000}
    found: dict[str, Any] = {"operation": [], "intensity": []}
    for name, operation in OPERATIONS.items():
        if name not in ("decode_tokens", "sample_token", "attention_weights", "muon") and not name.startswith(
            ("rotary", "gelu_erf")
        ):
            given = [spec.name for spec in operation.arrays if spec.optional and not spec.name.endswith("residual")]
            cost = operation.cost_of(letters, given, "float32", {"decayed": 800_000})
            found["operation"].append(name)
            found["intensity"].append(cost.intensity)
    return found


def draw_intensity(axes: Any, data: Data) -> None:
    order = np.argsort(data["intensity"])
    names = [data["operation"][i].replace("_", " ") for i in order]
    values = [data["intensity"][i] for i in order]
    axes.barh(names, values, color=[BLUE if name.startswith(("linear", "attention")) else VERMILLION for name in names])
    axes.set(xscale="log", xlabel="operations per byte")


def orders() -> Data:
    """The float32 sum of the same 1,000 numbers, one after the other, in 300 orders: distance from the right sum."""
    generator = np.random.default_rng(7)
    numbers = generator.normal(size=1000).astype(np.float32)
    right = float(numbers.astype(np.float64).sum())
    sums = [float(np.cumsum(generator.permutation(numbers), dtype=np.float32)[-1]) - right for _ in range(300)]
    return {"error": sums, "distinct": len(set(sums))}


def draw_orders(axes: Any, data: Data) -> None:
    axes.hist(np.array(data["error"]) * 1e6, bins=40, color=BLUE)
    axes.set(xlabel="sum minus the right sum (millionths)", ylabel="orders", title=f"{data['distinct']} different sums")


def tolerances() -> Data:
    """The tolerance of a product with K terms in both precisions, and the error of one lost small term."""
    lengths = [4**power for power in range(11)]
    found: dict[str, Any] = {"terms": lengths, "lost": [1 / (4 * K**0.5) for K in lengths]}
    for dtype in ("float32", "float64"):
        found[dtype] = [tolerance("linear_forward", "out", dtype, {"C": K}) for K in lengths]
    return found


def draw_tolerances(axes: Any, data: Data) -> None:
    axes.plot(data["terms"], data["lost"], marker="o", color=VERMILLION, label="one lost term")
    axes.plot(data["terms"], data["float32"], marker="o", color=BLUE, label="tolerance, float32")
    axes.plot(data["terms"], data["float64"], marker="o", color=BLUE, linestyle="--", label="tolerance, float64")
    axes.set(xscale="log", yscale="log", xlabel="terms of the sum", ylabel="relative error")
    axes.legend()


def draw_lab(axes: Any, data: Data) -> None:
    places = np.arange(len(data["arm"]))[::-1]
    sure = [abs(mean) > margin for mean, margin in zip(data["difference"], data["margin"], strict=True)]
    for place, mean, margin, differs in zip(places, data["difference"], data["margin"], sure, strict=True):
        axes.errorbar(mean, place, xerr=margin, fmt="o", capsize=3, color=VERMILLION if differs else "0.55")
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(places, data["arm"])
    axes.set(xlabel="difference of the loss (nats per character)")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.grid(axis="x", alpha=0.25)


PICTURES = {
    "bias-correction": Picture(bias_correction, draw_bias_correction),
    "schedule": Picture(schedule, draw_schedule),
    "dropout": Picture(dropout, draw_dropout, height=3.4),
    "temperature": Picture(temperature, draw_temperature),
    "intensity": Picture(intensity, draw_intensity, height=4.2),
    "orders": Picture(orders, draw_orders),
    "lab": Picture(all_differences, draw_lab, height=6.0),
    "tolerances": Picture(tolerances, draw_tolerances),
}
