"""Tokens of prompts that share their lines: every distinct line is looked at once.

Ten categories for each of eight thousand keys are as many prompts as ten times eight thousand, but no more lines than
keys, groups and categories together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BREAK = "\n"


def tokens_by_line(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]] | None:
    """Tokenise prompts line by line; None where that might differ from tokenising them whole.

    It cannot differ where every line but the first begins, line break included, with an added token, and no added token
    holds a line break elsewhere: added tokens are cut out before anything else is looked at.
    """
    added = list(getattr(tokenizer, "added_tokens_decoder", {}).values())
    if any(_BREAK in token.content[1:] or token.lstrip or token.rstrip or token.single_word for token in added):
        return None
    if tokenizer("")["input_ids"]:
        return None
    marks = tuple(token.content for token in added if token.content.startswith(_BREAK))
    lines = [_lines(prompt) for prompt in prompts]
    distinct = list(dict.fromkeys(line for prompt in lines for line in prompt))
    # str.startswith of no prefixes is False, as wanted.
    if not all(line.startswith(marks) for prompt in lines for line in prompt[1:]):
        return None
    known = dict(zip(distinct, tokenizer(distinct)["input_ids"], strict=True)) if distinct else {}
    return [[token for line in prompt for token in known[line]] for prompt in lines]


def _lines(prompt: str) -> list[str]:
    """Cut before every line break: breaks stay at the beginning of the line they lead to."""
    first, *rest = prompt.split(_BREAK)
    return [first, *(_BREAK + line for line in rest)]
