"""The tensors of a page: what the browser reads is what Python wrote."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from browsing import opened, small_run

from bevia_fast.explorer.assembly import assemble
from bevia_fast.explorer.encoding import Tensor, encode
from bevia_fast.explorer.exploring import make_page

RANDOM = np.random.default_rng(0)
LOWER = np.tril(RANDOM.random((2, 3, 5, 5)))

TENSORS = [
    Tensor("single", RANDOM.normal(size=(3, 5)).astype(np.float32)),
    Tensor("double", RANDOM.normal(size=(7,))),
    Tensor("special", np.array([0.0, -0.0, 1e-45, 3e38, -1.5], np.float32)),
    Tensor("half", np.float32([0, 6e-8, 6.1e-5, 1 / 3, -2, 65504]), "float16"),
    Tensor("too large for half", np.float32([70000, 1]), "float16"),
    Tensor("ids", np.float32([[0, 65535], [258, 1]]), "uint16"),
    Tensor("shares", np.float32([0, 1, 0.5, 0.002]), "uint8"),
    Tensor("lower", LOWER.astype(np.float32), lower=True),
    Tensor("lower shares", LOWER.astype(np.float32), "uint8", lower=True),
    Tensor("empty", np.zeros((0,), np.float32)),
]

READ = """
async () => {
  const data = await Bevia.data.read(document);
  const names = Object.keys(data.header.tensors);
  return Object.fromEntries(names.map((name) => [name, Array.from(data.tensor(name))]));
}
"""


def test_the_browser_reads_what_was_written(browser: Any, tmp_path: Path) -> None:
    entries, text = encode(TENSORS)
    assert all(entry["offset"] % 8 == 0 for entry in entries.values())
    with opened(browser, tmp_path / "page.html", assemble({"tensors": entries}, text)) as page:
        found = page.run(READ)
    assert found.keys() == {tensor.name for tensor in TENSORS}
    for tensor in TENSORS:
        values, wanted = np.array(found[tensor.name]), tensor.array.ravel()
        if tensor.stored == "uint8":
            assert np.abs(values - wanted).max() <= 0.5 / 255 + 1e-7
        elif tensor.name == "half":
            assert values.tolist() == wanted.astype(np.float16).tolist()
        else:
            assert values.tolist() == wanted.tolist()


def test_half_halves_what_is_exact() -> None:
    entries, _ = encode(TENSORS, half=True)
    dtypes = {name: entry["dtype"] for name, entry in entries.items()}
    assert dtypes == {
        "single": "float16", "double": "float16", "special": "float32", "half": "float16",
        "too large for half": "float32", "ids": "uint16", "shares": "uint8", "lower": "float16",
        "lower shares": "uint8", "empty": "float16",
    }  # fmt: skip


def test_the_format() -> None:
    """Bytes of a kind together, little-endian, each tensor at a multiple of 8 bytes."""
    entries, text = encode([Tensor("a", np.float32([1, 2])), Tensor("b", np.float32([3]))])
    assert zlib.decompress(base64.b64decode(text)).hex() == "0000" "0000" "8000" "3f40" "00004040" "00000000"
    assert entries["b"] == {"dtype": "float32", "shape": [1], "offset": 8, "bytes": 4}


def test_a_page_holds_the_numbers_of_the_engine(browser: Any, tmp_path: Path) -> None:
    run = small_run(tmp_path)
    with opened(browser, tmp_path / "page.html", make_page(run, ["a cat", "mat"]).html) as page:
        found = page.run(READ)
        weights = page.run(
            "async () => { const weights = (await Bevia.data.read(document)).weights();"
            " return Object.fromEntries(Object.entries(weights).map(([name, value]) => [name, Array.from(value)])); }"
        )
    assert {name: np.array(value).tolist() for name, value in weights.items()} == {
        name: view.ravel().tolist() for name, view in run.model.parameters.items()
    }
    for number, text in enumerate(["a cat", "mat"]):
        logits = run.model.logits(run.tokenizer.encode(text)[None])
        assert found[f"prompt/{number}/logits"] == logits.ravel().tolist()
        maps = run.model.attention_maps(run.tokenizer.encode(text))
        for layer, wanted in enumerate(maps):
            assert found[f"prompt/{number}/block.{layer}.weights"] == wanted.ravel().tolist()
