"""The page of a model whose tokens are bytes or byte pairs: chips, labels, and typed text in the model's own tokens."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import small_run
from helpers import random_parameters
from showing import VIEWS, Shown, shown

from bevia_fast.config import ModelConfig
from bevia_fast.data.bpe import BPETokenizer
from bevia_fast.data.bytelevel import ByteTokenizer, byte_characters
from bevia_fast.data.given import tokenizer_json
from bevia_fast.data.vocabulary import Vocabulary
from bevia_fast.explorer.exploring import make_page, vocabulary_for_page
from bevia_fast.kernels import get_backend
from bevia_fast.model.gpt import GPT
from bevia_fast.runs.trained import Run

BYTES = {character: byte for byte, character in enumerate(byte_characters())}
PAIRS = {"Ġt": 256, "he": 257, "Ġthe": 258, "Ãģ": 259, "12": 260}
CONTENT = tokenizer_json(
    {**BYTES, **PAIRS}, [["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["Ã", "ģ"], ["1", "2"]], special={"<|end|>": 261}
)
PROMPT = [104, 258, 258, 121, 10, 0xC3, 259, 261]  # a line end, half a character, a whole one, and the end among them


class WithoutPackage(BPETokenizer):
    """Encodes the prompt only, so that the tests need no package."""

    def encode(self, text: str, what: str = "") -> Any:
        return np.array(PROMPT, np.int32)


def run_of(folder: Path, vocabulary: Vocabulary) -> Run:
    config = ModelConfig(ctx=24, dim=8, layers=2, heads=2, dtype="float64", vocab_size=len(vocabulary))
    return Run(folder, GPT(config, get_backend("numpy"), random_parameters(config)), vocabulary)


def encoded(page: Shown, texts: list[str]) -> list[list[int]]:
    """Return what the page makes of texts."""
    found: list[list[int]] = page.run(
        """async (texts) => { const { header } = await Bevia.data.read(document);
           const glyphs = Bevia.glyphs.of(header.alphabet, header.pieces);
           return texts.map((text) => glyphs.encode(text).known); }""",
        texts,
    )
    return found


def test_chips_and_labels(browser: Any, tmp_path: Path) -> None:
    page = make_page(run_of(tmp_path, WithoutPackage(CONTENT)), ["the prompt"])
    with shown(browser, tmp_path / "page.html", page.html) as seen:
        assert seen.texts(".chips .page .character") == ["h", " the", " the", "y", "↵", "c3", "Á", "<|end|>"]
        for view in VIEWS:
            seen.go(view=view, at=2)
        assert "vocabulary of 262" in seen.page.content()
        assert "context of 24 tokens" in seen.page.content()


def test_typed_text_has_the_tokens_of_the_model(browser: Any, tmp_path: Path) -> None:
    page = make_page(run_of(tmp_path, WithoutPackage(CONTENT)), ["the prompt"])
    with shown(browser, tmp_path / "page.html", page.html) as seen:
        wanted = {
            " the the": [258, 258], "the": [116, 257], "ÁÃ": [259, 195, 131], "1212": [260, 260], "  the": [32, 258],
            "a<|end|> the": [97, 261, 258], "": [], "\x85 \x1c": [194, 133, 32, 28], "🙂": [240, 159, 153, 130],
            "\ufeff": [239, 187, 191],
        }  # fmt: skip
        assert encoded(seen, list(wanted)) == list(wanted.values())
        seen.page.fill("#typing", " the 🙂")
        seen.page.wait_for_function("document.querySelectorAll('.page .character').length === 14")
        assert seen.texts(".page .character")[8:] == [" the", " ", "f0", "9f", "99", "82"]
        assert seen.page.input_value("#typing") == " the 🙂"


def test_bytes(browser: Any, tmp_path: Path) -> None:
    page = make_page(run_of(tmp_path, ByteTokenizer()), ["ä b"])
    with shown(browser, tmp_path / "page.html", page.html) as seen:
        assert seen.texts(".chips .page .character") == ["c3", "a4", " ", "b"]
        assert encoded(seen, ["ä 語"]) == [list("ä 語".encode())]
        assert "context of 24 bytes" in seen.page.content()


def test_words_that_the_page_does_not_know(browser: Any, tmp_path: Path) -> None:
    other = WithoutPackage(tokenizer_json({**BYTES, **PAIRS}, [["1", "2"]], pattern="other"))
    found = vocabulary_for_page(other)["pieces"]
    assert found["merges"] is None
    assert vocabulary_for_page(ByteTokenizer())["pieces"]["merges"] == []
    assert vocabulary_for_page(small_run(tmp_path).tokenizer)["pieces"] is None


def test_the_page_and_the_package_agree(browser: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("tokenizers") is None:
        pytest.skip("tokenizers is not installed")
    from bevia_fast.data.learning import learned
    from bevia_fast.data.sources import default_text

    vocabulary = learned(lambda: [default_text()[:100_000]], 600, 0.9)
    texts = ["It's  12 naïve words\n\n\tif x: 語🙂\u3000y\x85 z\u00a0!", default_text()[100_000:103_000]]
    page = make_page(run_of(tmp_path, vocabulary), ["the cat"])
    with shown(browser, tmp_path / "page.html", page.html) as seen:
        assert encoded(seen, texts) == [vocabulary.encode(text).tolist() for text in texts]
