"""The real transformers opens what this program writes, and computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bringing_in import brought_in, same
from foreign import needed
from helpers import random_parameters
from writing_foreign import sizes

from bevia_fast.backends import open_backend
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors.exporting import export_hub, with_biases
from bevia_fast.doors.hub import write_hub_files
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.model.rotary import tables
from bevia_fast.runs.modelfile import save_model
from bevia_fast.runs.trained import Run, generate

TEXT = "the cat\nsat\r\non a mat, é 言葉 🙂 e\u0301"
ALPHABET = "".join(sorted(set(TEXT)))
MODEL = ModelConfig(ctx=40, dim=12, layers=2, heads=3, vocab_size=len(ALPHABET), dropout=0.1)
CHANGES: list[dict[str, Any]] = [
    {}, {"tie": False}, {"bias": False}, {"activation": "relu"},
    {"tie": False, "bias": False, "activation": "relu", "heads": 1}, {"activation": "gelu_erf"},
]  # fmt: skip
ROTARY: list[dict[str, Any]] = [
    {}, {"tie": False}, {"bias": False}, {"activation": "relu", "heads": 1}, {"activation": "gelu_erf", "heads": 6},
]  # fmt: skip
WINDOWS: list[dict[str, Any]] = [
    {"window": 5}, {"window": 1, "window_layers": "odd"}, {"window": 39, "window_layers": "all", "tie": False},
    {"window": 7, "layers": 3, "activation": "gelu_erf"},
]  # fmt: skip
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of logits up to 10


@pytest.fixture(params=CHANGES, ids=lambda changes: " ".join(changes) or "usual")
def config(request: pytest.FixtureRequest, dtype: Any) -> ModelConfig:
    return replace(MODEL, dtype=dtype, **request.param)


def opened(folder: Path, dtype: str) -> Any:
    torch, transformers = needed("torch"), needed("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=getattr(torch, dtype))
    return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exported", [True, False], ids=["export", "run folder"])
def test_logits_are_equal(config: ModelConfig, exported: bool, tmp_path: Path) -> None:
    torch, parameters, tokenizer = needed("torch"), random_parameters(config), Tokenizer(ALPHABET)
    for name in parameters:
        if name.endswith("weight") and "ln" not in name:
            parameters[name][...] *= 0.3  # logits of about 1, as those of trained models
    folder = tmp_path / "model"
    if exported:
        export_hub(parameters, tokenizer, 0, folder)
    else:
        folder.mkdir()
        save_model(folder / "model.safetensors", parameters, tokenizer, 0)
        write_hub_files(folder, config, tokenizer)
    tokens = tokenizer.encode(TEXT)[None]
    wanted = GPT(config, open_backend("numpy"), parameters).logits(tokens)
    with torch.no_grad():
        found = opened(folder, config.dtype)(torch.tensor(tokens).long()).logits.numpy()
    assert found.dtype == config.dtype
    assert 0.5 < abs(wanted).max() < 10
    assert abs(found - wanted).max() <= TOLERANCE[config.dtype]


def small(parameters: Parameters) -> Parameters:
    """Matrices so small that logits are about 1, as those of trained models."""
    for view in parameters.values():
        view *= 0.3 if view.ndim == 2 else 1.0
    return parameters


def exact_angles(config: ModelConfig) -> Any:
    """In place of the rotations of transformers, whose angles are float32 in a model of float64 too."""
    torch = needed("torch")
    cosines, sines = (torch.tensor(np.tile(table, 2))[None] for table in tables(config, 0, config.ctx))

    class Exact(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any, position_ids: Any) -> Any:
            return cosines[:, position_ids[0]], sines[:, position_ids[0]]

    return Exact()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", ROTARY, ids=lambda changes: " ".join(changes) or "usual")
def test_rotary_positions_are_those_of_gpt_neox(changes: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    """In float64, as exact as of GPT-2 once its angles are; with its own, to within float32."""
    torch, tokenizer = needed("torch"), Tokenizer(ALPHABET)
    config = replace(MODEL, **{"positions": "rotary", "dtype": dtype, **changes})  # type: ignore[arg-type]
    parameters = small(random_parameters(config))
    export_hub(parameters, tokenizer, 0, tmp_path / "model")
    tokens = tokenizer.encode(TEXT)[None]
    wanted = GPT(config, open_backend("numpy"), parameters).logits(tokens)
    model = opened(tmp_path / "model", dtype)
    assert type(model).__name__ == "GPTNeoXForCausalLM"
    with torch.no_grad():
        found = model(torch.tensor(tokens).long()).logits.numpy()
        model.gpt_neox.rotary_emb = exact_angles(config)
        exact = model(torch.tensor(tokens).long()).logits.numpy()
    assert 0.5 < abs(wanted).max() < 10
    assert abs(found - wanted).max() <= TOLERANCE["float32"]
    assert abs(exact - wanted).max() <= TOLERANCE[dtype]
    same(brought_in(tmp_path / "model"), with_biases(parameters))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", WINDOWS, ids=str)
def test_windows_are_those_of_gpt_neo(changes: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    """Which computes its attention in float32 in a model of float64 too."""
    torch, tokenizer = needed("torch"), Tokenizer(ALPHABET)
    config = replace(MODEL, **{"bias": False, "dtype": dtype, **changes})  # type: ignore[arg-type]
    parameters = small(random_parameters(config))
    export_hub(parameters, tokenizer, 0, tmp_path / "model")
    tokens = tokenizer.encode(TEXT)[None]
    wanted = GPT(config, open_backend("numpy"), parameters).logits(tokens)
    model = opened(tmp_path / "model", dtype)
    assert type(model).__name__ == "GPTNeoForCausalLM"
    with torch.no_grad():
        found = model(torch.tensor(tokens).long()).logits.numpy()
    assert 0.5 < abs(wanted).max() < 10
    assert abs(found - wanted).max() <= TOLERANCE["float32"]


@pytest.mark.filterwarnings("ignore")
def test_the_tokenizer_is_that_of_the_run(tmp_path: Path) -> None:
    transformers, tokenizer = needed("transformers"), Tokenizer(ALPHABET)
    export_hub(random_parameters(MODEL), tokenizer, 0, tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in (TEXT, TEXT[::-1], "", " ", "\r\n\r\n"):
        assert theirs(text).input_ids == tokenizer.encode(text).tolist()
        assert theirs.decode(tokenizer.encode(text)) == text
    with pytest.raises(Exception, match="WordLevel error"):  # of a class of Rust
        theirs("x")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{}, {"positions": "rotary"}, {"window": 5, "bias": False}], ids=str)
def test_it_writes_the_same_text_without_chance(changes: dict[str, Any], tmp_path: Path) -> None:
    torch, transformers = needed("torch"), needed("transformers")
    config = replace(MODEL, **{"dtype": "float64", **changes})
    weights = random_parameters(config)
    export_hub(weights, Tokenizer(ALPHABET), 0, tmp_path / "model")
    run = Run(tmp_path, GPT(config, open_backend("numpy"), weights), Tokenizer(ALPHABET))
    wanted = generate(run, "the cat", length=30, temperature=0.0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = opened(tmp_path / "model", "float64")
    assert (model.generation_config.temperature, model.generation_config.top_k) == (0.8, 0)
    tokens = tokenizer("the cat", return_tensors="pt").input_ids
    found = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=30, do_sample=False)
    assert tokenizer.decode(found[0]) == wanted
    assert np.unique(run.tokenizer.encode(wanted[7:])).size > 1


# -------------------------------------------------------------------------------------------------------------- imports


def their_model(**changes: Any) -> Any:
    """A random GPT-2 of transformers, with weights so large that every path through it matters."""
    torch, transformers = needed("torch"), needed("transformers")
    torch.manual_seed(1)
    options = {"vocab_size": len(ALPHABET), "n_positions": 40, "n_embd": 12, "n_layer": 2, "n_head": 3, **changes}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(bos_token_id=None, eos_token_id=None, **options))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.3 + (1.0 if "ln" in name and "weight" in name else 0.0))
    return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changes", "kind", "most"),
    [
        ({}, "float32", "5GB"), ({}, "float32", "2KB"), ({}, "float16", "2KB"), ({}, "bfloat16", "5GB"),
        ({"tie_word_embeddings": False}, "float32", "5GB"), ({"activation_function": "relu"}, "float64", "5GB"),
        ({"activation_function": "gelu_pytorch_tanh", "n_inner": 48}, "float32", "5GB"),
    ],
)  # fmt: skip
def test_their_models_compute_the_same_here(changes: dict[str, Any], kind: str, most: str, tmp_path: Path) -> None:
    """Stored whole or in parts, in any precision; the logits are those that transformers computes in float64."""
    torch = needed("torch")
    model = their_model(**changes).to(getattr(torch, kind))
    model.save_pretrained(tmp_path / "hf", max_shard_size=most, safe_serialization=True)
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == (most == "2KB")
    (tmp_path / "text.txt").write_text(TEXT, "utf-8", newline="")
    words = ["import", str(tmp_path / "hf"), "--vocabulary", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run")]
    assert main(words) == 0
    run = Run.load(tmp_path / "run", "numpy")
    tokens = run.tokenizer.encode(TEXT)[None]
    with torch.no_grad():
        wanted = model.double()(torch.tensor(tokens).long()).logits.numpy()
    assert 0.5 < abs(wanted).max() < 20
    assert abs(run.model.logits(tokens) - wanted).max() <= TOLERANCE[run.model.config.dtype]


def their_other_model(family: str, **changes: Any) -> Any:
    """A random GPT-NeoX or GPT-Neo of transformers."""
    torch, transformers = needed("torch"), needed("transformers")
    torch.manual_seed(1)
    common = {"vocab_size": len(ALPHABET), "max_position_embeddings": 40, "hidden_size": 12, "bos_token_id": None,
              "eos_token_id": None, **changes}  # fmt: skip
    if family == "GPTNeoX":
        common = {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "rotary_pct": 1.0,
                  "use_parallel_residual": False, **common}  # fmt: skip
    else:
        common = {"num_layers": 4, "num_heads": 3, "attention_types": [[["global", "local"], 2]], **common}
    config = getattr(transformers, f"{family}Config")(**common)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.3 + (1.0 if "norm" in name or "ln" in name else 0.0))
    return model.eval()


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("GPTNeoX", {}), ("GPTNeoX", {"tie_word_embeddings": True, "hidden_act": "gelu_new"}),
    ("GPTNeoX", {"attention_bias": False}), ("GPTNeo", {"window_size": 7}), ("GPTNeo", {}),
    ("GPTNeo", {"window_size": 7, "attention_types": [[["local"], 4]], "activation_function": "gelu"}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "changes"), OTHERS)
@pytest.mark.parametrize("most", ["5GB", "2KB"])
def test_models_of_other_families_compute_the_same_here(
    family: str, changes: dict[str, Any], most: str, tmp_path: Path
) -> None:
    torch, model = needed("torch"), their_other_model(family, **changes)
    model.save_pretrained(tmp_path / "hf", max_shard_size=most, safe_serialization=True)
    (tmp_path / "text.txt").write_text(TEXT, "utf-8", newline="")
    run = brought_in(tmp_path / "hf", "--vocabulary", str(tmp_path / "text.txt"))
    tokens = run.tokenizer.encode(TEXT)[None]
    with torch.no_grad():
        wanted = model(torch.tensor(tokens).long()).logits.numpy()
    assert 0.5 < abs(wanted).max() < 20
    assert abs(run.model.logits(tokens) - wanted).max() <= TOLERANCE["float32"]
    assert any(run.model.config.windows) == ("window_size" in changes)


class NanoGPT:
    """The computation of nanoGPT's model in PyTorch, on the names of its checkpoints, with either form of GELU."""

    def __init__(self, tensors: dict[str, Any], layers: int, heads: int, approximate: str) -> None:
        self.tensors, self.layers, self.heads, self.approximate = tensors, layers, heads, approximate

    def norm(self, x: Any, name: str) -> Any:
        functional = needed("torch.nn.functional")
        weight = self.tensors[f"transformer.{name}.weight"]
        return functional.layer_norm(x, weight.shape, weight, self.tensors.get(f"transformer.{name}.bias"), 1e-5)

    def linear(self, x: Any, name: str) -> Any:
        weight, bias = self.tensors[f"transformer.{name}.weight"], self.tensors.get(f"transformer.{name}.bias")
        return needed("torch.nn.functional").linear(x, weight, bias)

    def logits(self, tokens: Any) -> Any:
        functional = needed("torch.nn.functional")
        B, T = tokens.shape
        x = self.tensors["transformer.wte.weight"][tokens] + self.tensors["transformer.wpe.weight"][:T]
        for h in (f"h.{layer}" for layer in range(self.layers)):
            qkv = self.linear(self.norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").split(x.shape[-1], dim=2)
            q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in qkv)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.linear(mixed.transpose(1, 2).reshape(B, T, -1), f"{h}.attn.c_proj")
            hidden = self.linear(self.norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
            x = x + self.linear(functional.gelu(hidden, approximate=self.approximate), f"{h}.mlp.c_proj")
        return functional.linear(self.norm(x, "ln_f"), self.tensors["lm_head.weight"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_that_torch_saved(bias: bool, tmp_path: Path) -> None:
    """As nanoGPT saves it, with the state of its optimizer. Its GELU is the exact one."""
    torch = needed("torch")
    weights = random_parameters(sizes(ALPHABET, bias=bias))
    tensors = {}
    for name, view in weights.items():
        view *= 0.5 if view.ndim == 2 else 1.0
        linear = name.startswith("h.") and view.ndim == 2
        tensors[f"transformer.{name}"] = torch.tensor(view.T if linear else view)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]  # the same tensor, as tied weights are
    parameter = torch.nn.Parameter(tensors["lm_head.weight"].clone())
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    arguments = {"n_layer": 2, "n_head": 3, "n_embd": 12, "block_size": 8, "bias": bias, "vocab_size": len(ALPHABET)}
    content = {
        "model": {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}, "optimizer": optimizer.state_dict(),
        "model_args": {**arguments, "dropout": 0.0}, "iter_num": 7, "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "x", "compile": True},
    }  # fmt: skip
    torch.save(content, tmp_path / "ckpt.pt")
    (tmp_path / "text.txt").write_text(TEXT, "utf-8", newline="")
    words = ["import", str(tmp_path / "ckpt.pt"), "--vocabulary", str(tmp_path / "text.txt")]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    run = Run.load(tmp_path / "run", "numpy")
    assert run.step == 7
    tokens = run.tokenizer.encode(TEXT[:8])[None]
    found = run.model.logits(tokens)
    error = {}
    for form in ("tanh", "none"):
        wanted = NanoGPT(tensors, 2, 3, form).logits(torch.tensor(tokens).long()).numpy()
        error[form] = abs(found - wanted).max()
    assert error["none"] <= 1e-5
    assert 1e-5 < error["tanh"] < 1e-2
