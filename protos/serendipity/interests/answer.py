"""How a language model's answer is read: JSON with a path seed → demand → interest and a category per interest."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from serendipity.interests.text import clean_text

FIELDS = ("seed", "demand", "interest", "category")
"""Fields of one interest, in the order they are written unless a model's spec says otherwise: the reasoning first."""

CATEGORY_FIRST = ("category", "seed", "demand", "interest")
"""The order of models too small to profit from reasoning aloud: what is decided first is the category itself, so that
the most likely one is written first; the path to it follows as its reason."""

NAMING = '{"interests": [{"category": "'
"""What an answer that names its category first begins with: what follows is the first category."""

NAMED = '", "'
"""What follows a category there."""

_OPENING = re.compile(r"[{\[]")

_MAX_STARTS = 16
"""Brackets at which an answer is looked for: what opens thousands of them is no answer."""

_UNREADABLE = (ValueError, RecursionError)
"""What decoding hostile JSON raises: no JSON, a number of thousands of digits, thousands of nested lists."""


class AnswerError(Exception):
    """An answer cannot be read: says where, what was found and what was expected."""


@dataclass(frozen=True)
class Proposal:
    """A latent interest as a model names it, unchecked: texts are clean, and interest or category is not empty."""

    seed: str
    demand: str
    interest: str
    category: str


def write_answer(proposals: Sequence[Proposal], fields: Sequence[str] = FIELDS) -> str:
    """Write proposals as a model should. fields: all of FIELDS, in the model's order."""
    rows = [{name: getattr(proposal, name) for name in fields} for proposal in proposals]
    return json.dumps({"interests": rows}, ensure_ascii=False)


def named(category: str) -> str:
    """Write a category as it stands between NAMING and NAMED."""
    return json.dumps(category, ensure_ascii=False)[1:-1]


def read_answer(text: str, *, whole: bool = True) -> list[Proposal]:
    """Read the proposals of an answer, in its order.

    Thoughts before </think> and words around the JSON are passed over. whole: the JSON must be complete; otherwise the
    interests that are complete are taken (an answer cut off at its last token). Raises AnswerError.
    """
    spoken = text.rpartition("</think>")[2]
    starts = [match.start() for match in islice(_OPENING.finditer(spoken), _MAX_STARTS)]
    if not starts:
        raise AnswerError(f"answer: found {_shown(spoken)}, expected JSON with a list of interests")
    error: Exception | None = None
    for start in starts:
        try:
            found, _ = json.JSONDecoder().raw_decode(spoken, start)
        except _UNREADABLE as unreadable:
            error = error or unreadable
            continue
        # Words before the answer may hold brackets of their own ("[25-34]"), and an unfinished answer whole rows.
        if isinstance(found, dict) and "interests" in found:
            rows = found["interests"]
            break
        if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
            rows = found
            break
    else:
        if whole or error is None:
            at = _shown(spoken[starts[0] :])
            raise AnswerError(f"answer: found {at}, expected JSON with a list of interests ({error})") from error
        rows = _complete_objects(spoken)
    if not isinstance(rows, list):
        raise AnswerError(f"answer: interests: found {_kind(rows)}, expected a list")
    return [_proposal(row, number) for number, row in enumerate(rows)]


def _proposal(row: object, number: int) -> Proposal:
    if not isinstance(row, dict):
        raise AnswerError(f"answer: interest {number}: found {_kind(row)}, expected an object")
    texts = {}
    for name in FIELDS:
        value = row.get(name, "")
        if not isinstance(value, str):
            raise AnswerError(f"answer: interest {number}: {name}: found {_kind(value)}, expected a text")
        texts[name] = clean_text(value)
    if not texts["interest"] and not texts["category"]:
        raise AnswerError(f"answer: interest {number}: interest, category: found none, expected one of them")
    return Proposal(**texts)


def _complete_objects(text: str) -> list[object]:
    decoder = json.JSONDecoder()
    found: list[object] = []
    at = text.find("{", text.find("[", max(0, text.find('"interests"'))) + 1)
    while at >= 0:
        try:
            row, end = decoder.raw_decode(text, at)
        except _UNREADABLE:
            break
        found.append(row)
        at = text.find("{", end)
    return found


def _kind(value: object) -> str:
    """Name a JSON value's kind; the value itself may be nested too deeply to be written."""
    return {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}.get(
        type(value), "null" if value is None else "a number"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
