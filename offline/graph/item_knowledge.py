"""Triples about items as RecBole's data sets carry them (ml-100k: a part of Freebase), laid onto a catalogue.

`NAME.kg` has head, relation and tail a line, `NAME.link` an item and the entity that it is; tabs part them, and a first
line names the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.graph.interest_graph import GraphError


@dataclass(frozen=True)
class ItemKnowledge:
    """Triples of a catalogue. entities, relations: names, by number.

    triples: [3, E] head, relation, tail; heads and tails are rows of the catalogue and then entities, from its length.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    triples: NDArray[np.int64]


def read_recbole_knowledge(kg: Path, link: Path, item_ids: Sequence[str]) -> ItemKnowledge:
    """Read triples and lay them onto a catalogue, by item ids in its order; links of other items are left out.

    Raises GraphError, naming file and line, for a file that cannot be read and a line with too few or too many columns.
    """
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    numbers = {entity: rows[item] for item, entity in _rows(link, ("item", "entity")) if item in rows}
    relations: dict[str, int] = {}
    entities: dict[str, int] = {}
    triples = []
    for head, relation, tail in _rows(kg, ("head", "relation", "tail")):
        for entity in (head, tail):
            if entity not in numbers:
                numbers[entity] = len(rows) + len(entities)
                entities[entity] = numbers[entity]
        triples.append((numbers[head], relations.setdefault(relation, len(relations)), numbers[tail]))
    columns = np.array(triples, np.int64).reshape(-1, 3).T.copy()
    return ItemKnowledge(tuple(entities), tuple(relations), columns)


def _rows(path: Path, names: tuple[str, ...]) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                words = line.rstrip("\r\n").split("\t")
                if len(words) != len(names) or not all(words):
                    expected = f"{', '.join(names)} parted by tabs"
                    raise GraphError(f"{path}, line {number}: found {line.rstrip()[:60]!r}, expected {expected}")
                if number > 1:
                    yield words
    except OSError as error:
        raise GraphError(f"{path}: cannot be read ({error.strerror}), expected a file of RecBole's") from error
    except UnicodeDecodeError as error:
        raise GraphError(f"{path}: found bytes that are not UTF-8 ({error.reason}), expected text") from error
