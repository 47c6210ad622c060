"""What an id may be: of a user, of an item, and the name of a category, wherever one comes in."""

from __future__ import annotations

import re

MAX_ID_LENGTH = 512
"""Characters (code points) of an id."""

CONTROL_CHARACTERS = r"[\x00-\x1f\x7f-\x9f]"
"""Regular expression, for Python and for DuckDB alike, of what no id holds."""

# Half a surrogate pair is text in Python (an argument of the command line that is no UTF-8) and nowhere else.
_REFUSED = re.compile(rf"{CONTROL_CHARACTERS}|[\ud800-\udfff]")


def id_fault(text: str, most: int = MAX_ID_LENGTH) -> str:
    """Say what is wrong with an id: what was found and what was expected; empty if it is one. most: characters."""
    if not 1 <= len(text) <= most:
        return f"found {len(text)} characters, expected 1 to {most}"
    if refused := _REFUSED.search(text):
        return f"found {refused.group()!r}, expected valid UTF-8 without control characters"
    return ""
