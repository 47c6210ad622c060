"""Text that users typed or hosts wrote, before it enters a prompt, a record or a response: bounded and harmless."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_CHARS = 80
"""Characters of one text."""

_KEPT_OF_RAW = 8
"""Characters looked at per character kept: a text of megabytes costs no more than one of lines."""

_DELIMITERS = dict.fromkeys(map(ord, '<>|{}[]\\`;"“”„«»'), " ")
"""What delimits prompts, chat templates, JSON and lists: no text may end the place it is quoted in."""

_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that show nothing (fillers, variation selectors): messages can be hidden in them."""

_ADDRESS = re.compile(r"://|\bwww\.|\w@\w|\w\.[^\W\d]{2,}|\d{3,}\W?\d{3,}", re.IGNORECASE)

_CACHED_CHARS = 4 * MAX_CHARS
_CACHED_TEXTS = 16_384
"""Names of categories come again for every user: 20 times faster remembered. Longer texts are not names."""


def clean_text(text: str, max_chars: int = MAX_CHARS) -> str:
    """Make a text one bounded line of visible characters.

    Unicode is composed (NFKC), so that look-alikes of delimiters become delimiters and go with them; control, format
    (zero-width, right-to-left overrides), private, unassigned and invisible characters go; white space becomes one
    space.
    The result has at most max_chars characters and may be empty. Cleaning it again changes nothing.
    """
    return (_clean_name if len(text) <= _CACHED_CHARS else _clean)(text, max_chars)


def _clean(text: str, max_chars: int) -> str:
    composed = unicodedata.normalize("NFKC", text[: _KEPT_OF_RAW * max_chars]).translate(_DELIMITERS)
    visible = "".join(
        " " if character.isspace() else character
        for character in _IGNORABLE.sub("", composed)
        if character.isspace() or not unicodedata.category(character).startswith("C")
    )
    kept = " ".join(visible.split())[:max_chars].rstrip()
    # Dropping a character between two others can bring together what composes anew.
    return kept if unicodedata.is_normalized("NFKC", kept) else _clean(kept, max_chars)


_clean_name = lru_cache(_CACHED_TEXTS)(_clean)


def comparable(text: str) -> str:
    """Reduce a text to what is compared when names are matched: cleaned, without case, "&" as "and"."""
    return (_compare_name if len(text) <= _CACHED_CHARS else _compare)(text)


def _compare(text: str) -> str:
    return " ".join(clean_text(text).casefold().replace("&", " and ").replace("/", " ").replace("-", " ").split())


_compare_name = lru_cache(_CACHED_TEXTS)(_compare)


def is_name(text: str) -> bool:
    """Tell whether a clean text can be the name of something, not an address to go to or a number to call."""
    return bool(comparable(text)) and not _ADDRESS.search(text)
