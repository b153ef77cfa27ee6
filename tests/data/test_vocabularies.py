"""Bytes and byte pairs as tokens, as far as they need no package: what tokens stand for, files, and what is refused."""

from __future__ import annotations

import base64
import itertools
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.config import MOST_LEARNED, TrainConfig, tokens_to_learn
from bevia_fast.data import bpe
from bevia_fast.data.bpe import BPETokenizer
from bevia_fast.data.bytelevel import ByteTokenizer, byte_characters
from bevia_fast.data.chunks import KEPT, LONGEST, Chunks, whole_words
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.given import from_ranks, given_vocabulary, tokenizer_json
from bevia_fast.data.learning import LEARNED, _sample
from bevia_fast.data.texts import encoded_text
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.data.vocabularies import fixed_vocabulary, restored
from bevia_fast.data.vocabulary import Vocabulary
from bevia_fast.errors import ConfigError, DataError

BYTES = {character: byte for byte, character in enumerate(byte_characters())}
WORDS = {**BYTES, "Ġt": 256, "he": 257, "Ġthe": 258, "Ãģ": 259}
MERGES = [["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["Ã", "ģ"]]


def small() -> BPETokenizer:
    return BPETokenizer(tokenizer_json(WORDS, MERGES, special={"<|end|>": 260}))


VOCABULARIES: list[Vocabulary] = [Tokenizer("\n ab\u00e9\u8a9e\U0001f642"), ByteTokenizer(), small()]
each = pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.name)


@each
def test_what_a_file_holds_gives_the_same_vocabulary(vocabulary: Vocabulary) -> None:
    about = json.loads(json.dumps(vocabulary.stored()))
    again = restored(about)
    assert again == vocabulary
    assert again.fingerprint == vocabulary.fingerprint
    assert len(again) == len(vocabulary) == len(vocabulary.byte_lengths)
    assert again.byte_lengths.tolist() == [len(vocabulary.token_bytes(token)) for token in range(len(vocabulary))]
    assert sum(vocabulary == other for other in VOCABULARIES) == 1
    assert vocabulary.token_bytes(vocabulary.first) == b"\n"
    with pytest.raises(IndexError):
        vocabulary.decode(np.array([len(vocabulary)]))
    with pytest.raises(IndexError):
        vocabulary.decode(np.array([-1]))


@given(st.text(max_size=30))
def test_any_text_is_bytes(text: str) -> None:
    ids = ByteTokenizer().encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == list(text.encode())
    assert ByteTokenizer().decode(ids) == text


def test_what_a_shell_passes_is_kept_as_bytes() -> None:
    assert ByteTokenizer().encode("a\udcff").tolist() == [97, 255]
    assert ByteTokenizer().encode("\ud83d").tolist() == list("\ufffd".encode())


@given(st.binary(max_size=20))
def test_a_stream_is_what_decoding_gives_and_holds_parts_of_characters_back(data: bytes) -> None:
    pieces = list(ByteTokenizer().stream(list(data)))
    assert "".join(pieces) == ByteTokenizer().decode(np.frombuffer(data, np.uint8)) == data.decode("utf-8", "replace")
    assert "" not in pieces


def test_a_character_comes_when_it_is_whole() -> None:
    came: list[str] = []
    tokens = iter("é🙂x".encode())
    stream, seen = ByteTokenizer().stream(byte for byte in tokens if came.append(str(byte)) or True), []
    for piece in stream:
        seen.append((len(came), piece))
    assert seen == [(2, "é"), (6, "🙂"), (7, "x")]
    assert list(ByteTokenizer().stream(b"a\xf0\x9f")) == ["a", "\ufffd"]


def test_tokens_of_a_byte_pair_encoding() -> None:
    vocabulary = small()
    assert len(vocabulary) == 261
    assert vocabulary.decode(np.array([258, 257, 121, 260])) == " thehey<|end|>"
    assert vocabulary.token_bytes(259) == b"\xc3\x81"
    assert [vocabulary.label(token) for token in (258, 259, 0xC3)] == [" the", "Á", "c3"]
    assert vocabulary.name == "bpe:261"
    assert vocabulary.shown() == " t|he| the|Á|<|end|>"
    assert vocabulary.shown(8).endswith("... (261 tokens)")
    assert vocabulary.merges() == [(BYTES["Ġ"], BYTES["t"], 256), (BYTES["h"], BYTES["e"], 257), (256, 257, 258),
                                   (0xC3, 0x81, 259)]  # fmt: skip
    assert vocabulary.single() == list(range(256))
    assert vocabulary.added() == {"<|end|>": 260}


def test_a_model_may_have_more_tokens_than_its_vocabulary() -> None:
    wider = BPETokenizer(small().content, 300)
    assert len(wider) == 300
    assert wider.token_bytes(299) == b""
    assert wider.decode(np.array([299, 97])) == "a"
    assert restored(wider.stored()) == wider != small()
    with pytest.raises(DataError, match="has 261 tokens, but the model has 260"):
        BPETokenizer(small().content, 260)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(small().content) | changes)


MODEL = json.loads(small().content)["model"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no tokenizer.json: "), ("[]", "no model with a vocab"), ("[" * 100_000, "no tokenizer.json"),
        (changed(model={**MODEL, "type": "Unigram"}), "of type Unigram"),
        (changed(decoder={"type": "Metaspace"}), "whose decoder is ByteLevel"),
        (changed(decoder=None), "whose decoder is ByteLevel"),
        (changed(added_tokens=[{"id": 1}]), "are no tokens"), (changed(added_tokens=5), "are no tokens"),
        (changed(model={**MODEL, "vocab": {**WORDS, "x": -1}}), "are not from 0 to 2,097,151"),
        (changed(model={**MODEL, "vocab": {**WORDS, "x": 1 << 21}}), "are not from 0"),
        (changed(model={**MODEL, "vocab": {**WORDS, "x": True}}), "are not from 0"),
        (changed(model={**MODEL, "vocab": {"a": 0}}), "no token for the byte 0x00"),
    ],
)  # fmt: skip
def test_other_files_are_refused(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        BPETokenizer(content)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=f"tokens='.*tokenizer.json': .*{words}"):
        given_vocabulary(str(tmp_path / "tokenizer.json"))


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = small().content
    values = sum(map(content.count, "[{,"))
    monkeypatch.setattr(bpe, "MOST_VALUES", values)
    BPETokenizer(content)
    monkeypatch.setattr(bpe, "MOST_VALUES", values - 1)
    with pytest.raises(DataError, match="too large"):
        BPETokenizer(content)
    monkeypatch.undo()
    monkeypatch.setattr(bpe, "LARGEST", len(content))
    BPETokenizer(content)
    monkeypatch.setattr(bpe, "LARGEST", len(content) - 1)
    with pytest.raises(DataError, match="too large"):
        BPETokenizer(content)


@pytest.mark.parametrize(
    "about",
    [
        {"tokens": "words"}, {"tokens": ["bpe"]}, {"alphabet": 5}, {}, {"tokens": "bpe"},
        {"tokens": "bpe", "tokenizer": "x", "size": 5}, {"tokens": "bpe", "tokenizer": "", "size": 5},
        {"tokens": "bpe", "tokenizer": base64.b64encode(b"abc").decode(), "size": 5},
        {"tokens": "bpe", "tokenizer": base64.b64encode(zlib.compress(b"\xff")).decode(), "size": 5},
        {**small().stored(), "size": "261"}, {**small().stored(), "size": 0}, {**small().stored(), "size": 1 << 22},
        {**small().stored(), "size": 256},
    ],
)  # fmt: skip
def test_a_damaged_header_is_an_error_that_readers_expect(about: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, DataError)):
        restored(about)


def test_a_compressed_vocabulary_cannot_fill_the_memory() -> None:
    bomb = base64.b64encode(zlib.compress(b" " * (bpe.LARGEST + (1 << 20)))).decode()
    with pytest.raises(DataError, match="too large"):
        restored({"tokens": "bpe", "tokenizer": bomb, "size": 300})


# ---------------------------------------------------------------------------------------------------------------- files


def test_gpt2s_pair_of_files(tmp_path: Path) -> None:
    for merges, numbers in (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")):
        lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
        (tmp_path / merges).write_text("\n".join(lines), "utf-8")
        (tmp_path / numbers).write_text(json.dumps({**WORDS, "<|endoftext|>": 260}))
        found = given_vocabulary(str(tmp_path / merges))
        assert found.merges() == small().merges()
        assert found.added() == {"<|endoftext|>": 260}
        (tmp_path / merges).write_text("a b c\n")
        with pytest.raises(DataError, match="no pair of tokens"):
            given_vocabulary(str(tmp_path / merges))
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "vocab.json").write_text("[]")
    with pytest.raises(DataError, match=r"vocab\.json beside it has no numbers"):
        given_vocabulary(str(tmp_path / "merges.txt"))
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(DataError, match=r"Cannot read .*vocab\.json"):
        given_vocabulary(str(tmp_path / "merges.txt"))


RANKS = {bytes([byte]): byte for byte in range(256)} | {b" t": 256, b"he": 257, b" the": 258, b"\xc3\x81": 259}


def test_a_file_of_tiktoken_has_the_merges_that_its_ranks_mean(tmp_path: Path) -> None:
    path = tmp_path / "own.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in RANKS.items()))
    assert given_vocabulary(str(path)).merges() == small().merges()
    assert given_vocabulary(str(path)).added() == {}
    path.write_text("?? 5\n")
    with pytest.raises(DataError, match="not a token in base64"):
        given_vocabulary(str(path))
    path.write_text("YQ== 5\n")
    with pytest.raises(DataError, match="different numbers, or a byte has none"):
        given_vocabulary(str(path))
    other = path.rename(tmp_path / "cl100k_base.tiktoken")
    with pytest.raises(DataError, match="tokens='tiktoken:cl100k_base' knows it"):
        given_vocabulary(str(other))


def test_a_token_that_no_pair_makes_has_no_merge() -> None:
    content = json.loads(from_ranks({**RANKS, b"xyz": 260}, "x", {}))
    assert len(content["model"]["merges"]) == len(MERGES)
    assert content["model"]["ignore_merges"] is True
    assert content["pre_tokenizer"]["type"] == "Sequence"
    assert BPETokenizer(json.dumps(content)).merges() is None  # the words are others than GPT-2's


def test_other_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot read"):
        given_vocabulary(str(tmp_path / "none.json"))
    (tmp_path / "latin.json").write_bytes(b"\xe9")
    with pytest.raises(DataError, match="not UTF-8: byte 0"):
        given_vocabulary(str(tmp_path / "latin.json"))


@pytest.mark.parametrize("name", ["tokenizers", "tiktoken"])
def test_a_missing_package_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "text.txt").write_text("a text")
    tokens = "bpe:300" if name == "tokenizers" else "tiktoken:gpt2"
    config = TrainConfig(data=[str(tmp_path / "text.txt")], tokens=tokens)
    with pytest.raises(ConfigError, match=rf"needs the package {name} .*: pip install 'bevia-fast\[tokens\]'\."):
        encoded_text(config)
    assert small().decode(np.array([258])) == " the"  # decoding needs none
    if name == "tokenizers":
        with pytest.raises(ConfigError, match="needs the package tokenizers"):
            small().encode("a")


@pytest.mark.parametrize(
    ("tokens", "count"),
    [("chars", 0), ("bytes", 0), ("file.json", 0), ("bpe:256", 256), (f"bpe:{MOST_LEARNED}", MOST_LEARNED)],
)
def test_how_many_tokens_are_learned(tokens: str, count: int) -> None:
    assert tokens_to_learn(tokens) == count
    assert TrainConfig(tokens=tokens).tokens == tokens


@pytest.mark.parametrize("tokens", ["bpe:", "bpe:255", f"bpe:{MOST_LEARNED + 1}", "bpe:x", "bpe:²", "bpe:-5", ""])
def test_impossible_numbers_of_tokens(tokens: str) -> None:
    with pytest.raises(ConfigError, match="tokens is"):
        TrainConfig(tokens=tokens)


# ------------------------------------------------------------------------------------------------------------- encoding


def of_words(words: list[str]) -> list[bytes]:
    """An encoding of words one by one, which shows where a text was cut."""
    return [np.array([len(word), *map(ord, word)], np.int32).tobytes() for word in words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's  mat.", ["The", " cat", "'s", " ", " mat", "."]), ("a\n\n b", ["a", "\n\n", " b"]),
        ("a \n", ["a", " \n"]), ("\x1ca \x1cb", ["\x1c", "a", " \x1c", "b"]), ("  ", ["  "]), ("", []),
        ("a\x85\u3000b", ["a", "\x85", "\u3000", "b"]), ("x12 y²½é語!🙂", ["x", "12", " y", "²½", "é語", "!🙂"]),
        # a character of 2020 or later: words end at white space only, and the package cuts them
        ("x12 y!\U0001fae0 \u0870", ["x12", " y!\U0001fae0", " \u0870"]),
    ],
)  # fmt: skip
def test_words_are_cut_where_gpt2_cuts(text: str, words: list[str]) -> None:
    assert Chunks(of_words).encode(text).tobytes() == b"".join(of_words(words))


def test_words_are_remembered_until_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def encode(words: list[str]) -> list[bytes]:
        asked.append(words)
        return of_words(words)

    chunks = Chunks(encode)
    for text in ("a b a", "b a", " c b"):
        assert chunks.encode(text).tolist() == Chunks(of_words).encode(text).tolist()
    assert asked == [["a", " b", " a"], ["b"], [" c"]]
    assert KEPT > 1000
    monkeypatch.setattr("bevia_fast.data.chunks.KEPT", 4)
    assert chunks.encode("x a").tolist() == Chunks(of_words).encode("x a").tolist()
    assert asked[-1] == ["x"]
    assert chunks.encode("x a").tolist() == Chunks(of_words).encode("x a").tolist()
    assert asked[-1] == [" a"]  # it was forgotten with the others


@given(st.lists(st.text("ab \n\x1c\u3000", max_size=12)))
def test_a_text_is_cut_before_a_space_between_words(blocks: list[str]) -> None:
    pieces = list(whole_words(blocks))
    assert "".join(pieces) == "".join(blocks)
    for before, after in itertools.pairwise(pieces):
        assert before[-1] not in " \n\u3000"
        assert after[0] == " "
        assert after[1] not in " \n\x1c\u3000"
    assert "" not in pieces


def test_a_boundary_far_from_the_end_of_a_block_is_found() -> None:
    for distance in (255, 256, 257, 258, 511, 512, 513, 514):
        block = "a b" + "c" * distance
        assert list(whole_words([block, "d"])) == ["a", block[1:] + "d"], distance


def test_a_text_without_spaces_is_cut_somewhere() -> None:
    blocks = ["x" * (LONGEST // 2)] * 4
    assert [len(piece) for piece in whole_words(blocks)] == [LONGEST, LONGEST]


def test_a_part_of_a_long_text_is_learned_from() -> None:
    blocks = ["a" * 1000] * 10
    assert sum(map(len, _sample(blocks, 9000.0))) == 9000
    assert sum(map(len, _sample(blocks, 8500.0))) == 8500
    assert LEARNED == 64 << 20
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("bevia_fast.data.learning.LEARNED", 3000)
        assert 3000 <= sum(map(len, _sample(blocks, 10_000.0))) <= 4000


@pytest.mark.parametrize("cached", [False, True])
def test_a_text_in_bytes(cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small or larger than memory, it has the tokens of its UTF-8; characters and bytes have entries of their own."""
    monkeypatch.setenv("BEVIA_FAST_CACHE_DIR", str(tmp_path / "cache"))
    if cached:
        monkeypatch.setattr("bevia_fast.data.tokenfile.IN_MEMORY", 10)
    text = "naïve 語 🙂\n" * 50
    (tmp_path / "text.txt").write_text(text, "utf-8")
    config = TrainConfig(data=[str(tmp_path / "text.txt")], tokens="bytes")
    for _ in range(2):
        found = encoded_text(config)
        assert (found.path is not None) == cached
        assert found.codes.tolist() == list(text.encode())
        assert found.codes.dtype == np.uint8
        assert found.characters == "".join(sorted(set(text)))
        assert (found.tokens, found.unit) == (256, "byte")
        corpus = Corpus(found)
        assert corpus.tokenizer == ByteTokenizer()
        assert corpus.training[:10].dtype == np.int32
        assert corpus.tokenizer.decode(corpus.training[:10]) == text.encode()[:10].decode()
    characters = encoded_text(TrainConfig(data=config.data))
    assert characters.fingerprint == found.fingerprint
    assert len(characters.codes) == len(text)
    assert len(list((tmp_path / "cache").rglob("*.tokens"))) == 2 * cached
    assert fixed_vocabulary("chars") is fixed_vocabulary("bpe:300") is None
