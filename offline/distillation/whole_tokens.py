"""What is one token in the prompts and answers of a tiny InterestGPT.

A category's name, the count behind it, the JSON between two fields are one each, so that a prompt has some 200 tokens
and an answer eight per interest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerFast

from serendipity.interests.answer import CATEGORY_FIRST, FIELDS, Proposal, write_answer
from serendipity.interests.prompt import CategoryFact, UserFacts, render
from serendipity.interests.text import clean_text
from serendipity.offline.distillation.examples import POPULATION_SEED, Example
from serendipity.offline.tuning import tiny_lm
from serendipity.offline.tuning.config import TinyLmConfig

_NAME = "NAME"
_PROFILE_TOKENS = 256
_MOST_COUNTS = 8
_MOST_AGES = 8


def names_of(examples: Sequence[Example], categories: Sequence[str]) -> list[str]:
    """List what becomes one token each: categories, what answers name, and the commonest profile attributes."""
    named: Counter[str] = Counter()
    profiles: Counter[str] = Counter()
    for example in examples:
        for row in json.loads(example.answer)["interests"]:
            named.update((row["seed"], row["demand"], row["interest"]))
        line = example.prompt.partition("\n")[0].partition(": ")[2]
        profiles.update(attribute for attribute in line.split("; ") if attribute)
    # Seeds may be what a user typed: only what is said of many users is worth a token.
    common = [name for name, times in sorted(named.items()) if times >= max(3, len(examples) // 1_000)]
    return [
        *categories,
        POPULATION_SEED,
        *common,
        *(attribute for attribute, _ in profiles.most_common(_PROFILE_TOKENS)),
    ]


def make_tokenizer(names: Iterable[str], texts: Iterable[str], config: TinyLmConfig) -> PreTrainedTokenizerFast:
    """Make the tokenizer. names: what becomes a token each (categories, demands); texts: what BPE is trained on."""
    whole = [*_marks(), *(name for name in map(clean_text, names) if len(name) > 1)]
    return tiny_lm.make_tokenizer(whole, texts, config)


def _marks() -> list[str]:
    """What stands between names in prompts and answers, taken from what writes them so that it cannot differ."""
    row = Proposal(*[_NAME] * len(FIELDS))
    fact = CategoryFact(_NAME, 1, 7)
    prompt = render(
        UserFacts(profile={_NAME: _NAME}, searches=[_NAME], recent=[fact], earlier=[fact]),
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
