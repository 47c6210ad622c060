"""From what the builders made, as of a moment, to the contents of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serendipity.features import FeatureAssembler, LongHistory, TowerInputs
from serendipity.interests.facts import SIGNAL_DAYS
from serendipity.interests.life import expires_at
from serendipity.interests.reasoner import Interest
from serendipity.interests.text import clean_text
from serendipity.novelty import Clicks
from serendipity.offline.coevolution.lists import StoredList
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.groups.group_model import Assignment
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.histories import Histories
from serendipity.offline.snapshot.contents import MAX_LONG_CATEGORIES, ContentsError, taxonomy_number
from serendipity.v1 import records_pb2

MAX_SIGNALS = 50
"""Searches a user's signals hold at most, and as many items."""

UserTower = Callable[[TowerInputs], NDArray[np.float32]]
"""Exported user tower: B users → [B, 1 + k, d] float32."""


def known_users(histories: Histories, moment: int) -> list[int]:
    """Numbers of the users of whom something is known before a moment: a click, a search, a signal or a profile."""
    known = np.array([bool(profile) for profile in histories.profiles], np.bool_)
    known[histories.users[histories.times < moment]] = True
    searchers = np.repeat(np.arange(len(histories)), np.diff(histories.search_offsets))
    known[searchers[histories.search_times < moment]] = True
    if len(histories.signal_items):
        signallers = np.repeat(np.arange(len(histories)), np.diff(histories.signal_offsets))
        known[signallers[histories.signal_times < moment]] = True
    users: list[int] = np.flatnonzero(known).tolist()
    return users


class UserRecords(Mapping[str, records_pb2.UserRecord]):
    """Users' records as of a moment, made when asked for: they would fill the memory together."""

    def __init__(
        self,
        histories: Histories,
        users: Sequence[int],
        moment: int,
        assembler: FeatureAssembler,
        vectors: NDArray[np.float16],
        groups: Assignment | None = None,
        graph: ServedGraph | None = None,
    ) -> None:
        """Take users (numbers), their stored vectors, [len(users), d], and groups and graph of all users."""
        self._histories = histories
        self._moment = moment
        self._assembler = assembler
        self._vectors = vectors
        self._groups = groups
        self._graph = graph
        self._place = {histories.user_ids[user]: i for i, user in enumerate(users)}

    def __len__(self) -> int:
        return len(self._place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __getitem__(self, user_id: str) -> records_pb2.UserRecord:
        place = self._place[user_id]
        user = self._histories.user_numbers[user_id]
        clicks = self._histories.clicks_before(user, self._moment)
        long = self._histories.long_history_before(user, self._moment)
        most = slice(MAX_LONG_CATEGORIES)
        group_id = 0 if self._groups is None else int(self._groups.group_id[user])
        return records_pb2.UserRecord(
            click_items=clicks.items.tolist(),
            click_categories=clicks.categories.tolist(),
            click_times=clicks.times.tolist(),
            profile=self._assembler.encode_profile(self._histories.profiles[user]).tolist(),
            user_vector=self._vectors[place].astype("<f2").tobytes(),
            long_categories=long.categories[most].tolist(),
            long_counts=long.counts[most].tolist(),
            long_last_times=long.last_times[most].tolist(),
            csid=self._groups.csid[user].tolist() if self._groups is not None and group_id else [],
            group_id=group_id,
            held_interests=[] if self._graph is None else self._graph.held_by(user),
        )


def stored_vectors(
    tower: UserTower,
    histories: Histories,
    users: Sequence[int],
    moment: int,
    assembler: FeatureAssembler,
    *,
    batch: int = 256,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float16]:
    """Run the tower for every user alone: [len(users), d] float16, what serves while the tower is away.

    Raises ValueError when a vector does not fit into float16.
    """
    parts: list[NDArray[np.float16]] = []
    nothing = np.empty((0, assembler.interest_dim), np.float32)
    for start in range(0, len(users), batch):
        some = users[start : start + batch]
        inputs = TowerInputs.stack(
            [
                assembler.assemble(
                    histories.clicks_before(user, moment),
                    histories.long_history_before(user, moment),
                    assembler.encode_profile(histories.profiles[user]),
                    nothing,
                    moment,
                )
                for user in some
            ]
        )
        parts.append(_half(tower(inputs)[:, 0]))
        advance(len(some))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float16)


def cold_record(tower: UserTower, assembler: FeatureAssembler, moment: int) -> records_pb2.UserRecord:
    """Make the record of a user nothing is known of."""
    inputs = assembler.assemble(
        Clicks.empty(),
        LongHistory.empty(),
        assembler.encode_profile({}),
        np.empty((0, assembler.interest_dim), np.float32),
        moment,
    )
    return records_pb2.UserRecord(
        profile=assembler.encode_profile({}).tolist(), user_vector=_half(tower(inputs)[:, 0])[0].astype("<f2").tobytes()
    )


def interests_record(
    user_id: str, interests: Sequence[Interest], taxonomy_hash: str, generated_at: int
) -> records_pb2.InterestsRecord:
    """Make the hot record of one user's interests: ids and weights in 1/1000. generated_at: Unix seconds."""
    return records_pb2.InterestsRecord(
        node_ids=[interest.node_id for interest in interests],
        weights=[round(1000 * min(max(interest.weight, 0.0), 1.0)) for interest in interests],
        generated_at=generated_at,
        expires_at=expires_at(user_id, generated_at),
        taxonomy_hash=taxonomy_number(taxonomy_hash),
    )


def interest_paths_record(interests: Sequence[Interest], reasoner: str) -> records_pb2.InterestPathsRecord:
    """Make the record of how one user's interests were reached."""
    paths = [
        records_pb2.InterestPath(
            seed_kind=interest.path.seed_kind,
            seed=interest.path.seed,
            core_demand=interest.path.core_demand,
            latent_interest=interest.path.latent_interest,
            relation=interest.path.relation,
            score=interest.path.score,
        )
        for interest in interests
    ]
    return records_pb2.InterestPathsRecord(paths=paths, reasoner=reasoner)


def signals_record(histories: Histories, user: int, moment: int) -> records_pb2.UserSignalsRecord:
    """Make the record of what near-line prompts are told of a user (number) beside the clicks, as of a moment.

    Searches are cleaned; one that was typed before, or has nothing left, is passed over. The record may be empty.
    """
    asked: dict[str, int] = {}
    for query, time in histories.searches_before(user, moment, SIGNAL_DAYS):
        asked.setdefault(clean_text(query), time)
    asked.pop("", None)
    searches = [records_pb2.Search(query=query, time=time) for query, time in asked.items()]
    signals = histories.signals_before(user, moment, SIGNAL_DAYS)[:MAX_SIGNALS]
    return records_pb2.UserSignalsRecord(
        searches=searches[:MAX_SIGNALS],
        items=[item for item, _ in signals],
        item_times=[time for _, time in signals],
    )


def node_records(taxonomy: Taxonomy) -> list[records_pb2.InterestNode]:
    """Make the records of the vocabulary's nodes, by id."""
    return [
        records_pb2.InterestNode(
            node_id=node.node_id,
            name=node.name,
            path=node.path,
            starts=[start for start, _ in node.ranges],
            ends=[end for _, end in node.ranges],
            aliases=node.aliases,
            origin=node.origin,
            categories=node.categories,
        )
        for node in taxonomy.nodes
    ]


def novel_categories_records(
    lists: Sequence[StoredList], categories: Sequence[str], spec: records_pb2.CoevolutionSpec, generated_at: int
) -> dict[bytes, records_pb2.NovelCategoriesRecord]:
    """Make the records of the lists, by key. generated_at: Unix seconds.

    Raises ContentsError when a list names a category that the catalogue lacks.
    """
    numbers = {name: number for number, name in enumerate(categories, start=1)}
    strangers = [found.category for made in lists for found in made.categories if found.category not in numbers]
    if strangers:
        raise ContentsError(f"novel_categories: found {strangers[0]!r}, expected a category of the catalogue")
    return {
        made.key: records_pb2.NovelCategoriesRecord(
            categories=[numbers[found.category] for found in made.categories],
            scores=[found.alignment for found in made.categories],
            generated_at=generated_at,
            group_model_id=spec.group_model_id,
            generation=made.generation,
            taxonomy_hash=taxonomy_number(spec.taxonomy_hash),
        )
        for made in lists
    }


def _half(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(
            f"stored user vectors: found {float(np.abs(vectors).max()):g}, expected at most 65504, which float16 holds"
        )
    return half
