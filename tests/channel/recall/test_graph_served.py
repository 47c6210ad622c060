"""The graph source in whole answers: of warm users, of sessions without a record, without a tower, without a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable, TowerUnavailable
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.folded_user import FoldedUser
from serendipity.channel.recall.query import SOURCES
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.features import TowerInputs
from serendipity.offline.snapshot.contents import ContentsError
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.grouped_world import GroupedWorld
from tests.fixtures.planted_graph import INTERESTS
from tests.fixtures.small_world import FAMILIES, NOW, family_of

GRAPH = pb.SOURCE_GRAPH
COUNT = 20
GRAPH_RECIPROCAL_RANK = FEATURE_NAMES.index("graph_reciprocal_rank")


class DeadTriton:
    """No tower, as when Triton is away."""

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: object) -> object:
        """Raise TowerUnavailable."""
        raise TowerUnavailable("refused")

    async def close(self) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def without_model(grouped_world: GroupedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot without a merge model, so that what one source ranks is returned in its order."""
    contents = replace(grouped_world.world.contents, merge=records_pb2.MergeSpec(), merge_model=None)
    return write_snapshot(contents, tmp_path_factory.mktemp("without-model"), created_at=NOW)


@pytest.fixture(scope="module")
def unearned(grouped_world: GroupedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot with a graph that has not earned its places."""
    merge = records_pb2.MergeSpec()
    merge.CopyFrom(grouped_world.world.contents.merge)
    merge.sources.add(source=GRAPH, earned=False)
    contents = replace(grouped_world.world.contents, merge=merge)
    return write_snapshot(contents, tmp_path_factory.mktemp("unearned"), created_at=NOW)


@pytest.fixture(scope="module")
def channel(without_model: Path) -> Iterator[LocalChannel]:
    """A channel over a graph with Triton dead throughout."""
    with LocalChannel(without_model, DeadTriton(), clock=lambda: NOW) as opened:  # type: ignore[arg-type]
        yield opened


def only_graph(user_id: str, **fields: object) -> pb.RecallRequest:
    quotas = [pb.SourceQuota(source=source, max_count=COUNT if source == GRAPH else 0) for source in SOURCES]
    return pb.RecallRequest(user_id=user_id, count=COUNT, explain=True, source_quotas=quotas, **fields)  # type: ignore[arg-type]


def status(response: pb.RecallResponse) -> pb.SourceStatus:
    return next(each for each in response.source_statuses if each.source == GRAPH)


def session(world: GroupedWorld, family: int) -> list[pb.Event]:
    """Three clicks in the first category of a family."""
    first = int(world.world.catalogue.category_offsets[3 * family])
    return [pb.Event(item_id=world.world.item_ids[first + i], type=pb.EVENT_TYPE_CLICK) for i in range(3)]


def families(world: GroupedWorld, response: pb.RecallResponse) -> list[int]:
    names = world.world.catalogue.categories
    return [family_of(names.index(response.categories[i]) + 1) for i in response.category_indexes]


def test_candidates_are_the_nearest_novel_items_in_the_graph(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, channel: LocalChannel
) -> None:
    graph = grouped_snapshot.graph
    assert graph is not None
    for user_id in grouped_world.world.user_ids[:20]:
        response = channel.recall(only_graph(user_id))
        clicks = grouped_world.world.clicks(user_id)
        held = np.array(grouped_world.world.contents.users[user_id].held_interests, np.int64)
        folded = FoldedUser(graph, clicks, held)
        novel = ~np.isin(grouped_world.world.catalogue.item_categories, [0, *clicks.categories.tolist()])
        rows = np.flatnonzero(novel & ~grouped_snapshot.unavailable)
        # The cap per category gives way only at last, so the best of all lead, and all are scored as they are.
        best = rows[np.argmax(folded.scores(rows))]
        assert response.item_ids[0] == grouped_world.world.item_ids[best]
        found = np.array([grouped_world.world.item_ids.index(item_id) for item_id in response.item_ids])
        assert novel[found].all()
        np.testing.assert_allclose(response.relevance, folded.scores(found), rtol=1e-5)
        assert list(response.sources) == [GRAPH] * COUNT


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_a_session_of_three_clicks_by_nobody_known_finds_its_family_with_triton_dead(
    grouped_world: GroupedWorld, channel: LocalChannel, family: int
) -> None:
    response = channel.recall(only_graph("nobody", recent_events=session(grouped_world, family)))
    assert (status(response).state, status(response).found) == (pb.SOURCE_STATE_OK, 2 * COUNT)
    clicked = grouped_world.world.catalogue.categories[3 * family]
    assert clicked not in response.categories
    # The cap leaves six of a category: twelve of the other two of the family are nearest.
    assert set(families(grouped_world, response)[:12]) == {family}
    titles = {grouped_world.world.catalogue.titles[int(grouped_world.world.catalogue.category_offsets[3 * family]) + i]
              for i in range(3)}  # fmt: skip
    of_family = [response.reasons[i] for i in response.reason_indexes[:12]]
    assert {reason.seed for reason in of_family} <= titles
    for reason in of_family:
        assert (reason.kind, reason.relation) == (pb.REASON_KIND_ITEM, pb.REASON_RELATION_LINKED)
        assert reason.text == f"Goes with {reason.seed}, which you chose."
        assert 0 < reason.weight <= 1


def test_what_a_user_holds_is_named_where_it_adds_most(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, channel: LocalChannel
) -> None:
    kinds = set()
    for user_id in grouped_world.world.user_ids:
        response = channel.recall(only_graph(user_id))
        holds = grouped_world.world.contents.users[user_id].held_interests
        for reason in (response.reasons[i] for i in response.reason_indexes):
            kinds.add(reason.kind)
            if reason.kind == pb.REASON_KIND_INTEREST:
                assert reason.seed in [INTERESTS[i] for i in holds]
                assert reason.text == f"Goes with your interest in {reason.seed}."
    assert kinds == {pb.REASON_KIND_ITEM, pb.REASON_KIND_INTEREST}


def test_nobody_without_a_click_is_not_in_the_graph(channel: LocalChannel) -> None:
    response = channel.recall(only_graph("nobody"))
    assert status(response).state == pb.SOURCE_STATE_EMPTY
    assert status(response).shortfall_cause == pb.SHORTFALL_CAUSE_NOT_IN_GRAPH


def test_nothing_is_found_that_no_click_speaks_for(grouped_world: GroupedWorld, channel: LocalChannel) -> None:
    categories = grouped_world.world.catalogue.categories
    clicked, far = categories[0], categories[-1]
    response = channel.recall(
        only_graph("nobody", recent_events=session(grouped_world, 0), allow_categories=[clicked, far])
    )
    assert min(response.relevance, default=1.0) > 0
    assert min((reason.weight for reason in response.reasons), default=1.0) > 0
    assert len(response.item_ids) < COUNT


def test_the_answer_of_whoever_explores_keeps_places_for_it(grouped_world: GroupedWorld, unearned: Path) -> None:
    settings = ChannelSettings(explored_users=1.0, explored_share=0.25)
    tower = LocalTower(grouped_world.world.tower_path)
    with LocalChannel(unearned, tower, settings=settings, clock=lambda: NOW) as channel:
        for user_id in grouped_world.world.user_ids:
            response = channel.recall(pb.RecallRequest(user_id=user_id, count=COUNT))
            assert status(response).propensity == 1.0
            assert status(response).returned >= COUNT // 4
            assert len(response.item_ids) == COUNT
            # The first of them are what it ranks highest.
            ranks = np.array(response.rank_features.values).reshape(COUNT, -1)[:, GRAPH_RECIPROCAL_RANK]
            of_graph = ranks[np.array(response.sources) == GRAPH]
            assert of_graph.max() > 0.1


def test_a_graph_of_many_items_is_searched_by_an_index(grouped_world: GroupedWorld, tmp_path: Path) -> None:
    config = IndexConfig(exact_below=100, num_lists=24)
    directory = write_snapshot(grouped_world.world.contents, tmp_path, created_at=NOW, index=config)
    opened = open_snapshot(directory)
    assert opened.graph is not None
    assert opened.graph.items._ivf is not None
    assert (directory / layout.GRAPH_ITEM_INDEX).is_file()
    opened.close()


@pytest.mark.parametrize("name", [layout.GRAPH_ITEM_VECTORS, layout.GRAPH_ITEM_PARTS, layout.GRAPH_INTEREST_PARTS])
def test_a_file_of_another_shape_is_refused_by_name(grouped_world: GroupedWorld, tmp_path: Path, name: str) -> None:
    directory = write_snapshot(grouped_world.world.contents, tmp_path, created_at=NOW)
    np.save(directory / name, np.load(directory / name)[:-1])
    with pytest.raises(SnapshotUnavailable, match=f"{name}: found shape"):
        open_snapshot(directory, verify=False)
    with pytest.raises(SnapshotUnavailable, match=f"{name}: SHA-256"):
        open_snapshot(directory)


def test_contents_that_do_not_fit_are_refused_by_field(grouped_world: GroupedWorld, tmp_path: Path) -> None:
    contents = grouped_world.world.contents
    graph = contents.graph
    assert graph is not None
    for wrong, field in (
        (replace(contents, graph=replace(graph, item_parts=graph.item_parts[1:])), "graph.item_parts.shape"),
        (replace(contents, graph=replace(graph, interest_parts=graph.interest_parts[1:])), "graph.interest_parts"),
    ):
        with pytest.raises(ContentsError, match=field):
            write_snapshot(wrong, tmp_path, created_at=NOW)
    assert not list(tmp_path.glob("2*"))


def test_a_share_of_the_known_users_explores_a_graph_that_has_not_earned_its_places_others_each_day(
    grouped_world: GroupedWorld, unearned: Path
) -> None:
    def answers(users: float, now: int) -> dict[str, pb.RecallResponse]:
        tower = LocalTower(grouped_world.world.tower_path)
        settings = ChannelSettings(explored_users=users)
        with LocalChannel(unearned, tower, settings=settings, clock=lambda: now) as channel:
            return {u: channel.recall(pb.RecallRequest(user_id=u, count=50)) for u in grouped_world.world.user_ids}

    def explorers(told: dict[str, pb.RecallResponse]) -> set[str]:
        return {user_id for user_id, answer in told.items() if status(answer).requested}

    users = set(grouped_world.world.user_ids)
    told = answers(0.5, NOW)
    today = explorers(told)
    assert explorers(answers(0.5, NOW + 60)) == today
    assert 0 < len(today) < len(users)
    assert explorers(answers(0.5, NOW + 86_400)) != today
    assert explorers(answers(1.0, NOW)) == users
    assert {status(answer).propensity for answer in told.values()} == {0.5}
    for user_id, answer in told.items():
        # Four of fifty; of what the others proposed it may be the one that ranks an item highest all the same.
        if user_id in today:
            assert status(answer).returned >= 4
        assert status(answer).found > 0
        assert len(answer.item_ids) == 50


def test_a_graph_that_has_earned_its_places_is_searched_for_everybody(grouped_world: GroupedWorld) -> None:
    tower = LocalTower(grouped_world.world.tower_path)
    with LocalChannel(grouped_world.snapshot_dir, tower, clock=lambda: NOW) as channel:
        for user_id in grouped_world.world.user_ids[:20]:
            told = status(channel.recall(pb.RecallRequest(user_id=user_id, count=COUNT)))
            assert (told.requested, told.propensity, told.found) == (2 * COUNT, 1.0, 2 * COUNT)


def test_strangers_and_whoever_the_tower_is_away_for_are_searched_by_the_graph(
    grouped_world: GroupedWorld, unearned: Path
) -> None:
    # Hardly anybody explores.
    settings = ChannelSettings(explored_users=1e-9)
    tower = LocalTower(grouped_world.world.tower_path)
    events = session(grouped_world, 1)
    with LocalChannel(unearned, tower, settings=settings, clock=lambda: NOW) as channel:
        stranger = channel.recall(pb.RecallRequest(user_id="nobody", count=COUNT, recent_events=events))
        known = channel.recall(pb.RecallRequest(user_id=grouped_world.world.user_ids[0], count=COUNT))
    with LocalChannel(unearned, DeadTriton(), settings=settings, clock=lambda: NOW) as channel:  # type: ignore[arg-type]
        away = channel.recall(pb.RecallRequest(user_id=grouped_world.world.user_ids[0], count=COUNT))
    for answer in (stranger, away):
        assert (status(answer).requested, status(answer).propensity) == (2 * COUNT, 1.0)
    assert status(known).requested == 0
    assert status(known).propensity == pytest.approx(1e-9)


def test_who_wants_no_other_source_is_answered_by_the_graph_whatever_it_has_earned(
    grouped_world: GroupedWorld, unearned: Path
) -> None:
    tower = LocalTower(grouped_world.world.tower_path)
    settings = ChannelSettings(explored_share=0.0)
    user_id = grouped_world.world.user_ids[0]
    with LocalChannel(unearned, tower, settings=settings, clock=lambda: NOW) as channel:
        free = channel.recall(pb.RecallRequest(user_id=user_id, count=COUNT))
        alone = channel.recall(only_graph(user_id))
    assert (status(free).requested, status(free).propensity) == (0, 0.0)
    assert (status(alone).requested, status(alone).propensity) == (2 * COUNT, 1.0)
    assert set(alone.sources) == {GRAPH}
