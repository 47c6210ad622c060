"""A host's logs and catalogue as one graph: who clicked what, what is known of the items, who holds which interest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

RELATIONS = ("in category", "below", "of brand", "tagged")
"""What leads from an item to its category path, from there to the path above, to its brand and to its tags."""


class Entity(NamedTuple):
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
        times = Counter(entity for _, _, entity in said)
        most = len(catalogue) / 5
        numbers: dict[Entity, int] = {}
        triples: list[tuple[int, int, int]] = []

        def node(entity: Entity) -> int:
            return len(catalogue) + numbers.setdefault(entity, len(numbers))

        for row, relation, entity in said:
            if entity.kind == "category" or 1 < times[entity] <= most:
                triples.append((row, relation, node(entity)))
        paths = {path[:depth] for path in set(catalogue.paths) for depth in range(2, len(path) + 1)}
        triples += [(node(Entity("category", path)), 1, node(Entity("category", path[:-1]))) for path in sorted(paths)]
        return cls(tuple(numbers), np.unique(np.array(triples, np.int64).reshape(-1, 3), axis=0).T.copy())


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
