"""Reads a graph from the files the authors of CIKG publish (DBbook2014, Book-Crossing, MovieLens-1M).

`train.txt` and `test.txt`: a user and the user's items a line. `kg_final.txt`: head, relation, tail. Interests in
`user_interest_clustered.txt` are numbered after items and entities: a user and an interest a line. The four lists
(`user_list.txt`, …) have a line per user, item, entity and relation, under a line that names their columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph


@dataclass(frozen=True)
class AuthorData:
    """A graph whose clicks are those of train.txt, and the clicks to be found: test, [2, E] user and item."""

    graph: InterestGraph
    test: NDArray[np.int64]


def read_author_files(folder: Path) -> AuthorData:
    """Read a folder of the authors'.

    Raises GraphError, naming file and line, for a file that is not there, a line that is not whole numbers, has too few
    or too many, or names a user, item, entity, relation or interest that does not exist.
    """
    users = _count(folder / "user_list.txt")
    items = _count(folder / "item_list.txt")
    known = _count(folder / "entity_list.txt")
    relations = _count(folder / "relation_list.txt")
    if known < items:
        raise GraphError(
            f"{folder / 'entity_list.txt'}: found {known} entities, expected at least the {items} of item_list.txt"
        )
    clicks = _read_clicks(folder / "train.txt", users, items)
    test = _read_clicks(folder / "test.txt", users, items)
    knowledge = _read_columns(
        folder / "kg_final.txt", (("head", 0, known), ("relation", 0, relations), ("tail", 0, known))
    )
    holds = _read_columns(folder / "user_interest_clustered.txt", (("user", 0, users), ("interest", known, None)))
    holds[1] -= known
    interests = int(holds[1].max()) + 1 if holds.shape[1] else 0
    return AuthorData(InterestGraph(users, items, known - items, interests, clicks, holds, knowledge), test)


def _count(path: Path) -> int:
    return sum(1 for _ in _lines(path)) - 1


def _read_clicks(path: Path, users: int, items: int) -> NDArray[np.int64]:
    pairs: list[tuple[int, int]] = []
    for number, line in _lines(path):
        user, *clicked = _integers(path, number, line)
        _check(path, number, "user", user, 0, users)
        for item in clicked:
            _check(path, number, "item", item, 0, items)
        pairs.extend((user, item) for item in clicked)
    return np.array(pairs, np.int64).reshape(-1, 2).T.copy()


def _read_columns(path: Path, columns: tuple[tuple[str, int, int | None], ...]) -> NDArray[np.int64]:
    rows: list[list[int]] = []
    for number, line in _lines(path):
        values = _integers(path, number, line)
        if len(values) != len(columns):
            names = ", ".join(name for name, _, _ in columns)
            raise GraphError(f"{path}, line {number}: found {len(values)} numbers, expected {len(columns)}: {names}")
        for value, (name, first, end) in zip(values, columns, strict=True):
            _check(path, number, name, value, first, end)
        rows.append(values)
    return np.array(rows, np.int64).reshape(-1, len(columns)).T.copy()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give the lines that are not blank, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise GraphError(f"{path}: cannot be read ({error.strerror}), expected a file of the authors'") from error
    except UnicodeDecodeError as error:
        raise GraphError(f"{path}: found bytes that are not UTF-8 ({error.reason}), expected text") from error


def _integers(path: Path, number: int, line: str) -> list[int]:
    try:
        return [int(word) for word in line.split()]
    except ValueError as error:
        raise GraphError(f"{path}, line {number}: found {line.strip()[:60]!r}, expected whole numbers") from error


def _check(path: Path, number: int, name: str, value: int, first: int, end: int | None) -> None:
    if value < first or (end is not None and value >= end):
        bounds = f"of {first} to {end - 1}" if end is not None else f"of {first} or more"
        raise GraphError(f"{path}, line {number}: found {name} {value}, expected one {bounds}")
