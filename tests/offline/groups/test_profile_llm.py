import pytest

from serendipity.groups.prompt import MAX_PROFILE_CHARS
from serendipity.offline.groups.profile_llm import INSTRUCTIONS, Member, profile_prompt, with_sentence
from tests.fixtures.hostile_texts import HOSTILE_TEXTS


def test_the_prompt_tells_counts_and_titles() -> None:
    prompt = profile_prompt("prefers Tea", [Member([("Tea", 7), ("Milk", 2)], ["Green tea", "Oat milk"])])
    assert prompt.system == INSTRUCTIONS
    assert prompt.user == ("Group: prefers Tea\nMember 1: Tea (7), Milk (2). Latest: Green tea / Oat milk\nProfile:")


@pytest.mark.parametrize("title", HOSTILE_TEXTS)
def test_no_title_begins_a_line_of_its_own(title: str) -> None:
    prompt = profile_prompt("prefers Tea", [Member([("Tea", 1)], [title])])
    assert len(prompt.user.split("\n")) == 3
    assert "<|" not in prompt.user


def test_an_answer_that_was_cut_off_ends_at_its_last_whole_sentence() -> None:
    assert with_sentence("prefers Tea", "They drink tea. They also", finished=False) == "prefers Tea. They drink tea."
    assert with_sentence("prefers Tea", "They drink", finished=False) == "prefers Tea"


def test_an_answer_of_nothing_leaves_the_facts() -> None:
    assert with_sentence("prefers Tea", " \n ") == "prefers Tea"


def test_a_long_answer_is_bounded() -> None:
    assert len(with_sentence("prefers Tea", "very " * 200)) <= MAX_PROFILE_CHARS
