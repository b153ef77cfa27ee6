"""The same model and training step in PyTorch, with its fused attention and AdamW: eager, compiled, or in bfloat16.

This runs in an interpreter that has PyTorch and NumPy. Of this package it uses only this file, `torch_training`,
`stopwatch`, `shared_step` and `worker`.
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


def torch_model(size: dict[str, Any], precision: str) -> Any:
    """Return the model in PyTorch, with random weights. With `precision` bf16, the loss is computed in float32."""
    from torch import nn
    from torch.nn import functional

    C, V, heads, bias = size["dim"], size["vocab"], size["heads"], size.get("bias", True)
    activate = {
        "gelu": lambda x: functional.gelu(x, approximate="tanh"), "gelu_erf": functional.gelu, "relu": functional.relu,
    }[size.get("activation", "gelu")]

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C, bias=bias), nn.LayerNorm(C, bias=bias)
            self.attn, self.mlp = nn.Module(), nn.Module()
            self.attn.c_attn, self.attn.c_proj = nn.Linear(C, 3 * C, bias=bias), nn.Linear(C, C, bias=bias)
            self.mlp.c_fc, self.mlp.c_proj = nn.Linear(C, 4 * C, bias=bias), nn.Linear(4 * C, C, bias=bias)

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape
            parts = self.attn.c_attn(self.ln_1(x)).split(C, 2)
            q, k, v = (part.view(B, T, heads, -1).transpose(1, 2) for part in parts)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.attn.c_proj(y.transpose(1, 2).reshape(B, T, C))
            return x + self.mlp.c_proj(activate(self.mlp.c_fc(self.ln_2(x))))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(size["ctx"], C)
            self.h = nn.Sequential(*(Block() for _ in range(size["layers"])))
            self.ln_f = nn.LayerNorm(C, bias=bias)

        def forward(self, tokens: Any, targets: Any) -> Any:
            x = self.h(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]])
            logits = functional.linear(self.ln_f(x), self.wte.weight).view(-1, V)
            # 8 bits are too few for a loss; float64 must not be rounded
            return functional.cross_entropy(logits.float() if precision == "bf16" else logits, targets.view(-1))

    return Model().to(getattr(torch, size["dtype"]))


def _transposed(name: str) -> bool:
    return ".c_" in name and name.endswith(".weight")  # PyTorch stores linear weights as output x input


def load_weights(model: Any, weights: Any) -> None:
    """Set the weights, whose names and layouts are those of `parameters`."""
    import numpy as np

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            array = weights[name].T if _transposed(name) else weights[name]
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def arrays_of(model: Any, gradients: bool = False) -> dict[str, Any]:
    """Return copies of the weights, or of their gradients, with the names and layouts of `parameters`."""
    import numpy as np

    found = {}
    for name, parameter in model.named_parameters():
        array = (parameter.grad if gradients else parameter.detach()).numpy().copy()
        found[name] = np.ascontiguousarray(array.T) if _transposed(name) else array
    return found


def loss_of(function: Any, precision: str, inputs: Any, wanted: Any) -> Any:
    """Return the loss of a batch of tokens, as a tensor."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return function(inputs, wanted)


def torch_step(size: dict[str, Any], weights: dict[str, Any], threads: int, precision: str) -> Step:
    """Return a training step in PyTorch with these weights, whose names and layouts are those of `parameters`.

    `precision`: eager, compile or bf16.
    """
    import numpy as np

    torch.set_num_threads(threads)
    model = torch_model(size, precision)
    load_weights(model, weights)
    forward = torch.compile(model) if precision == "compile" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )

    def as_tensors(batch: Any) -> Any:
        return (torch.from_numpy(part.astype(np.int64)) for part in batch)

    timed = size["batch"], size["ctx"]
    tokens, targets = as_tensors(random_batch(0, timed, size["vocab"]))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(forward, precision, tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    def check(shape: tuple[int, int]) -> dict[str, Any]:
        # another shape runs uncompiled: compiling it would take as long as the first step
        function = forward if shape == timed else model
        load_weights(model, weights)
        optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(function, precision, *as_tensors(random_batch(1, shape, size["vocab"])))
        loss.backward()
        return arrays_of(model, gradients=True) | {"loss": np.array(loss.item())}

    return Step(run, check, weights)
