"""The same training step in PyTorch: its fused attention, its fused AdamW; eager, compiled, or in bfloat16.

Runs in an interpreter that has PyTorch and NumPy and, of this package, only this file, `stopwatch`, `shared_step` and
`worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .shared_step import LEARNING_RATE, Step, random_batch

if TYPE_CHECKING:
    import torch
else:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"PyTorch is not installed in this interpreter ({error})") from None


def torch_step(size: dict[str, Any], weights: dict[str, Any], threads: int, precision: str) -> Step:
    """A step of PyTorch from these weights (names and layouts of `parameters`). `precision`: eager, compile or bf16."""
    import numpy as np
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    C, V, heads = size["dim"], size["vocab"], size["heads"]

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.attn, self.mlp = nn.Module(), nn.Module()
            self.attn.c_attn, self.attn.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.mlp.c_fc, self.mlp.c_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape
            parts = self.attn.c_attn(self.ln_1(x)).split(C, 2)
            q, k, v = (part.view(B, T, heads, -1).transpose(1, 2) for part in parts)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.attn.c_proj(y.transpose(1, 2).reshape(B, T, C))
            return x + self.mlp.c_proj(functional.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh"))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(size["ctx"], C)
            self.h = nn.Sequential(*(Block() for _ in range(size["layers"])))
            self.ln_f = nn.LayerNorm(C)

        def forward(self, tokens: Any, targets: Any) -> Any:
            x = self.h(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]])
            logits = functional.linear(self.ln_f(x), self.wte.weight).view(-1, V)
            # a loss of 8 bits would be no loss; float64 must not be rounded
            return functional.cross_entropy(logits.float() if precision == "bf16" else logits, targets.view(-1))

    model: Any = Model().to(getattr(torch, size["dtype"]))

    def transposed(name: str) -> bool:
        return ".c_" in name and name.endswith(".weight")  # PyTorch keeps linear weights output x input

    def reset() -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                array = torch.from_numpy(np.ascontiguousarray(weights[name].T if transposed(name) else weights[name]))
                parameter.copy_(array)

    reset()
    forward = torch.compile(model) if precision == "compile" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )

    def as_tensors(batch: Any) -> Any:
        return (torch.from_numpy(part.astype(np.int64)) for part in batch)

    timed = size["batch"], size["ctx"]
    tokens, targets = as_tensors(random_batch(0, timed, V))

    def loss_of(function: Any, inputs: Any, wanted: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return function(inputs, wanted)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(forward, tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    def check(shape: tuple[int, int]) -> dict[str, Any]:
        # uncompiled where the shape is another one: compiling it would take as long as the first step
        function = forward if shape == timed else model
        reset()
        optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(function, *as_tensors(random_batch(1, shape, V)))
        loss.backward()
        found = {}
        for name, parameter in model.named_parameters():
            gradient = parameter.grad.numpy().copy()
            found[name] = np.ascontiguousarray(gradient.T) if transposed(name) else gradient
        return found | {"loss": np.array(loss.item())}

    return Step(run, check, weights)
