"""One training step, timed: the backends beside each other, and PyTorch where it is installed.

    python bench/steps.py seed laptop
    python bench/steps.py laptop --torch-python ~/torch-venv/bin/python

A step is forward, backward, gradient norm and AdamW on a batch of random tokens. The competitors take turns, a process
each, so that a machine whose speed drifts is as kind to one as to the other; the figures are medians over all turns.
Compilation and the first steps are not counted. `of the peak`: the arithmetic of the step (below) over its time, held
against the largest rate at which this machine's vector units multiply and add, measured in the same run.

Arithmetic of a step: 6 x weights x tokens for the linear layers, and 7 products of B x NH x T x T/2 x HS for causal
attention (2 forward, 5 backward). Nothing is added for what is computed twice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A model and a batch, as the peers of this project are timed on."""

    ctx: int
    dim: int
    layers: int
    heads: int
    batch: int
    vocab: int

    @property
    def flops(self) -> float:
        """Floating-point operations of a training step."""
        weights = 12 * self.dim**2 * self.layers + self.vocab * self.dim
        tokens = self.batch * self.ctx
        return 6.0 * weights * tokens + 7.0 * self.layers * tokens * self.ctx * self.dim


SIZES = {
    "seed": Size(64, 64, 1, 1, 8, 65),
    "laptop": Size(64, 128, 4, 4, 12, 65),
    "baby": Size(256, 384, 6, 6, 16, 65),
    "long2k": Size(2048, 256, 4, 4, 2, 65),
    "long8k": Size(8192, 256, 4, 4, 1, 65),
    "gpt2": Size(64, 768, 12, 12, 4, 50257),
}


def timed(step, seconds: float) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Median and fastest time of `step()` in ms, after the first call and two more."""
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    for _ in range(2):
        step()
    times, started = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        step()
        times.append((time.perf_counter() - before) * 1e3)
    return {"ms": statistics.median(times), "fastest_ms": min(times), "first_s": first}


def bevia_step(size: Size, backend_name: str, threads: int):  # type: ignore[no-untyped-def]
    """A function that does one step on one of our backends."""
    import numpy as np

    from bevia_fast import GPT, ModelConfig
    from bevia_fast.kernels import get_backend
    from bevia_fast.parameters import Parameters

    config = ModelConfig(ctx=size.ctx, dim=size.dim, layers=size.layers, heads=size.heads, vocab_size=size.vocab)
    backend = get_backend(backend_name)
    if backend_name == "numba":
        from bevia_fast.kernels.numba_jit._threads import set_threads

        set_threads(threads)
    weights, gradients, first, second = Parameters.initial(config, 0), *(Parameters(config) for _ in range(3))
    model = GPT(config, backend, weights)
    tokens, targets = np.random.default_rng(0).integers(0, size.vocab, (2, size.batch, size.ctx), dtype=np.int32)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        model.loss_and_gradients(tokens, targets, gradients)
        norm = backend.squared_norm(gradients.flat) ** 0.5
        backend.adamw(
            weights.flat, gradients.flat, first.flat, second.flat, step=count, decayed=weights.decayed,
            learning_rate=1e-3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, gradient_scale=min(1.0, 1.0 / norm),
        )  # fmt: skip

    return step


def torch_step(size: Size, threads: int, precision: str):  # type: ignore[no-untyped-def]
    """The same step by PyTorch (eager), with its fused attention and fused AdamW."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    C, V = size.dim, size.vocab

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.qkv, self.projection = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.expand, self.contract = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

        def forward(self, x):  # type: ignore[no-untyped-def]
            B, T, _ = x.shape
            q, k, v = (
                part.view(B, T, size.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(C, 2)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.projection(y.transpose(1, 2).reshape(B, T, C))
            return x + self.contract(functional.gelu(self.expand(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(V, C), nn.Embedding(size.ctx, C)
            self.blocks = nn.Sequential(*(Block() for _ in range(size.layers)))
            self.norm = nn.LayerNorm(C)

        def forward(self, tokens, targets):  # type: ignore[no-untyped-def]
            x = self.blocks(self.tokens(tokens) + self.positions.weight)
            logits = functional.linear(self.norm(x), self.tokens.weight)
            return functional.cross_entropy(logits.view(-1, V), targets.view(-1))

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens, targets = torch.randint(V, (2, size.batch, size.ctx))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def measure_peak(threads: int) -> float:
    """GFLOP/s of chains of fused multiply-adds that never leave the registers."""
    from bevia_fast.kernels.numba_jit._simd.probe import peak_flops

    return peak_flops(threads) / 1e9


def run_one(size_name: str, competitor: str, threads: int, seconds: float) -> dict[str, float]:
    """What a child process does."""
    if competitor == "peak":
        return {"gflops": measure_peak(threads)}
    size = SIZES[size_name]
    if competitor.startswith("torch"):
        return timed(torch_step(size, threads, competitor.removeprefix("torch-")), seconds)
    return timed(bevia_step(size, competitor, threads), seconds)


def main() -> None:
    """Let the competitors take turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--torch-python", default=None, help="a Python that has PyTorch")
    parser.add_argument("--only", nargs="+", default=["numba", "numpy", "torch-fp32", "torch-bf16"])
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one[0], arguments.one[1], arguments.threads, arguments.seconds)))
        return

    def turn(size_name: str, competitor: str) -> dict[str, float]:
        python = arguments.torch_python if competitor.startswith("torch") else sys.executable
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        command = [python, __file__, size_name, "--one", size_name, competitor]
        command += ["--threads", str(arguments.threads), "--seconds", str(arguments.seconds)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return result

    competitors = [c for c in arguments.only if arguments.torch_python or not c.startswith("torch")]
    print(f"{platform.machine()}, {arguments.threads} threads, Python {platform.python_version()}")
    for name in arguments.sizes:
        results: dict[str, list[dict[str, float]]] = {c: [] for c in ["peak", *competitors]}
        for _ in range(arguments.turns):
            for competitor, turns in results.items():
                turns.append(turn(name, competitor))
        peak = statistics.median(r["gflops"] for r in results.pop("peak"))
        ours = statistics.median(r["ms"] for r in results.get("numba", next(iter(results.values()))))
        for competitor, turns in results.items():
            ms = statistics.median(r["ms"] for r in turns)
            gflops = SIZES[name].flops / ms / 1e6
            print(f"{name:8s} {competitor:11s} {ms:9.2f} ms/step  {gflops:6.1f} GFLOP/s  {gflops / peak:6.1%} of the "
                  f"peak ({peak:.0f})  {ms / ours:5.2f} x numba's time", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
