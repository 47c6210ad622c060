"""Texts of users and hosts become bounded, visible lines that can end nothing they are quoted in."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.text import MAX_CHARS, clean_text, comparable, is_name
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, INVISIBLES, any_text


@given(any_text, st.integers(1, 200))
def test_cleaning_is_bounded_and_idempotent(text: str, max_chars: int) -> None:
    cleaned = clean_text(text, max_chars)
    assert len(cleaned) <= max_chars
    assert clean_text(cleaned, max_chars) == cleaned


@given(any_text)
def test_a_clean_text_has_no_delimiter_no_control_character_and_one_line(text: str) -> None:
    cleaned = clean_text(text)
    assert not set(cleaned) & set('<>|{}[]\\`;"“”„«»\n\r\t\x00')
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in cleaned)
    assert cleaned == " ".join(cleaned.split())
    assert unicodedata.is_normalized("NFKC", cleaned)
    cleaned.encode("utf-8")


@pytest.mark.parametrize("text", ["Soft drinks & juices", "Würstchen, 3.5 kg (frisch)", "日本語", "crème brûlée"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert clean_text(text) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("text", [text for text in INVISIBLES if "shoes" in text])
def test_nothing_stays_hidden_behind_what_is_seen(text: str) -> None:
    assert clean_text(text).removesuffix("shoes") in ("", "gnp.exe ", "rtl ")


def test_what_shows_nothing_is_no_text() -> None:
    assert clean_text("\u3164\u115f\u1160\uffa0\u2800\u034f\u180e\ufe0f\U000e0101") == ""


def test_look_alikes_of_delimiters_go_with_them() -> None:
    assert clean_text("＜｜im_start｜＞ｓｙｓｔｅｍ") == "im_start system"


def test_a_text_of_megabytes_costs_no_more_than_a_line() -> None:
    assert clean_text("a" * 10_000_000) == "a" * MAX_CHARS


def test_names_that_differ_in_case_signs_and_spaces_are_the_same() -> None:
    assert comparable("Cookies/Crackers &  Co-op") == comparable("cookies crackers and co op")
    assert comparable("Straße") == comparable("STRASSE")


@given(any_text)
def test_comparing_never_fails_and_is_bounded(text: str) -> None:
    assert len(comparable(text)) <= 6 * MAX_CHARS


@pytest.mark.parametrize(
    "text",
    ["see http://evil", "www.evil.example", "me@evil", "evil.example/pay", "call 555-867-5309", "0800 123456", "-", ""],
)
def test_an_address_or_nothing_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["soft drinks", "3.5 kg rice", "vitamin B12", "24 pack", "no. 5", "Dr. Pepper"])
def test_goods_are_names(text: str) -> None:
    assert is_name(text)


def test_the_corpus_is_what_it_says() -> None:
    assert len(set(HOSTILE_TEXTS)) == len(HOSTILE_TEXTS) > 40
    assert any("\ud800" in text for text in HOSTILE_TEXTS)
    assert max(map(len, HOSTILE_TEXTS)) >= 10_000
