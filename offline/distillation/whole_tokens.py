"""What is one token in the prompts and answers of a tiny InterestGPT.

A category's name, the count behind it, the JSON between two fields are one each, so that a prompt has some 200 tokens
and an answer eight per interest.
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

from serendipity.interests.answer import CATEGORY_FIRST, FIELDS, Proposal, write_answer
from serendipity.interests.prompt import CategoryFact, UserFacts, render
from serendipity.interests.text import clean_text
from serendipity.offline.tuning import tiny_lm
from serendipity.offline.tuning.config import TinyLmConfig

_NAME = "NAME"
_MOST_COUNTS = 8
_MOST_AGES = 8


def make_tokenizer(names: Iterable[str], texts: Iterable[str], config: TinyLmConfig) -> PreTrainedTokenizerFast:
    """Make the tokenizer. names: what becomes a token each (categories, demands); texts: what BPE is trained on."""
    whole = [*_marks(), *(name for name in map(clean_text, names) if len(name) > 1)]
    return tiny_lm.make_tokenizer(whole, texts, config)


def _marks() -> list[str]:
    """What stands between names in prompts and answers, taken from what writes them so that it cannot differ."""
    row = Proposal(*[_NAME] * len(FIELDS))
    fact = CategoryFact(_NAME, 1, 7)
    prompt = render(
        UserFacts(profile={_NAME: _NAME}, searches=[_NAME], recent=[fact], earlier=[fact], hints=[_NAME, _NAME]),
        "compact",
    )
    empty = render(UserFacts(), "compact")
    answers = [write_answer([row, row], fields) for fields in (FIELDS, CATEGORY_FIRST)]
    marks = [mark for text in (prompt, *answers) for mark in text.split(_NAME) if mark.strip()]
    # Of a mark such as " x1\nearlier: " the count varies: it is a token of its own.
    lines = [f"{line.split(':')[0]}: " for line in prompt.splitlines()[:-1]]
    counts = [f" x{1 << power}" for power in range(_MOST_COUNTS)]
    ages = [f" {1 << power}w" for power in range(_MOST_AGES)]
    ends = ["; ", "\n"]
    return [
        *(mark for mark in marks if '"' in mark),
        *(f"\n{line}" for line in lines),
        *lines,
        "\n" + empty.splitlines()[-1],
        empty.splitlines()[-1],
        ends[0],
        *(count + end for count in counts for end in ends),
        *(count + age + end for count in counts for age in ages for end in ends),
    ]
