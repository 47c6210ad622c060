"""Sources propose, the pool of that is filtered, sources score it: together, and when one of them fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.filters import FILTERS
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.places import Places
from serendipity.channel.recall.pool import UserVectors
from serendipity.channel.recall.query import SOURCES, RecallQuery, SourceBounds, source_name
from serendipity.channel.recall.recall import Channel
from serendipity.channel.recall.scorer import NOT_FOUND, score
from serendipity.channel.recall.search import CANDIDATE_SOURCES, Found, search
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.snapshot.vectors import ItemVectors
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import DIM, NOW, NUM_ITEMS, SmallWorld

I2I, U2I, GROUP, GRAPH = SOURCES

BY_SOURCE = dict(zip(SOURCES, CANDIDATE_SOURCES, strict=True))

WANTED = 20


@pytest.fixture
def user_id(small_world: SmallWorld) -> str:
    return max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))


def read(snapshot: Snapshot, user_id: str, excluded: tuple[pb.Source, ...] = (), **fields: object) -> Hydrated:
    bounds = {source: SourceBounds(0, 0) for source in excluded}
    query = RecallQuery(user_id=user_id, count=10, now=NOW, source_bounds=bounds, **fields)  # type: ignore[arg-type]
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, UserState(), ChannelSettings())


def some_vectors(user: Hydrated) -> UserVectors:
    rows = np.random.default_rng(0).normal(size=(1 + len(user.interests), DIM)).astype(np.float32)
    return UserVectors(rows, fallback=False)


def find(snapshot: Snapshot, user: Hydrated, wanted: int = WANTED) -> Found:
    return search(snapshot, user, some_vectors(user), wanted)


def states(found: Found) -> dict[pb.Source, pb.SourceState]:
    return {status.source: status.state for status in found.statuses}


def counts(found: Found) -> dict[str, int]:
    return {count.filter: count.removed for count in found.filter_counts}


ALL_OK = dict.fromkeys(SOURCES, pb.SOURCE_STATE_OK)


def test_every_source_proposes_its_best_and_ranks_what_any_of_them_proposed(
    grouped_snapshot: Snapshot, user_id: str
) -> None:
    user = read(grouped_snapshot, user_id)
    found = find(grouped_snapshot, user)
    assert states(found) == ALL_OK
    assert list(found.finds) == list(SOURCES)
    assert found.failures == []
    proposed = {
        source.source: set(source.propose(grouped_snapshot, user, some_vectors(user), WANTED).tolist())
        for source in CANDIDATE_SOURCES
    }
    assert found.pool.rows.tolist() == sorted(set().union(*proposed.values()))
    of_source = {source: set(found.pool.rows[finds.found].tolist()) for source, finds in found.finds.items()}
    assert user.folded is not None
    rows = found.pool.rows
    assert of_source == {
        I2I: set(rows.tolist()),
        # Whatever is near the user is among its proposals already.
        U2I: proposed[U2I],
        GROUP: set(rows[np.isin(found.pool.categories, user.novel_categories.numbers)].tolist()),
        GRAPH: set(rows[user.folded.scores(rows) > 0].tolist()),
    }


def test_statuses_tell_what_was_asked_for_and_found(grouped_snapshot: Snapshot, user_id: str) -> None:
    user = read(grouped_snapshot, user_id)
    found = find(grouped_snapshot, user)
    for status in found.statuses:
        assert status.requested == WANTED
        assert status.found == min(WANTED, int(found.finds[status.source].found.sum()))
        assert status.elapsed.ToNanoseconds() > 0
        expected = user.novel_categories.key if status.source == GROUP else pb.NOVEL_CATEGORY_KEY_UNSPECIFIED
        assert status.novel_category_key == expected
    # Of three items that may be shown nobody finds more.
    three = replace(user, unavailable=np.ones(NUM_ITEMS, np.bool_))
    three.unavailable[user.ranges.rows()[:3]] = False
    few = find(grouped_snapshot, three)
    assert [status.found for status in few.statuses][:2] == [3, 3]
    assert len(few.pool) == 3


def test_novelty_lists_and_stock_restrict_the_search_itself(
    small_world: SmallWorld, grouped_snapshot: Snapshot
) -> None:
    """The filters only prove it: there is nothing for them to remove."""
    names = small_world.contents.catalogue.categories
    for user_id in [*small_world.user_ids, "nobody"]:
        for allow, deny in ((), ()), (names[:7], ()), ((), names[4:9]):
            user = read(grouped_snapshot, user_id, allow_categories=allow, deny_categories=deny)
            found = find(grouped_snapshot, user, wanted=400)
            assert counts(found) == dict.fromkeys(FILTERS, 0)
            assert found.pool.novel.all()


@pytest.mark.parametrize("rogue", SOURCES, ids=source_name)
def test_a_source_that_proposes_anything_gets_nothing_past_the_filters(
    grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch, rogue: pb.Source
) -> None:
    def everything(*_: object) -> NDArray[np.int64]:
        return np.arange(NUM_ITEMS)

    monkeypatch.setattr(BY_SOURCE[rogue], "propose", everything)
    plain = read(grouped_snapshot, user_id)
    user = replace(plain, excluded=plain.ranges.rows()[:7], served=plain.ranges.rows()[5:16])
    found = find(grouped_snapshot, user)
    allowed = set(user.ranges.rows().tolist()) - set(user.excluded.tolist()) - set(user.served.tolist())
    sold = set(np.flatnonzero(user.unavailable).tolist())
    assert set(found.pool.rows.tolist()) == allowed - sold
    assert sum(counts(found).values()) == NUM_ITEMS - len(found.pool)
    assert counts(found)["novelty"] == NUM_ITEMS - len(user.ranges)
    result = score(found.pool, found.finds, user, grouped_snapshot.merge, 1_000)
    assert set(result.rows.tolist()) == allowed - sold


def test_a_source_that_is_excluded_is_not_asked_and_neither_is_one_without_queries(
    snapshot: Snapshot, grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[pb.Source, str]] = []

    def spy(real: Callable[..., object], call: tuple[pb.Source, str], *arguments: object) -> object:
        asked.append(call)
        return real(*arguments)

    for source in CANDIDATE_SOURCES:
        for part in ("propose", "score"):
            monkeypatch.setattr(source, part, partial(spy, getattr(source, part), (source.source, part)))
    found = find(grouped_snapshot, read(grouped_snapshot, user_id, excluded=(I2I,)))
    assert asked == [(source, part) for part in ("propose", "score") for source in (U2I, GROUP, GRAPH)]
    assert (found.statuses[0].state, found.statuses[0].requested) == (pb.SOURCE_STATE_EMPTY, 0)
    asked.clear()
    # A snapshot without groups has no lists, and this one no graph either.
    found = find(snapshot, read(snapshot, user_id))
    assert asked == [(I2I, "propose"), (U2I, "propose"), (I2I, "score"), (U2I, "score")]
    nothing = dict.fromkeys((GROUP, GRAPH), pb.SOURCE_STATE_EMPTY)
    assert states(found) == {I2I: pb.SOURCE_STATE_OK, U2I: pb.SOURCE_STATE_OK, **nothing}
    assert found.failures == []


def test_interests_alone_find_what_lies_near_the_user_as_well(grouped_snapshot: Snapshot, user_id: str) -> None:
    user = read(grouped_snapshot, user_id, excluded=(U2I, GROUP, GRAPH))
    found = find(grouped_snapshot, user)
    assert list(found.finds) == [I2I]
    near = BY_SOURCE[U2I].propose(grouped_snapshot, user, some_vectors(user), WANTED)
    assert set(near.tolist()) <= set(found.pool.rows.tolist())
    assert (~found.pool.grounded.any(axis=1)).any()
    assert found.pool.grounded.any()
    # The group source names its categories, and looks nowhere else.
    only_group = find(grouped_snapshot, read(grouped_snapshot, user_id, excluded=(I2I, U2I, GRAPH)))
    assert set(only_group.pool.categories.tolist()) <= set(user_numbers(grouped_snapshot, user_id))


def user_numbers(snapshot: Snapshot, user_id: str) -> list[int]:
    return list(map(int, read(snapshot, user_id).novel_categories.numbers))


def test_without_any_source_nothing_is_found(grouped_snapshot: Snapshot, user_id: str) -> None:
    found = find(grouped_snapshot, read(grouped_snapshot, user_id, excluded=SOURCES))
    assert set(states(found).values()) == {pb.SOURCE_STATE_EMPTY}
    assert (len(found.pool), dict(found.finds), found.failures) == (0, {}, [])
    assert counts(found) == dict.fromkeys(FILTERS, 0)


def test_without_vectors_only_the_graph_is_searched_and_the_others_say_why(
    grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = (I2I, U2I, GROUP)
    for source in near:
        monkeypatch.setattr(BY_SOURCE[source], "propose", lambda *_: pytest.fail("searched"))
    user = read(grouped_snapshot, user_id)
    found = search(grouped_snapshot, user, None, WANTED)
    assert states(found) == {**dict.fromkeys(near, pb.SOURCE_STATE_UNAVAILABLE), GRAPH: pb.SOURCE_STATE_OK}
    why = "neither the user tower nor a stored user vector"
    assert found.failures == [f"{source_name(source)}: {why}" for source in near]
    assert [status.found for status in found.statuses] == [0, 0, 0, WANTED]
    assert counts(found) == dict.fromkeys(FILTERS, 0)
    # What it finds is what it finds beside the others.
    assert user.folded is not None
    np.testing.assert_array_equal(found.finds[GRAPH].raw, user.folded.scores(found.pool.rows))
    # A snapshot without a graph finds nothing.
    found = search(grouped_snapshot, replace(user, folded=None), None, WANTED)
    assert (len(found.pool), states(found)[GRAPH]) == (0, pb.SOURCE_STATE_EMPTY)
    # What is excluded is not missed.
    found = search(grouped_snapshot, read(grouped_snapshot, user_id, excluded=(U2I,)), None, WANTED)
    assert states(found)[U2I] == pb.SOURCE_STATE_EMPTY
    assert len(found.failures) == 2


@pytest.mark.parametrize("part", ["propose", "score"])
@pytest.mark.parametrize("broken", SOURCES, ids=source_name)
def test_a_source_that_breaks_is_told_and_not_asked_again(
    grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch, broken: pb.Source, part: str
) -> None:
    calls: list[str] = []

    def fail(*_: object) -> None:
        calls.append(part)
        raise ZeroDivisionError("as scripted")

    user = read(grouped_snapshot, user_id)
    whole = find(grouped_snapshot, user)
    monkeypatch.setattr(BY_SOURCE[broken], part, fail)
    found = find(grouped_snapshot, user)
    assert calls == [part]
    assert states(found) == {**ALL_OK, broken: pb.SOURCE_STATE_UNAVAILABLE}
    assert found.failures == [f"{source_name(broken)}: failed (ZeroDivisionError); the logs say why"]
    assert list(found.finds) == [source for source in SOURCES if source != broken]
    assert len(found.pool) > 0
    if part == "score":
        # What it proposed is there for the others.
        assert found.pool.rows.tolist() == whole.pool.rows.tolist()
        for source, finds in found.finds.items():
            np.testing.assert_array_equal(finds.raw, whole.finds[source].raw)


def test_interests_that_break_without_the_user_source_beside_them_are_told(
    grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(BY_SOURCE[I2I], "propose", fail)
    found = find(grouped_snapshot, read(grouped_snapshot, user_id, excluded=(U2I,)))
    assert found.failures == ["interest: failed (MemoryError); the logs say why"]
    assert states(found) == {
        I2I: pb.SOURCE_STATE_UNAVAILABLE,
        U2I: pb.SOURCE_STATE_EMPTY,
        GROUP: pb.SOURCE_STATE_OK,
        GRAPH: pb.SOURCE_STATE_OK,
    }


def test_if_all_break_the_answer_is_empty_and_says_so(
    grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    for source in CANDIDATE_SOURCES:
        monkeypatch.setattr(source, "propose", fail)
    found = find(grouped_snapshot, read(grouped_snapshot, user_id))
    assert set(states(found).values()) == {pb.SOURCE_STATE_UNAVAILABLE}
    assert len(found.failures) == len(SOURCES)
    assert (len(found.pool), dict(found.finds)) == (0, {})


def test_vectors_that_are_not_numbers_cost_their_items_only(snapshot: Snapshot, user_id: str) -> None:
    user = read(snapshot, user_id)
    broken = snapshot.vectors.vectors.copy()
    some = user.ranges.rows()[::40]
    broken[some] = np.nan
    found = find(replace(snapshot, vectors=ItemVectors(broken)), user)
    assert [failure for failure in found.failures if "are not finite" not in failure] == []
    assert len(found.failures) == 1
    assert len(found.pool) > WANTED
    assert not set(found.pool.rows.tolist()) & set(some.tolist())


async def test_no_category_fills_what_the_group_source_proposes(
    small_world: SmallWorld, grouped_snapshot: Snapshot, local_tower: LocalTower
) -> None:
    for user_id in small_world.user_ids:
        # Beside others it ranks what they proposed as well, of whatever category on its list.
        user = read(grouped_snapshot, user_id, excluded=(I2I, U2I, GRAPH))
        (rows,) = await local_tower.user_vectors(grouped_snapshot.tower_model, user.inputs, Deadline.after(60))
        vectors = UserVectors(rows[: 1 + len(user.interests)], fallback=False)
        found = search(grouped_snapshot, user, vectors, WANTED)
        result = score(found.pool, found.finds, user, grouped_snapshot.merge, WANTED)
        of_group = result.categories[result.source_ranks[:, SOURCES.index(GROUP)] != NOT_FOUND]
        assert len(of_group) == WANTED
        # Twice its share of what is wanted.
        assert np.bincount(of_group).max() <= math.ceil(2 * WANTED / (len(user.novel_categories) + 1))


@pytest.mark.parametrize("with_groups", [False, True])
@pytest.mark.parametrize("count", [2, 5, 10])
def test_the_pool_holds_what_an_exact_search_by_every_vector_finds(
    small_world: SmallWorld,
    snapshot: Snapshot,
    grouped_snapshot: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
    with_groups: bool,
    count: int,
) -> None:
    directory = (grouped_snapshot if with_groups else snapshot).directory
    requests = [
        pb.RecallRequest(user_id=user_id, count=count, novelty_policy=policy)
        for user_id in [*small_world.user_ids, "nobody"]
        for policy in (pb.NOVELTY_POLICY_STRICT, pb.NOVELTY_POLICY_OFF)
    ]
    # By the tower's vectors: the graph has one of its own, and is searched by nothing else.
    settings = ChannelSettings(graph_source=False)
    tower = LocalTower(small_world.tower_path)
    with LocalChannel(directory, tower, settings=settings, clock=lambda: NOW) as channel:
        pooled = [channel.recall(request) for request in requests]
        sizes: list[int] = []

        def all_rows(_: Snapshot, user: Hydrated, *__: object) -> NDArray[np.int64]:
            sizes.append(len(user.ranges))
            return user.ranges.rows()[~user.unavailable[user.ranges.rows()]]

        monkeypatch.setattr(BY_SOURCE[U2I], "propose", all_rows)
        exact = [channel.recall(request) for request in requests]
    assert len(sizes) == len(requests)
    # What is proposed for the user alone is a part of what is looked at here.
    assert np.mean(sizes) > 2 * 5 * count
    same = [len(set(a.item_ids) & set(b.item_ids)) / count for a, b in zip(pooled, exact, strict=True)]
    # The group source ranks what is in the pool, and has fair shares of categories only of what it proposes itself.
    assert np.mean(same) >= (0.98 if with_groups else 0.99)
    # What an item is worth to each source is the same, only its ranks are not.
    worth = [column for column, name in enumerate(FEATURE_NAMES) if not name.endswith("_reciprocal_rank")]
    for a, b in zip(pooled, exact, strict=True):
        assert len(a.item_ids) == len(b.item_ids) == count
        of_a, of_b = (np.array(each.rank_features.values).reshape(count, -1)[:, worth] for each in (a, b))
        both = [(i, list(b.item_ids).index(item_id)) for i, item_id in enumerate(a.item_ids) if item_id in b.item_ids]
        np.testing.assert_allclose(of_a[[i for i, _ in both]], of_b[[j for _, j in both]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", [pb.NOVELTY_POLICY_STRICT, pb.NOVELTY_POLICY_OFF])
async def test_an_index_finds_only_what_may_be_shown_and_nearly_what_exact_search_finds(
    small_world: SmallWorld, snapshot: Snapshot, local_tower: LocalTower, tmp_path: Path, policy: pb.NoveltyPolicy
) -> None:
    config = IndexConfig(exact_below=100, num_lists=48)
    indexed = open_snapshot(write_snapshot(small_world.contents, tmp_path, created_at=NOW, index=config))
    assert indexed.vectors._ivf is not None
    # However few rows there are in the small world, the index is asked.
    by_index = ItemVectors(indexed.vectors.vectors, ivf=indexed.vectors._ivf, exact_below=0)
    indexed = replace(indexed, vectors=by_index)
    same = []
    for user_id in [*small_world.user_ids, "nobody"]:
        # A tenth is sold out on top of what the snapshot says.
        user = read(snapshot, user_id, novelty_policy=policy, allow_repeats=True)
        user = replace(user, unavailable=user.unavailable | (np.arange(NUM_ITEMS) % 10 == 0))
        (rows,) = await local_tower.user_vectors(snapshot.tower_model, user.inputs, Deadline.after(60))
        vectors = UserVectors(rows[: 1 + len(user.interests)], fallback=False)
        found, exact = (search(each, user, vectors, 5) for each in (indexed, snapshot))
        assert found.failures == []
        assert counts(found) == dict.fromkeys(FILTERS, 0)
        assert not user.unavailable[found.pool.rows].any()
        best, expected = (
            score(each.pool, each.finds, user, snapshot.merge, 5).rows.tolist() for each in (found, exact)
        )
        assert min(len(best), len(expected)) >= 5
        same.append(len(set(best) & set(expected)) / len(expected))
    assert np.mean(same) >= 0.9
    indexed.close()


async def test_an_answer_agrees_with_a_plain_reading(
    small_world: SmallWorld, snapshot: Snapshot, local_tower: LocalTower
) -> None:
    """Say an answer again from tower and vectors: the best of each source, each item by all its ranks, best first."""
    count, wanted = 12, 24
    # Ranks are fused, an answer may be of one category, and nobody is offered what most people click.
    nothing = np.empty(0, np.int64)
    plain = replace(snapshot, merge=replace(snapshot.merge, id="", popular=nothing, popular_categories=nothing))
    channel = Channel(
        SnapshotHolder(plain), local_tower, settings=ChannelSettings(category_share=1.0), clock=lambda: NOW
    )
    for user_id in small_world.user_ids[:20]:
        user = read(plain, user_id)
        (rows,) = await local_tower.user_vectors(snapshot.tower_model, user.inputs, Deadline.after(60))
        allowed = user.ranges.rows()[~snapshot.unavailable[user.ranges.rows()]]
        scores = small_world.contents.item_vectors[allowed] @ rows[: 1 + len(user.interests)].T
        ranks: dict[int, dict[pb.Source, int]] = {}
        for source, raw in ((I2I, scores[:, 1:].max(axis=1)), (U2I, scores[:, 0])):
            for rank, at in enumerate(np.argsort(-raw, kind="stable")[:wanted].tolist()):
                ranks.setdefault(int(allowed[at]), {})[source] = rank
        fused = {row: sum(60 / (61 + rank) for rank in each.values()) / 4 for row, each in ranks.items()}
        expected = sorted(fused, key=lambda row: (-fused[row], row))[:count]
        answer = await channel.recall(RecallQuery(user_id=user_id, count=count, now=NOW), Deadline.after(60))
        response = answer.response
        assert list(response.item_ids) == [small_world.item_ids[row] for row in expected]
        np.testing.assert_allclose(response.scores, [fused[row] for row in expected], rtol=1e-5)
        assert list(response.sources) == [min(ranks[row], key=lambda s: (ranks[row][s], s)) for row in expected]
    channel.close()


def test_a_source_that_is_not_searched_proposes_nothing_and_ranks_what_others_proposed(
    grouped_snapshot: Snapshot, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = read(grouped_snapshot, user_id)
    whole = Places.of_request(user.query)
    places = replace(
        whole, searched=frozenset([I2I, U2I]), propensities={**whole.propensities, GROUP: 0.25, GRAPH: 0.125}
    )
    for source in (GROUP, GRAPH):
        monkeypatch.setattr(BY_SOURCE[source], "propose", lambda *_: pytest.fail("searched"))
    found = search(grouped_snapshot, user, some_vectors(user), WANTED, places)
    near = search(grouped_snapshot, replace(user, folded=None), some_vectors(user), WANTED, places)
    assert found.pool.rows.tolist() == near.pool.rows.tolist()
    assert list(found.finds) == list(SOURCES)
    assert user.folded is not None
    np.testing.assert_array_equal(found.finds[GRAPH].raw, user.folded.scores(found.pool.rows))
    listed = np.isin(found.pool.categories, user.novel_categories.numbers)
    np.testing.assert_array_equal(found.finds[GROUP].found, listed)
    assert [status.requested for status in found.statuses] == [WANTED, WANTED, 0, 0]
    assert [status.propensity for status in found.statuses] == [1.0, 1.0, 0.25, 0.125]
    assert [status.found for status in found.statuses][3] == min(WANTED, int(found.finds[GRAPH].found.sum())) > 0
    assert states(found) == ALL_OK
    assert found.failures == []


def test_interests_search_near_the_user_as_well_where_the_user_alone_is_not_searched(
    grouped_snapshot: Snapshot, user_id: str
) -> None:
    user = read(grouped_snapshot, user_id)
    places = replace(Places.of_request(user.query), searched=frozenset([I2I]))
    found = search(grouped_snapshot, user, some_vectors(user), WANTED, places)
    near = BY_SOURCE[U2I].propose(grouped_snapshot, user, some_vectors(user), WANTED)
    assert set(near.tolist()) <= set(found.pool.rows.tolist())
    # What was looked for on behalf of the interests is not the user source's own.
    assert not found.finds[U2I].found.any()
