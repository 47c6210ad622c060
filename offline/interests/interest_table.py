"""interests.parquet: every user's latent interests with their paths, best first; under NULL those of nobody known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from serendipity.interests.reasoner import Interest, InterestPath
from serendipity.offline.errors import BuilderError
from serendipity.offline.parquet import reading, write_rows

INTERESTS = "interests.parquet"

_TYPES = {
    "user_id": "VARCHAR",
    "interests": "STRUCT(node_id UINTEGER, weight FLOAT, seed_kind UTINYINT, seed VARCHAR, core_demand VARCHAR, "
    "latent_interest VARCHAR, relation UTINYINT, score FLOAT)[]",
}


class InterestTableError(BuilderError):
    """The table of interests cannot be read: names the file, what was found and what was expected."""


def write_interests(interests: Path, found: Iterable[tuple[str | None, Sequence[Interest]]]) -> None:
    """Write interests.parquet below an interests directory; users without interests are left out."""
    rows = (
        {
            "user_id": user_id,
            "interests": [{"node_id": i.node_id, "weight": i.weight, **vars(i.path)} for i in of_user],
        }
        for user_id, of_user in found
        if of_user or user_id is None
    )
    write_rows(interests / INTERESTS, _TYPES, rows)


def read_interests(interests: Path) -> dict[str | None, list[Interest]]:
    """Read every user's interests. Raises InterestTableError."""
    with reading(interests / INTERESTS, InterestTableError, "the output of the interests builder") as query:
        rows = query("SELECT user_id, interests FROM read_parquet(?)").fetchall()
    return {
        user_id: [Interest(row.pop("node_id"), row.pop("weight"), InterestPath(**row)) for row in of_user]
        for user_id, of_user in rows
    }
