from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.ids import MAX_ID_LENGTH, id_fault


@given(st.text(st.characters(categories=["L", "N", "P", "Zs", "Cc", "Cf", "Cs"]), max_size=MAX_ID_LENGTH + 2))
def test_ids_are_1_to_512_characters_without_control_characters_or_half_surrogates(text: str) -> None:
    refused = any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
    assert bool(id_fault(text)) == (refused or not 1 <= len(text) <= 512)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found 0 characters, expected 1 to 512"),
        ("ü" * 513, "found 513 characters, expected 1 to 512"),
        ("a\x00b", r"found '\x00', expected valid UTF-8 without control characters"),
        ("a\udcff", r"found '\udcff', expected valid UTF-8 without control characters"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    assert id_fault(text) == said
