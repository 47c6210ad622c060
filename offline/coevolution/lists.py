"""Novel-category lists of a build: which keys get one, and lists.parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.lists import AlignedCategory
from serendipity.groups.sequence import DEFAULT_GROUP, latest_distinct
from serendipity.keys import BACK_OFF, novel_category_key
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.coevolution.coevolution import Coevolution
from serendipity.offline.coevolution.preferences import Told
from serendipity.offline.errors import BuilderError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.parquet import reading, write_rows

LISTS = "lists.parquet"

_COLUMNS = {
    "key": "VARCHAR",
    "group_id": "UINTEGER",
    "m": "UTINYINT",
    "told": "VARCHAR[]",
    "categories": "VARCHAR[]",
    "alignments": "DOUBLE[]",
    "generation": "UINTEGER",
}


class ListsError(BuilderError):
    """Lists cannot be read: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class StoredList:
    """A list and its key. told: names of the m categories it was made for; categories: best aligned first."""

    key: bytes
    group_id: int
    told: tuple[str, ...]
    categories: tuple[AlignedCategory, ...]
    generation: int


def choose_lists(
    histories: Histories,
    group_ids: NDArray[np.int32],
    num_groups: int,
    common_categories: int,
    served_ids: NDArray[np.int32] | None = None,
) -> list[Told]:
    """Tell which lists a build makes: group, and categories (numbers) as the LLMs are told them.

    Those of every user at the end of the logs, m = 3, 2, 1, 0; of every group, the default one included, m = 0 and
    m = 1 for the `common_categories` most clicked categories; of the default group, what users told of no group would
    be asked with. A key is a set, a prompt a sequence: of several orders the commonest is told.
    group_ids: [U], of the users. served_ids: [U], the groups they are asked for by until their own are served too,
    where those differ.
    """
    served = group_ids if served_ids is None else served_ids
    orders: dict[tuple[int, frozenset[int]], Counter[tuple[int, ...]]] = {}

    def want(group: int, recent: tuple[int, ...]) -> None:
        orders.setdefault((group, frozenset(recent)), Counter())[recent] += 1

    for user, group in enumerate(group_ids.tolist()):
        clicks = histories.clicks_before(user, int(np.iinfo(np.int64).max))
        recent = tuple(latest_distinct(clicks))
        for m in BACK_OFF:
            if m <= len(recent):
                for each in {group, int(served[user])}:
                    want(each, recent[:m])
    clicks_by_category = np.bincount(histories.categories)
    clicks_by_category[: NO_CATEGORY + 1] = 0
    common = np.argsort(-clicks_by_category, kind="stable")[:common_categories]
    for group in range(DEFAULT_GROUP, num_groups + 1):
        want(group, ())
        for category in common[clicks_by_category[common] > 0].tolist():
            want(group, (category,))
    return [
        (group, min(found, key=lambda order, found=found: (-found[order], order)))  # type: ignore[misc]
        for (group, _), found in orders.items()
    ]


def make_lists(coevolution: Coevolution, group_model_id: str, told: Sequence[Told]) -> list[StoredList]:
    """Make the lists; one without a category that reaches the threshold is none."""
    found = coevolution.lists([group for group, _ in told], [recent for _, recent in told])
    stored = []
    for (group, recent), categories in zip(told, found, strict=True):
        if categories:
            names = tuple(coevolution.renderer.names(recent))
            key = novel_category_key(group_model_id, group, names)
            stored.append(StoredList(key, group, names, tuple(categories), coevolution.generation))
    return sorted(stored, key=lambda made: made.key)


def write_lists(directory: Path, lists: Sequence[StoredList]) -> None:
    """Write lists.parquet beside and move it into place. Columns: key (hex), group_id, m, told, categories,
    alignments, generation."""
    write_rows(
        directory / LISTS,
        _COLUMNS,
        (
            {
                "key": made.key.hex(),
                "group_id": made.group_id,
                "m": len(made.told),
                "told": list(made.told),
                "categories": [aligned.category for aligned in made.categories],
                "alignments": [aligned.alignment for aligned in made.categories],
                "generation": made.generation,
            }
            for made in lists
        ),
    )


def read_lists(directory: Path) -> list[StoredList]:
    """Read what `write_lists` wrote. Raises ListsError."""
    path = directory / LISTS
    with reading(path, ListsError, "the lists of a build") as query:
        rows = query("SELECT key, group_id, told, categories, alignments, generation FROM read_parquet(?)").fetchall()
    return [
        StoredList(
            bytes.fromhex(key), group, tuple(told), tuple(map(AlignedCategory, categories, alignments)), generation
        )
        for key, group, told, categories, alignments, generation in rows
    ]
