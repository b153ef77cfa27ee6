"""The real transformers opens what this program writes, and computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import needed
from helpers import random_parameters

from bevia_fast.backends import open_backend
from bevia_fast.config import ModelConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors.exporting import export_hub
from bevia_fast.doors.hub import write_hub_files
from bevia_fast.model.gpt import GPT
from bevia_fast.runs.modelfile import save_model
from bevia_fast.runs.trained import Run, generate

TEXT = "the cat\nsat\r\non a mat, é 言葉 🙂 e\u0301"
ALPHABET = "".join(sorted(set(TEXT)))
MODEL = ModelConfig(ctx=40, dim=12, layers=2, heads=3, vocab_size=len(ALPHABET), dropout=0.1)
CHANGES: list[dict[str, Any]] = [
    {}, {"tie": False}, {"bias": False}, {"activation": "relu"},
    {"tie": False, "bias": False, "activation": "relu", "heads": 1},
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
def test_it_writes_the_same_text_without_chance(tmp_path: Path) -> None:
    torch, transformers = needed("torch"), needed("transformers")
    config = replace(MODEL, dtype="float64")
    export_hub(random_parameters(config), Tokenizer(ALPHABET), 0, tmp_path / "model")
    run = Run.load(tmp_path / "model", "numpy")
    wanted = generate(run, "the cat", length=30, temperature=0.0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = opened(tmp_path / "model", "float64")
    assert (model.generation_config.temperature, model.generation_config.top_k) == (0.8, 0)
    tokens = tokenizer("the cat", return_tensors="pt").input_ids
    found = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=30, do_sample=False)
    assert tokenizer.decode(found[0]) == wanted
    assert np.unique(run.tokenizer.encode(wanted[7:])).size > 1
