"""What is one token in the prompts and answers of tiny Novelty and Relevance LLMs."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from serendipity.groups.prompt import answer, novelty_prompt, relevance_prompt
from serendipity.interests.text import clean_text
from serendipity.offline.tuning import tiny_lm
from serendipity.offline.tuning.config import TinyLmConfig

_NAME = "NAME"


def make_tokenizer(categories: Sequence[str], profiles: Sequence[str], config: TinyLmConfig) -> PreTrainedTokenizerFast:
    """Make the tokenizer: category names, also as answers are written, and what stands between names are one token
    each; the words of the profiles become so by BPE, as far as its merges reach."""
    # Taken from what writes prompts, so that it cannot differ.
    prompts = (
        novelty_prompt(_NAME, [_NAME, _NAME], "compact"),
        relevance_prompt(_NAME, [_NAME, _NAME], _NAME, "compact"),
    )
    marks = [mark for prompt in prompts for mark in prompt.split(_NAME) if mark]
    names = [name for name in map(clean_text, categories) if name]
    answers = [answer(name, "compact") for name in names]
    return tiny_lm.make_tokenizer([*marks, *names, *answers], [clean_text(text, 1_000) for text in profiles], config)
