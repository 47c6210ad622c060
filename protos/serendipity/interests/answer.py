"""How a language model's answer is read: JSON with a path seed → demand → interest and a category per interest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serendipity.interests.text import MAX_CHARS, clean_text

FIELDS = ("seed", "demand", "interest", "category")
"""Fields of one interest, in the order they are written: the reasoning first."""


class AnswerError(Exception):
    """An answer cannot be read: says where, what was found and what was expected."""


@dataclass(frozen=True)
class Proposal:
    """A latent interest as a model names it, unchecked: texts are clean, and interest or category is not empty."""

    seed: str
    demand: str
    interest: str
    category: str


def write_answer(proposals: Sequence[Proposal]) -> str:
    """Write proposals as a model should."""
    rows = [{name: getattr(proposal, name) for name in FIELDS} for proposal in proposals]
    return json.dumps({"interests": rows}, ensure_ascii=False)


def read_answer(text: str, *, whole: bool = True) -> list[Proposal]:
    """Read the proposals of an answer, in its order.

    Thoughts before </think> and words around the JSON are passed over. whole: the JSON must be complete; otherwise the
    interests that are complete are taken (an answer cut off at its last token). Raises AnswerError.
    """
    spoken = text.rpartition("</think>")[2]
    start = min((at for at in (spoken.find("{"), spoken.find("[")) if at >= 0), default=-1)
    if start < 0:
        raise AnswerError(f"answer: found {_shown(spoken)}, expected JSON with a list of interests")
    try:
        found, _ = json.JSONDecoder().raw_decode(spoken, start)
    except (json.JSONDecodeError, RecursionError) as error:
        if whole:
            raise AnswerError(f"answer: not JSON ({error}): {_shown(spoken[start:])}") from error
        found = _complete_objects(spoken[start:])
    rows = found.get("interests") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise AnswerError(f"answer: interests: found {_shown(json.dumps(rows))}, expected a list")
    return [_proposal(row, number) for number, row in enumerate(rows)]


def answer_schema(categories: Sequence[str], num_interests: int) -> dict[str, Any]:
    """Give the JSON schema of answers: the shape and the category are fixed, the texts free and bounded.

    categories: names of the top-level categories an answer may name.
    """
    text = {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}
    row = {
        "type": "object",
        "properties": {**dict.fromkeys(FIELDS[:-1], text), "category": {"enum": list(categories)}},
        "required": list(FIELDS),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"interests": {"type": "array", "items": row, "minItems": 1, "maxItems": num_interests}},
        "required": ["interests"],
        "additionalProperties": False,
    }


def _proposal(row: object, number: int) -> Proposal:
    if not isinstance(row, dict):
        raise AnswerError(f"answer: interest {number}: found {_shown(json.dumps(row))}, expected an object")
    texts = {}
    for name in FIELDS:
        value = row.get(name, "")
        if not isinstance(value, str):
            raise AnswerError(f"answer: interest {number}: {name}: found {_shown(json.dumps(value))}, expected a text")
        texts[name] = clean_text(value)
    if not texts["interest"] and not texts["category"]:
        raise AnswerError(f"answer: interest {number}: interest, category: found none, expected one of them")
    return Proposal(**texts)


def _complete_objects(text: str) -> list[object]:
    decoder = json.JSONDecoder()
    found: list[object] = []
    at = text.find("{", text.find("[") + 1)
    while at >= 0:
        try:
            row, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            break
        found.append(row)
        at = text.find("{", end)
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
