"""The character vocabulary."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.data.tokenizer import Tokenizer, visible
from bevia_fast.errors import DataError

pytestmark = pytest.mark.usefixtures("typed")

any_text = st.text(st.characters(), min_size=1, max_size=200)  # surrogates and control characters included


@given(any_text)
def test_round_trip(text: str) -> None:
    tokenizer = Tokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text


@given(any_text)
def test_ids_are_positions_in_the_sorted_alphabet(text: str) -> None:
    tokenizer = Tokenizer.from_text(text)
    assert tokenizer.alphabet == "".join(sorted(set(text)))
    assert tokenizer.encode(text).tolist() == [tokenizer.alphabet.index(char) for char in text]


@given(any_text, any_text)
def test_unknown_characters_are_named_with_their_position(seen: str, text: str) -> None:
    tokenizer = Tokenizer.from_text(seen)
    unseen = [i for i, char in enumerate(text) if char not in seen]
    if not unseen:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return
    with pytest.raises(DataError, match=rf"\(character {unseen[0] + 1}\)"):
        tokenizer.encode(text)


def test_the_message_shows_characters_positions_and_alphabet() -> None:
    with pytest.raises(DataError) as caught:
        Tokenizer.from_text("abc\n").encode("aéb≠é", "The prompt")
    assert str(caught.value) == (
        "The prompt contains 'é' (character 2) and '≠' (character 4), which the model does not know; its alphabet is "
        "\\nabc"
    )


def test_a_long_list_is_shortened() -> None:
    with pytest.raises(DataError) as caught:
        Tokenizer.from_text("a").encode("bcdefghij")
    message = str(caught.value)
    assert "'f' (character 5) and others" in message
    assert "'g'" not in message
    large = Tokenizer("".join(map(chr, range(0x4E00, 0x5E00))))
    assert len(large.shown_alphabet()) < 350
    assert "(4096 characters)" in large.shown_alphabet()


def test_what_cannot_be_seen_is_named() -> None:
    named = {
        "é": "'é'", "\n": "'\\n'", "\udc80": "'\\udc80'", "\x00": "'\\x00'", "中": "'中'", " ": "' '",
        "\u0301": "U+0301 COMBINING ACUTE ACCENT", "\u200b": "U+200B ZERO WIDTH SPACE",
        "\xa0": "U+00A0 NO-BREAK SPACE", "\u2800": "U+2800 BRAILLE PATTERN BLANK", "\xad": "U+00AD SOFT HYPHEN",
        "\ufeff": "U+FEFF ZERO WIDTH NO-BREAK SPACE", "\u3000": "U+3000 IDEOGRAPHIC SPACE",
        "\ufe0f": "U+FE0F VARIATION SELECTOR-16", "\u3164": "U+3164 HANGUL FILLER",
        "\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE", "\u0e31": "U+0E31 THAI CHARACTER MAI HAN-AKAT",
    }  # fmt: skip
    assert {char: visible(char) for char in named} == named
    assert Tokenizer("ab\xa0\u0301\u200b\u3164").shown_alphabet() == "ab\\xa0◌\u0301\\u200b\\u3164"


def test_another_normal_form_is_named() -> None:
    composed, apart = "caf\xe9 한", "cafe\u0301 한"
    with pytest.raises(DataError) as caught:
        Tokenizer.from_text(apart).encode(composed, "The prompt")
    assert "normal form D (NFD), where 'é' is written as 'e' and U+0301 COMBINING ACUTE ACCENT" in str(caught.value)
    assert "--normalize nfc" in str(caught.value)
    with pytest.raises(DataError, match=r"contains 'e' .* and U\+0301 COMBINING .* normal form C \(NFC\)"):
        Tokenizer.from_text(composed).encode(apart, "The prompt")
    with pytest.raises(DataError, match=r"normal form C \(NFC\)"):
        Tokenizer.from_text("한 글").encode(unicodedata.normalize("NFD", "한글"))
    for known, prompt in (("cafe", "é"), ("cafx\u0301", "é"), ("cafe", "e\u0301"), ("cafô", "e\u0301")):
        with pytest.raises(DataError) as caught:
            Tokenizer.from_text(known).encode(prompt)
        assert "normal form" not in str(caught.value)


@pytest.mark.parametrize("alphabet", ["", "ba", "aa"])
def test_an_alphabet_is_sorted_and_distinct(alphabet: str) -> None:
    with pytest.raises(DataError):
        Tokenizer(alphabet)


def test_decode_refuses_ids_outside_the_vocabulary() -> None:
    for bad in (-1, 3):
        with pytest.raises(IndexError):
            Tokenizer("abc").decode(np.array([0, bad]))
