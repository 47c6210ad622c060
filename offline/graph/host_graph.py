"""A host's logs and catalogue as one graph: who clicked what, what is known of the items, who holds which interest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

RELATIONS = ("in category", "below", "of brand", "tagged")
"""What leads from an item to its category path, from there to the path above, to its brand and to its tags."""


@dataclass(frozen=True)
class Entity:
    """What items have in common. kind: "category", "brand" or "tag"; name: of a category the path, from the top."""

    kind: str
    name: tuple[str, ...]


@dataclass(frozen=True)
class Knowledge:
    """What is known of the n items of a catalogue.

    entities: by number. triples: [3, E] int64 head, relation (in RELATIONS) and tail; heads and tails are item rows,
    and n + the number of an entity.
    """

    entities: tuple[Entity, ...]
    triples: NDArray[np.int64]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Knowledge:
        """Read category paths, brands and tags. A brand or tag of one item, or of more than a fifth of them, tells
        nothing of how items belong together, and is left out; a path is not, since what lies above it is told as
        well."""
        said = [fact for row in range(len(catalogue)) for fact in _facts(catalogue, row)]
        times: dict[Entity, int] = {}
        for _, _, entity in said:
            times[entity] = times.get(entity, 0) + 1
        most = len(catalogue) / 5
        numbers: dict[Entity, int] = {}
        triples: dict[tuple[int, int, int], None] = {}

        def node(entity: Entity) -> int:
            return len(catalogue) + numbers.setdefault(entity, len(numbers))

        for row, relation, entity in said:
            if entity.kind != "category" and not 1 < times[entity] <= most:
                continue
            triples[row, relation, node(entity)] = None
            for depth in range(len(entity.name) - 1, 0, -1):
                below, above = (Entity("category", entity.name[:level]) for level in (depth + 1, depth))
                triples[node(below), 1, node(above)] = None
        return cls(tuple(numbers), np.array(list(triples), np.int64).reshape(-1, 3).T.copy())


def host_graph(
    histories: Histories, catalogue: Catalogue, knowledge: Knowledge, holds: NDArray[np.int64], num_interests: int
) -> InterestGraph:
    """Join them. holds: [2, E] user and interest. Clicks on items that are not in the catalogue are left out."""
    known = histories.items > 0
    clicks = np.stack([histories.users[known].astype(np.int64), histories.items[known] - 1])
    return InterestGraph(
        num_users=len(histories),
        num_items=len(catalogue),
        num_entities=len(knowledge.entities),
        num_interests=num_interests,
        clicks=np.stack(np.divmod(np.unique(clicks[0] * len(catalogue) + clicks[1]), len(catalogue))),
        holds=holds,
        knowledge=knowledge.triples,
    )


def _facts(catalogue: Catalogue, row: int) -> Iterator[tuple[int, int, Entity]]:
    if catalogue.paths[row]:
        yield row, 0, Entity("category", catalogue.paths[row])
    if catalogue.brands[row]:
        yield row, 2, Entity("brand", (catalogue.brands[row],))
    for tag in catalogue.tags[row]:
        yield row, 3, Entity("tag", (tag,))
