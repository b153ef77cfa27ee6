"""What PyTorch computes, from which `golden.npz` is made. Only making the file anew needs PyTorch:

    pip install torch && python tests/kernels/golden/make_golden.py

Inputs are float32 numbers; everything is computed from them in float64, so that one set of results serves both dtypes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from golden_inputs import (
    ADAMW,
    DIM,
    EPS,
    HEADS,
    IN_WINDOWS,
    LAYERS,
    MAX_NORM,
    MODEL_HEADS,
    MODELS,
    MUON,
    VOCAB,
    WEIGHT_DECAY,
    WINDOW,
    Array,
    make_inputs,
    make_model_inputs,
)

Tensors = dict[str, torch.Tensor]

def results(inputs: dict[str, Array]) -> dict[str, Array]:
    """The results of the single operations, by the names `operation.array`, in float64."""
    found: Tensors = {}

    def leaves(operation: str) -> Tensors:
        """The inputs of one operation, floating ones as float64 that gradients are wanted for."""
        tensors = {}
        for name, array in inputs.items():
            if name.startswith(operation + "."):
                tensor = torch.from_numpy(array.copy())
                tensor = tensor.double().requires_grad_() if tensor.is_floating_point() else tensor.long()
                tensors[name.partition(".")[2]] = tensor
        return tensors

    x = leaves("layer_norm")
    out = F.layer_norm(x["inp"], x["inp"].shape[-1:], x["weight"], x["bias"], EPS)
    out.backward(x["dout"].detach())
    found |= {"layer_norm.out": out, "layer_norm.dinp": x["inp"].grad}
    found |= {"layer_norm.dweight": x["weight"].grad, "layer_norm.dbias": x["bias"].grad}

    x = leaves("linear_gelu")
    preactivation = x["inp"] @ x["weight"] + x["bias"]
    preactivation.retain_grad()
    out = F.gelu(preactivation, approximate="tanh")
    out.backward(x["dout"].detach())
    found |= {"linear_gelu.out": out, "linear_gelu.preactivation": preactivation}
    found |= {"linear_gelu.dpreactivation": preactivation.grad, "linear_gelu.dinp": x["inp"].grad}
    found |= {"linear_gelu.dweight": x["weight"].grad, "linear_gelu.dbias": x["bias"].grad}

    x = leaves("attention")
    B, T, _ = x["dout"].shape
    q, k, v = x["qkv"].view(B, T, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, -1)
    out.backward(x["dout"].detach())
    found |= {"attention.out": out, "attention.dqkv": x["qkv"].grad}

    qkv, dout = (torch.from_numpy(inputs[f"attention.{name}"][:1, :IN_WINDOWS]).double() for name in ("qkv", "dout"))
    q, k, v = qkv.requires_grad_().view(1, IN_WINDOWS, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    distance = torch.arange(IN_WINDOWS)[:, None] - torch.arange(IN_WINDOWS)
    seen = (distance >= 0) & (distance < WINDOW)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(dout.shape)
    out.backward(dout)
    found |= {"attention_window.out": out, "attention_window.dqkv": qkv.grad}

    x = leaves("cross_entropy")
    losses = F.cross_entropy(x["logits"], x["targets"], reduction="none")
    losses.mean().backward()
    found |= {"cross_entropy.losses": losses, "cross_entropy.dlogits": x["logits"].grad}

    x = leaves("embedding")
    out = F.embedding(x["tokens"], x["token_table"]) + x["position_table"]
    out.backward(x["dout"].detach())
    found |= {"embedding.out": out, "embedding.dtoken_table": x["token_table"].grad}
    found |= {"embedding.dposition_table": x["position_table"].grad}

    x = leaves("adamw")
    decayed, other = (part.detach().clone().requires_grad_() for part in x["parameters"].tensor_split(2))
    optimizer = adamw_optimizer([decayed], [other])
    norms = []
    for gradient in x["gradients"].detach():
        decayed.grad, other.grad = (part.clone() for part in gradient.tensor_split(2))
        norms.append(torch.nn.utils.clip_grad_norm_([decayed, other], MAX_NORM))
        optimizer.step()
    found |= {"adamw.updated": torch.cat([decayed, other]), "adamw.norms": torch.stack(norms)}

    for name in ("muon_wide", "muon_tall"):
        x = leaves(name)
        found[f"{name}.updated"] = muon(x["parameters"].detach(), x["gradients"].detach())

    x = leaves("rotary")
    B, T, _ = x["dout"].shape
    q, k, v = x["qkv"].view(B, T, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    q, k = rotated(q), rotated(k)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, -1)
    out.backward(x["dout"].detach())
    found |= {"rotary.out": out, "rotary.dqkv": x["qkv"].grad}

    return {name: tensor.detach().numpy() for name, tensor in found.items()}


def rotated(heads: torch.Tensor) -> torch.Tensor:
    """Queries or keys (B,NH,T,HS) with rotary positions as GPT-NeoX has them: each half of the channels is multiplied
    with the cosines, and the other half, the second one negated, with the sines."""
    T, HS = heads.shape[2:]
    frequencies = 1.0 / 10_000 ** (torch.arange(0, HS, 2).double() / HS)
    angles = torch.outer(torch.arange(T).double(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    first, second = heads.chunk(2, dim=-1)
    return heads * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


def muon(weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """The weights after a step of Muon for each gradient, by singular value decomposition: the iteration, five times
    the same polynomial, changes singular values only."""
    momentum = torch.zeros_like(weights)
    for gradient in gradients:
        momentum = momentum.lerp(gradient, 1 - MUON["momentum"])
        left, values, right = torch.linalg.svd(gradient.lerp(momentum, MUON["momentum"]), full_matrices=False)
        values = values / values.square().sum().sqrt()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        inputs, outputs = weights.shape
        update = max(1, outputs / inputs) ** 0.5 * (left * values) @ right
        weights = weights - MUON["lr"] * (update + WEIGHT_DECAY * weights)
    return weights


def adamw_optimizer(decayed: list[torch.Tensor], other: list[torch.Tensor]) -> torch.optim.AdamW:
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": other, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **ADAMW)


def model_loss(w: Tensors, tokens: torch.Tensor, norm: str, activation: str) -> torch.Tensor:
    """A GPT in plain functions of PyTorch; `tokens` (B, T+1) are the inputs and, moved by one, the targets."""
    B, T = tokens.shape[0], tokens.shape[1] - 1

    def layer_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, w[f"{name}.weight"].T, w[f"{name}.bias"])

    def attention(x: torch.Tensor, name: str) -> torch.Tensor:
        q, k, v = linear(x, f"{name}.c_attn").view(B, T, 3, MODEL_HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(attended.transpose(1, 2).reshape(B, T, DIM), f"{name}.c_proj")

    def mlp(x: torch.Tensor, name: str) -> torch.Tensor:
        expanded = linear(x, f"{name}.c_fc")
        activated = F.gelu(expanded, approximate="tanh") if activation == "gelu" else F.relu(expanded)
        return linear(activated, f"{name}.c_proj")

    x = w["wte.weight"][tokens[:, :-1]] + w["wpe.weight"]
    for layer in range(LAYERS):
        name = f"h.{layer}"
        if norm == "pre":
            x = x + attention(layer_norm(x, f"{name}.ln_1"), f"{name}.attn")
            x = x + mlp(layer_norm(x, f"{name}.ln_2"), f"{name}.mlp")
        else:
            x = layer_norm(x + attention(x, f"{name}.attn"), f"{name}.ln_1")
            x = layer_norm(x + mlp(x, f"{name}.mlp"), f"{name}.ln_2")
    logits = layer_norm(x, "ln_f") @ w["lm_head.weight"].T
    return F.cross_entropy(logits.reshape(B * T, VOCAB), tokens[:, 1:].reshape(-1))


def model_results(inputs: dict[str, Array]) -> dict[str, Array]:
    """For each of MODELS the losses of the batches, training on one after the other, and the gradients' norms."""
    tokens = torch.from_numpy(inputs["model.tokens"]).long()
    found = {}
    for variant, (norm, activation, tied) in MODELS.items():
        w = {
            name.partition(".")[2]: torch.from_numpy(array).double().requires_grad_()
            for name, array in inputs.items()
            if name != "model.tokens"
        }
        if tied:
            w["lm_head.weight"] = w["wte.weight"]
        weights = list({id(tensor): tensor for tensor in w.values()}.values())
        optimizer = adamw_optimizer([x for x in weights if x.ndim == 2], [x for x in weights if x.ndim == 1])
        losses, norms = [], []
        for batch in tokens:
            optimizer.zero_grad()
            loss = model_loss(w, batch, norm, activation)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(weights, MAX_NORM).item())
            optimizer.step()
            losses.append(loss.item())
        found[f"model.losses.{variant}"], found[f"model.norms.{variant}"] = np.array(losses), np.array(norms)
    return found


if __name__ == "__main__":
    inputs, model_inputs = make_inputs(1), make_model_inputs(2)
    golden = inputs | results(inputs) | model_inputs | model_results(model_inputs)
    path = Path(__file__).with_name("golden.npz")
    np.savez_compressed(path, **golden)
    print(f"{path}: {len(golden)} arrays, {path.stat().st_size / 1e3:.0f} kB, PyTorch {torch.__version__}")
    for variant in MODELS:
        print(variant, golden[f"model.losses.{variant}"], golden[f"model.norms.{variant}"])
