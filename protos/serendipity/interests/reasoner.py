"""The reasoner interface: what is known of users in, grounded latent interests with their paths out.

Every reasoner, with or without a language model, is called in batches and answers with nodes of the catalogue's
taxonomy: what does not ground in it never leaves the reasoner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serendipity.features import LongHistory
from serendipity.novelty import Clicks
from serendipity.v1 import records_pb2

MAX_INTERESTS = 16
"""Latent interests a user has at most (K)."""


@dataclass(frozen=True)
class UserContext:
    """What is known of a user at a moment; everything in it happened strictly before `now`.

    clicks: latest 200, newest first; long_history: every top-level category ever clicked; searches: (query, Unix
    seconds), newest first; profile: attribute → value; now: Unix seconds; signals: (item row + 1, Unix seconds)
    of views and the like, newest first.
    """

    user_id: str
    clicks: Clicks
    long_history: LongHistory
    now: int
    searches: Sequence[tuple[str, int]] = ()
    profile: Mapping[str, str] = field(default_factory=dict)
    signals: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class InterestPath:
    """How an interest was reached in two hops: seed → core demand (hypernym) → latent interest (hyponym, co-hyponym).

    The fields are those of the stored record of the same name. score: 0 … 1.
    """

    seed_kind: records_pb2.SeedKind
    seed: str
    core_demand: str
    latent_interest: str
    relation: records_pb2.Relation
    score: float


@dataclass(frozen=True)
class Interest:
    """A latent interest: a taxonomy node, its weight (0 … 1) and the path to it."""

    node_id: int
    weight: float
    path: InterestPath


class Reasoner(Protocol):
    """Finds latent interests."""

    @property
    def name(self) -> str:
        """Name that is stored beside what it finds."""
        ...

    def reason(self, users: Sequence[UserContext], k: int = MAX_INTERESTS) -> list[list[Interest]]:
        """Find at most k interests of every user, best first, each node once; the answer keeps the users' order."""
        ...
