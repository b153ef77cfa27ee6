"""The character vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import DataError

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


@pytest.mark.parametrize("alphabet", ["", "ba", "aa"])
def test_an_alphabet_is_sorted_and_distinct(alphabet: str) -> None:
    with pytest.raises(DataError):
        Tokenizer(alphabet)


def test_decode_refuses_ids_outside_the_vocabulary() -> None:
    for bad in (-1, 3):
        with pytest.raises(IndexError):
            Tokenizer("abc").decode(np.array([0, bad]))
