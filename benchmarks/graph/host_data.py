"""A host's logs in the form of the authors' files: clicks split at random, knowledge and interests made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph.author_files import AuthorData
from benchmarks.graph.validation import hold_out
from serendipity.offline.graph.held_interests import HeldConfig, infer_held_interests
from serendipity.offline.graph.host_graph import Knowledge, host_graph
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, profile_fields

_TEST = 0.2

HoldsOf = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Clicks, [2, E] user and item → interest edges, [2, E] user and interest, inferred from them alone."""


@dataclass(frozen=True)
class HostData(AuthorData):
    """The same of a host.

    holds_of: infers interests again, the numbers of them as chosen on all of train; profile: [2, E] user and attribute
    value, of num_values; attributes: names of the attributes.
    """

    holds_of: HoldsOf
    profile: NDArray[np.int64]
    num_values: int
    attributes: tuple[str, ...]


def read_host_data(logs: Path, num_users: int | None) -> HostData:
    """Split the clicks of a logs directory, of all users or of `num_users` drawn at random.

    A fifth of every user's items is test, drawn at random. Interests are held by the clicks of train alone.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    rng = np.random.default_rng(0)
    if num_users is not None:
        histories = _of_users(histories, np.sort(rng.permutation(np.unique(histories.users))[:num_users]))
    whole = host_graph(histories, catalogue, Knowledge.of(catalogue), np.empty((2, 0), np.int64), 0)
    train, test = hold_out(whole.clicks, _TEST, rng)
    held = infer_held_interests(_of_pairs(histories, train), catalogue, HeldConfig())
    chosen = HeldConfig(num_clusters=(len(held.names),), most_held=(held.most_held,))
    profile, num_values = profile_edges(histories)
    return HostData(
        graph=replace(whole, clicks=train, holds=held.edges, num_interests=len(held.names)),
        test=test,
        holds_of=lambda clicks: infer_held_interests(_of_pairs(histories, clicks), catalogue, chosen).edges,
        profile=profile,
        num_values=num_values,
        attributes=tuple(profile_fields(histories)),
    )


def profile_edges(histories: Histories) -> tuple[NDArray[np.int64], int]:
    """Give an edge for every attribute value of every user, [2, E] user and value, and how many values there are."""
    told = [(name, value) for name, values in profile_fields(histories).items() for value in values]
    numbers = {entry: number for number, entry in enumerate(told)}
    edges = [(user, numbers[entry]) for user, profile in enumerate(histories.profiles) for entry in profile.items()]
    return np.array(edges, np.int64).reshape(-1, 2).T.copy(), len(numbers)


def _of_users(histories: Histories, users: NDArray[np.int64]) -> Histories:
    kept = _where(histories, np.isin(histories.users, users))
    return replace(
        kept,
        user_ids=[histories.user_ids[user] for user in users],
        profiles=[histories.profiles[user] for user in users],
        offsets=np.concatenate([[0], np.cumsum(np.diff(kept.offsets)[users])]),
    )


def _of_pairs(histories: Histories, pairs: NDArray[np.int64]) -> Histories:
    """Keep the clicks of some pairs of user and item row."""
    width = int(max(histories.items.max(), pairs[1].max() + 1)) + 1
    keys = histories.users.astype(np.int64) * width + histories.items
    return _where(histories, np.isin(keys, pairs[0] * width + pairs[1] + 1))


def _where(histories: Histories, kept: NDArray[np.bool_]) -> Histories:
    return replace(
        histories,
        offsets=np.searchsorted(histories.users[kept], np.arange(len(histories) + 1)).astype(np.int64),
        items=histories.items[kept],
        categories=histories.categories[kept],
        times=histories.times[kept],
    )
