"""A build's interest graph as people look at it: its interests, what a user holds, and all of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from serendipity.offline.graph.host_graph import RELATIONS, Knowledge, host_graph
from serendipity.offline.graph.served_graph import NONE_HELD, ServedGraph, ServedGraphError
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_TELLING = 4


@dataclass(frozen=True)
class DescribedInterest:
    """An interest, how many users hold it, and the titles of the items that tell its holders apart, best first."""

    name: str
    holders: int
    items: tuple[str, ...]


@dataclass(frozen=True)
class DescribedGraph:
    """A graph and the logs it was made of."""

    histories: Histories
    catalogue: Catalogue
    served: ServedGraph

    @classmethod
    def read(cls, build: Path) -> DescribedGraph:
        """Read a build directory. Raises ServedGraphError, LogsError."""
        histories, catalogue = Histories.read(build / "logs"), Catalogue.read(build / "logs")
        served = ServedGraph.read(build / "graph")
        found, expected = (len(served.held), len(served.item_vectors)), (len(histories), len(catalogue))
        if found != expected:
            raise ServedGraphError(
                f"{build / 'graph'}: found {found[0]} users and {found[1]} items, expected {expected[0]} and "
                f"{expected[1]} as in the logs; build it anew"
            )
        return cls(histories, catalogue, served)

    def held_by(self, user_id: str) -> list[str]:
        """Name what a user holds, strongest first; nothing for a user who is not in the logs."""
        user = self.histories.user_numbers.get(user_id)
        return [] if user is None else [self.served.interests[interest] for interest in self.served.held_by(user)]

    def interests(self) -> list[DescribedInterest]:
        """List the interests, most held first.

        An interest's items are ordered by h · log((h / H) / (n / U)): h of its H holders clicked them, n of all U
        users.
        """
        known, (num_users, num_items) = self.histories.items > 0, (len(self.histories), len(self.catalogue))
        rows = self.histories.items[known] - 1
        clicked = sparse.csr_matrix((np.ones(len(rows)), (self.histories.users[known], rows)), (num_users, num_items))
        clicked.data[:] = 1
        holds, speaks = self._incidence(self.served.held), self._incidence(self.served.item_interests)
        # [interests, items]: holders who clicked an item of the interest.
        holders = sparse.csr_matrix((holds.T @ clicked).multiply(speaks.T))
        numbers, users_of = np.asarray(holds.sum(0)).ravel(), np.asarray(clicked.sum(0)).ravel()
        described = []
        for interest in np.argsort(-numbers, kind="stable").tolist():
            row = holders[interest]
            telling = row.data * np.log(row.data * num_users / (numbers[interest] * users_of[row.indices]))
            best = row.indices[np.argsort(-telling, kind="stable")].tolist()
            titles = dict.fromkeys(self.catalogue.titles[item] or self.catalogue.item_ids[item] for item in best)
            described.append(
                DescribedInterest(self.served.interests[interest], int(numbers[interest]), tuple(titles)[:_TELLING])
            )
        return described

    def to_json(self) -> str:
        """Write nodes and typed edges as node-link JSON, a node or an edge a line.

        Nodes: id, kind (user, item, interest, category, brand, tag) and name, of items the title as well; edges:
        source, target and kind (clicks, holds, knowledge), of knowledge the relation as well.
        """
        knowledge = Knowledge.of(self.catalogue)
        users, interests = np.nonzero(self.served.held != NONE_HELD)
        holds = np.stack([users, self.served.held[users, interests]])
        graph = host_graph(self.histories, self.catalogue, knowledge, holds, len(self.served.interests))
        named: list[dict[str, Any]] = [{"kind": "user", "name": user_id} for user_id in self.histories.user_ids]
        items = zip(self.catalogue.item_ids, self.catalogue.titles, strict=True)
        named += [{"kind": "item", "name": item_id, "title": title} for item_id, title in items]
        named += [{"kind": kind, "name": " > ".join(name)} for kind, name in knowledge.entities]
        named += [{"kind": "interest", "name": name} for name in self.served.interests]
        nodes = ({"id": node, **fields} for node, fields in enumerate(named))
        first = {"clicks": graph.num_users, "holds": graph.first_interest}
        edges = [
            {"source": source, "target": first[kind] + target, "kind": kind}
            for kind, pairs in (("clicks", graph.clicks), ("holds", graph.holds))
            for source, target in pairs.T.tolist()
        ]
        edges += [
            {
                "source": graph.num_users + head,
                "target": graph.num_users + tail,
                "kind": "knowledge",
                "relation": RELATIONS[relation],
            }
            for head, relation, tail in graph.knowledge.T.tolist()
        ]
        return f'{{"directed": false, "nodes": [\n{_lines(nodes)}\n], "edges": [\n{_lines(edges)}\n]}}\n'

    def _incidence(self, interests: NDArray[np.int32]) -> sparse.csr_matrix:
        rows, places = np.nonzero(interests != NONE_HELD)
        shape = (len(interests), len(self.served.interests))
        return sparse.csr_matrix((np.ones(len(rows)), (rows, interests[rows, places])), shape)


def _lines(some: Iterable[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(fields, ensure_ascii=False) for fields in some)
