"""What InterestGPT is tuned from, and the style it is prompted in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.examples import POPULATION_SEED, Example
from serendipity.offline.distillation.whole_tokens import make_tokenizer
from serendipity.offline.tuning import base_model
from serendipity.offline.tuning.base_model import BaseModel, style_for

_PROFILE_TOKENS = 256
_BPE_EXAMPLES = 2_000


def style_of(config: DistillationConfig) -> PromptStyle:
    """Tell the style that a configuration's prompts are written in."""
    return style_for(config.base, config.dataset.prompt_style)


def open_base(config: DistillationConfig, examples: Sequence[Example], categories: Sequence[str]) -> BaseModel:
    """Load the base, or make the tiny model, whose tokens are named after categories and what examples speak of.

    Raises BaseModelError.
    """
    return base_model.open_base(
        config.base,
        style_of(config),
        config.tiny,
        config.sft.seed,
        lambda: make_tokenizer(
            _names(examples, categories), [example.prompt for example in examples[:_BPE_EXAMPLES]], config.tiny
        ),
    )


def _names(examples: Sequence[Example], categories: Sequence[str]) -> list[str]:
    """Names that become one token each: categories, what answers name, and the commonest profile attributes."""
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
