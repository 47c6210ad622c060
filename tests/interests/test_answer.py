"""A model's answer is read, or refused with what was found; nothing it writes breaks the reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.answer import FIELDS, AnswerError, Proposal, read_answer, write_answer
from serendipity.interests.text import MAX_CHARS, clean_text
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, any_text

TEA = Proposal("green tea", "hot drinks", "oolong", "Tea")
MUGS = Proposal("Tea", "tea at home", "mugs", "Kitchen")

clean = any_text.map(clean_text)
proposals = st.lists(
    st.builds(Proposal, clean, clean, clean, clean).filter(lambda p: bool(p.interest or p.category)), max_size=12
)


@given(proposals)
def test_an_answer_reads_as_it_was_written(written: list[Proposal]) -> None:
    assert read_answer(write_answer(written)) == written


@given(proposals, any_text)
def test_thoughts_before_the_answer_are_passed_over(written: list[Proposal], thoughts: str) -> None:
    assert read_answer(f"<think>{thoughts}</think>\n{write_answer(written)}") == written


@pytest.mark.parametrize(
    "around",
    ["{}", "Sure! Here it is:\n```json\n{}\n```\nEnjoy.", "For [age 25-34] shoppers {{curly}}: {}", "{} [more] {{}}"],
)
def test_words_around_the_answer_are_passed_over(around: str) -> None:
    assert read_answer(around.format(write_answer([TEA, MUGS]))) == [TEA, MUGS]


def test_a_bare_list_is_an_answer() -> None:
    rows = json.loads(write_answer([TEA, MUGS]))["interests"]
    assert read_answer(json.dumps(rows)) == [TEA, MUGS]


@given(proposals, st.integers(0, 10**6), any_text)
def test_whatever_an_answer_is_cut_or_corrupted_to_it_is_read_or_refused(
    written: list[Proposal], at: int, rubbish: str
) -> None:
    whole = write_answer(written)
    cut = whole[: at % (len(whole) + 1)]
    for text in (cut, cut + rubbish, rubbish + cut, rubbish):
        for complete in (True, False):
            try:
                found = read_answer(text, whole=complete)
            except AnswerError:
                continue
            for proposal in found:
                assert proposal.interest or proposal.category
                for name in FIELDS:
                    value = getattr(proposal, name)
                    assert clean_text(value) == value
                    assert len(value) <= MAX_CHARS


def test_the_complete_interests_of_an_answer_that_was_cut_off_are_taken() -> None:
    cut = write_answer([TEA, MUGS])[:-12]
    assert read_answer(cut, whole=False) == [TEA]
    assert read_answer(f"For [25-34]: {cut}", whole=False) == [TEA]
    with pytest.raises(AnswerError, match="expected JSON with a list of interests"):
        read_answer(cut)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"interests": ' * 50_000, '{"interests": ' + "9" * 5_000 + "}"])
def test_json_that_exhausts_its_reader_is_refused(text: str) -> None:
    with pytest.raises(AnswerError, match=r"^answer: "):
        read_answer(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected JSON with a list of interests"),
        ("I cannot help with that.", "expected JSON with a list of interests"),
        ('{"answer": 4}', "expected JSON with a list of interests"),
        ('{"interests": "shoes"}', "interests: found a text, expected a list"),
        ('{"interests": ["shoes"]}', "interest 0: found a text, expected an object"),
        (
            '{"interests": [{"interest": 4, "category": "Tea"}]}',
            "interest 0: interest: found a number, expected a text",
        ),
        ('{"interests": [{"seed": "tea", "demand": null}]}', "interest 0: demand: found null, expected a text"),
        ('{"interests": [{"seed": "tea"}]}', "interest 0: interest, category: found none"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_what_was_found(text: str, expected: str) -> None:
    with pytest.raises(AnswerError, match=expected):
        read_answer(text)


def test_deeply_nested_fields_are_refused_without_being_written_out() -> None:
    nested = "[" * 900 + "]" * 900
    with pytest.raises(AnswerError, match="demand: found a list, expected a text"):
        read_answer(f'{{"interests": [{{"interest": "tea", "seed": "", "demand": {nested}}}]}}')


@pytest.mark.parametrize("text", [text for text in HOSTILE_TEXTS if "</think>" not in text])
def test_hostile_fields_come_out_clean(text: str) -> None:
    answer = json.dumps({"interests": [{"seed": text, "demand": text, "interest": text, "category": "Tea"}]})
    assert read_answer(answer) == [Proposal(clean_text(text), clean_text(text), clean_text(text), "Tea")]
