"""One list of what all sources found: features, scores, order, and the source that each item is counted to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.pool import Pool
from serendipity.channel.recall.query import SOURCES, SourceBounds
from serendipity.channel.recall.scorer import NOT_FOUND, SEARCH_ODDS, Scored, score
from serendipity.channel.recall.selector import select
from serendipity.channel.recall.sources import NO_INTEREST, Finds
from serendipity.channel.snapshot.merge import Merge
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb

I2I, U2I, GROUP, GRAPH = SOURCES

DAY = 86_400

NUM_CATEGORIES = 6

VECTORS = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.8], [-1, 0], [0.8, 0.6], [0, 0]], np.float32)
"""Of the categories by number."""

NO_LIST = NovelCategories.none(pb.NOVEL_CATEGORY_KEY_NONE)

Find = tuple[float, int]
"""Raw score, interest."""


def pool(
    rows: Sequence[int],
    categories: Sequence[int] | None = None,
    novel: Sequence[bool] | None = None,
    grounded: Sequence[Sequence[bool]] | None = None,
    near: Sequence[float] | None = None,
) -> Pool:
    m = len(rows)
    return Pool(
        rows=np.array(rows, np.int64),
        scores=np.zeros((m, 1), np.float32) if near is None else np.array(near, np.float32)[:, None],
        grounded=np.ones((m, 10), np.bool_) if grounded is None else np.array(grounded, np.bool_),
        categories=np.ones(m, np.int32) if categories is None else np.array(categories, np.int32),
        novel=np.ones(m, np.bool_) if novel is None else np.array(novel, np.bool_),
    )


def finds(of: Pool, found: Mapping[int, Find | float]) -> Finds:
    """Finds of a source by row; where nothing is found there is what cannot be scored."""
    each = {row: (find, NO_INTEREST) if isinstance(find, float) else find for row, find in found.items()}
    columns = [each.get(row, (-math.inf, 9)) for row in of.rows.tolist()]
    return Finds(
        found=np.array([row in each for row in of.rows.tolist()], np.bool_),
        raw=np.array([raw for raw, _ in columns], np.float32),
        interests=np.array([interest for _, interest in columns], np.int16),
    )


def user(
    clicks: Mapping[int, tuple[int, int]] | None = None,
    weights: Sequence[float] = (1.0,) * 10,
    searches: Sequence[str] | None = None,
    novel_categories: NovelCategories = NO_LIST,
) -> Hydrated:
    """What scoring reads of a user. clicks: category → clicks, and the age of the last in seconds."""
    clicks = clicks or {}
    # Tower inputs are padded with zeros.
    columns = [[*clicks, 0], *([each[i] for each in clicks.values()] + [0] for i in range(2))]
    numbers, counts, ages = (np.array([column], np.int32) for column in columns)
    inputs = SimpleNamespace(long_categories=numbers, long_counts=counts, long_ages=ages)
    interests = SimpleNamespace(weights=np.array(weights, np.float32), searches=searches or [""] * len(weights))
    return cast(Hydrated, SimpleNamespace(inputs=inputs, interests=interests, novel_categories=novel_categories))


@dataclass
class Model:
    """A merge model whose probability is one of the features it reads / `of`. asked: what it was fed."""

    column: int
    of: float = 1.0
    asked: list[NDArray[np.float32]] = field(default_factory=list)

    def run(self, _: object, feeds: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.asked.append(feeds["features"])
        return [feeds["features"][:, [self.column]] / np.float32(self.of)]


def merge(
    model: Model | None = None, columns: Sequence[str] = (), num_items: int = 400, popularity: float = 0.0
) -> Merge:
    statistics = np.arange(num_items, dtype=np.float32)[:, None] + np.array([0, 0.25, 0.5, 0.75], np.float32)
    nothing = np.empty(0, np.int64)
    return Merge(
        id="0123456789abcdef" if model else "",
        columns=tuple(columns),
        surprise=0.0,
        popularity=popularity,
        unearned=frozenset(),
        item_statistics=statistics,
        category_vectors=VECTORS,
        popular=nothing,
        popular_categories=nothing,
        _session=model,
    )


def by(name: str, of: float = 1.0) -> Merge:
    """A merge whose probabilities are a feature / `of`."""
    return merge(Model(0, of), [name])


UNLEARNED = merge()


def scored(
    of: Pool,
    found: Mapping[pb.Source, Mapping[int, Find | float]],
    wanted: int = 100,
    learned: Merge = UNLEARNED,
    **fields: object,
) -> Scored:
    every = {source: finds(of, each) for source, each in found.items()}
    asked_by = fields.pop("user", None) or user()
    return score(of, every, cast(Hydrated, asked_by), learned, wanted, **fields)  # type: ignore[arg-type]


def fused(*ranks: int) -> float:
    """Fused ranks, over four sources."""
    return sum(60 / (61 + rank) for rank in ranks) / 4


def columns_of(result: Scored) -> dict[str, list[float]]:
    return {name: result.features[:, i].tolist() for i, name in enumerate(FEATURE_NAMES)}


def test_without_a_model_scores_are_fused_ranks() -> None:
    result = scored(pool([3, 5, 7]), {I2I: {3: (0.4, 0), 7: (1.0, 1)}, U2I: {3: 5.0, 5: 4.0, 7: -3.0}, GRAPH: {5: 0.1}})
    # 3 is second and first, 7 first and third, 5 second and first.
    assert result.rows.tolist() == [3, 5, 7]
    assert result.scores.tolist() == pytest.approx([fused(1, 0), fused(1, 0), fused(0, 2)])
    assert result.scores.dtype == np.float32
    assert result.source_ranks.tolist() == [[1, 0, -1, -1], [-1, 1, -1, 0], [0, 2, -1, -1]]
    # Found by all first is as much as there can be.
    assert scored(pool([1]), {source: {1: 1.0} for source in SOURCES}).scores.tolist() == pytest.approx([60 / 61])


def test_without_a_model_popularity_counts_as_far_as_the_snapshot_says() -> None:
    # Statistics grow with the row, so that 9 is the most popular, then 8.
    of, near = pool(range(10)), {row: float(-row) for row in range(10)}
    ranks = [60 / (61 + rank) for rank in range(10)]
    for counts in (0.25, 1.0):
        result = scored(of, {U2I: near}, learned=merge(popularity=counts))
        expected = {row: (1 - counts) * ranks[row] / 4 + counts * ranks[9 - row] for row in range(1, 10)}
        # What nobody clicked is not popular.
        expected[0] = (1 - counts) * ranks[0] / 4
        assert dict(zip(result.rows.tolist(), result.scores.tolist(), strict=True)) == pytest.approx(expected)
        assert result.source_ranks[:, 1].tolist() == result.rows.tolist()


def test_what_is_popular_is_ranked_however_far_it_is() -> None:
    of, near = pool(range(10)), {row: float(-row) for row in range(10)}
    result = scored(of, {I2I: {0: 1.0}, U2I: near}, wanted=2, learned=merge(popularity=0.5))
    # Those near the user, and those most popular, which U2I ranks behind them; both are counted to it.
    ranked = dict(zip(result.rows.tolist(), result.source_ranks[:, 1].tolist(), strict=True))
    assert ranked == {0: 0, 1: 1, 8: 2, 9: 3}
    assert set(result.sources[result.rows > 1].tolist()) == {U2I}
    # Nothing is popular for a request that wants nothing of U2I, which proposes it.
    assert scored(of, {I2I: {0: 1.0}}, wanted=2, learned=merge(popularity=0.5)).rows.tolist() == [0]
    # A model knows what popularity counts.
    learned = merge(Model(0), ["novel"])
    assert len(scored(of, {U2I: near}, wanted=2, learned=learned)) == 2


def test_with_a_model_its_probabilities_are_the_scores() -> None:
    model = Model(1, of=8)
    columns = ["collaborative_score", "item_trend_28d", "novel"]
    result = scored(pool([3, 5, 7]), {I2I: {3: 0.4, 7: 1.0}, U2I: {5: 4.0}}, learned=merge(model, columns))
    assert result.rows.tolist() == [7, 5, 3]
    assert result.scores.tolist() == [7.5 / 8, 5.5 / 8, 3.5 / 8]
    (asked,) = model.asked
    at = [FEATURE_NAMES.index(name) for name in columns]
    assert sorted(asked.tolist()) == sorted(result.features[:, at].tolist())
    assert asked.dtype == np.float32


def test_a_search_raises_the_odds_of_what_lies_in_the_interest_it_names_by_how_well_it_fits() -> None:
    of = pool([1, 2, 3], grounded=[[True, False], [False, True], [False, False]])
    found = {U2I: {1: 1.0, 2: 2.0, 3: 3.0}}
    learned = by("collaborative_score", of=10)
    before = scored(of, found, learned=learned, user=user(weights=(0.5, 1.0)))
    after = scored(of, found, learned=learned, user=user(weights=(0.5, 1.0), searches=["tea", ""]))
    odds = 1 + (SEARCH_ODDS - 1) / 2
    assert after.rows.tolist() == [1, 3, 2]
    assert after.scores.tolist() == pytest.approx([odds / 9 / (1 + odds / 9), 0.3, 0.2])
    assert before.scores.tolist() == pytest.approx([0.3, 0.2, 0.1])


def test_of_equal_scores_the_better_fused_ranks_go_first_then_the_earlier_row() -> None:
    found = {I2I: {1: 1.0, 2: 2.0, 3: 3.0}, U2I: {1: 0.0, 5: 0.5}}
    result = scored(pool([1, 2, 3, 5]), found, learned=by("novel"))
    assert set(result.scores.tolist()) == {1.0}
    # Third and second; first; first; second.
    assert result.rows.tolist() == [1, 3, 5, 2]


def test_an_item_is_counted_to_the_source_that_ranks_it_highest_then_to_the_first() -> None:
    found = {
        I2I: {1: (9.0, 0), 2: (8.0, 1), 3: (7.0, 2)},
        U2I: {2: 3.0, 1: 2.0, 3: 1.0},
        GROUP: {3: 0.5},
        GRAPH: {3: 0.25},
    }
    result = scored(pool([1, 2, 3]), found)
    counted = dict(
        zip(result.rows.tolist(), zip(result.sources, result.raw, result.interests, strict=True), strict=True)
    )
    # What leads the interest source to an item is told whichever source it is counted to.
    assert counted == {1: (I2I, 9.0, 0), 2: (U2I, 3.0, 1), 3: (GROUP, 0.5, 2)}
    # Ranks alone count, not scores, which do not compare.
    assert scored(pool([1]), {GROUP: {1: -5.0}, GRAPH: {1: 99.0}}).sources.tolist() == [GROUP]


def test_what_no_interest_is_grounded_in_is_counted_to_another_source_that_found_it() -> None:
    # 1 and 3 are grounded in neither interest; nothing else found 3.
    of = pool([1, 2, 3, 4], grounded=[[False, False], [True, False], [False, False], [False, True]])
    found = {I2I: {1: (9.0, 0), 2: (8.0, 0), 3: (7.0, 1), 4: (6.0, 1)}, U2I: {4: 9.0, 1: 8.0, 2: 7.0}}
    result = scored(of, found)
    held = dict(zip(result.rows.tolist(), result.sources.tolist(), strict=True))
    assert held == {1: U2I, 2: I2I, 3: I2I, 4: U2I}
    # Ranks stay what they are, and a minimum takes first what is grounded.
    assert dict(zip(result.rows.tolist(), result.source_ranks[:, 0].tolist(), strict=True)) == {1: 0, 2: 1, 3: 2, 4: 3}
    near = {2: 3.0, 1: 2.0, 3: 1.0, 4: 0.0}
    for least, held in ((0, {1: U2I, 2: U2I, 3: U2I, 4: I2I}), (2, {1: U2I, 2: I2I, 3: U2I, 4: I2I})):
        bounded = scored(of, {I2I: found[I2I], U2I: near}, bounds={I2I: SourceBounds(least, 4)})
        assert dict(zip(bounded.rows.tolist(), bounded.sources.tolist(), strict=True)) == held


def test_surprise_orders_by_unexpectedness_and_leaves_the_scores_as_they_are() -> None:
    # Categories 1, 3 and 2 lie 0, 0.4 and 1 away from clicks in category 1.
    of, found = pool([1, 2, 3], [1, 3, 2]), {U2I: {1: 3.0, 2: 2.0, 3: 1.0}}
    asked_by = user({1: (5, DAY)})
    # 3 × 0.05 ^ 2s, 2 × 0.4 ^ 2s, 1.
    for surprise, rows in ((0.0, [1, 2, 3]), (0.15, [2, 1, 3]), (0.25, [2, 3, 1]), (1.0, [3, 2, 1])):
        result = scored(of, found, learned=by("collaborative_score", of=4), user=asked_by, surprise=surprise)
        assert result.rows.tolist() == rows
        assert dict(zip(result.rows.tolist(), result.scores.tolist(), strict=True)) == {1: 0.75, 2: 0.5, 3: 0.25}
        value = result.scores * np.maximum(result.features[:, 0], 0.05) ** (2 * surprise)
        np.testing.assert_allclose(result.values, value, rtol=1e-6)
        assert (np.diff(result.values) <= 0).all()


def test_below_a_twentieth_unexpectedness_does_not_count() -> None:
    # 0.05 of unexpectedness is as much as none: 1.01 stays before 1 at any surprise, and behind 400 times as much.
    found = {U2I: {1: 1.01, 2: 1.0}}
    asked_by = user({1: (5, DAY)})
    near = scored(pool([1, 2], [1, 1]), found, learned=by("collaborative_score", of=512), user=asked_by, surprise=1.0)
    assert near.rows.tolist() == [1, 2]
    for raw, rows in ((399.0, [2, 1]), (401.0, [1, 2])):
        result = scored(
            pool([1, 2], [1, 2]), {U2I: {1: raw, 2: 1.0}},
            learned=by("collaborative_score", of=512), user=asked_by, surprise=1.0,
        )  # fmt: skip
        assert result.rows.tolist() == rows


def test_without_a_history_surprise_changes_nothing() -> None:
    of, found = pool([1, 2, 3], [1, 3, 2]), {U2I: {1: 3.0, 2: 2.0, 3: 1.0}}
    plain, surprised = (scored(of, found, learned=by("collaborative_score"), surprise=each) for each in (0.0, 1.0))
    assert plain.rows.tolist() == surprised.rows.tolist() == [1, 2, 3]
    assert set(surprised.features[:, 0].tolist()) == {1.0}


def test_soft_novelty_weighs_what_is_known() -> None:
    of = pool([1, 2, 3], novel=[False, True, True])
    result = scored(of, {U2I: {1: 1.0, 2: 0.75, 3: 0.25}}, learned=by("collaborative_score"), known_weight=0.5)
    assert result.rows.tolist() == [2, 1, 3]
    assert result.scores.tolist() == [0.75, 0.5, 0.25]
    assert columns_of(result)["novel"] == [1.0, 0.0, 1.0]


def test_only_the_best_of_each_source_count() -> None:
    found: dict[pb.Source, dict[int, Find | float]] = {
        I2I: {row: (float(row), 0) for row in range(6)},
        U2I: dict.fromkeys(range(4), 0.5),
    }
    result = scored(pool(range(6)), found, wanted=2)
    # Of those that tie, the earlier rows.
    ranks = dict(zip(result.rows.tolist(), result.source_ranks.tolist(), strict=True))
    assert ranks == {0: [-1, 0, -1, -1], 1: [-1, 1, -1, -1], 4: [1, -1, -1, -1], 5: [0, -1, -1, -1]}
    # What ranks below is found all the same, and led to.
    assert dict(zip(result.rows.tolist(), result.interests.tolist(), strict=True)) == {0: 0, 1: 0, 4: 0, 5: 0}


def test_what_no_source_found_is_not_returned() -> None:
    assert scored(pool([1, 2, 3]), {U2I: {2: 1.0}}).rows.tolist() == [2]
    assert len(scored(pool([1, 2, 3]), {})) == 0


def test_nothing_found_is_nothing_scored() -> None:
    for learned in (UNLEARNED, by("novel")):
        result = score(Pool.empty(), {}, user(), learned, 10)
        assert len(result) == 0
        assert result.features.shape == (0, len(FEATURE_NAMES))


def test_what_is_known_of_an_item_follows_it_into_its_place() -> None:
    of = pool([1, 2, 3], [4, 5, 6], [True, False, True], [[True, False], [False, False], [False, True]])
    result = scored(of, {U2I: {1: 1.0, 2: 2.0, 3: 3.0}})
    assert result.rows.tolist() == [3, 2, 1]
    assert result.categories.tolist() == [6, 5, 4]
    assert result.grounded.tolist() == [[False, True], [False, False], [True, False]]
    assert columns_of(result)["novel"] == [1.0, 0.0, 1.0]
    assert columns_of(result)["item_clicks_28d"] == [3.0, 2.0, 1.0]
    chosen = result.take(np.array([2, 0]))
    assert (chosen.rows.tolist(), chosen.categories.tolist()) == ([1, 3], [4, 6])
    assert chosen.grounded.tolist() == [[True, False], [False, True]]
    assert columns_of(chosen)["item_clicks_28d"] == [1.0, 3.0]


def test_features_of_sources_are_their_scores_and_reciprocal_ranks() -> None:
    of = pool([5, 6, 7], near=[0.5, 2.0, 0.125])
    found: dict[pb.Source, Finds] = {
        I2I: finds(of, {5: (1.0, 1), 6: (0.5, 0)}),
        # The group scores 7 without having found it; of 5 it knows nothing.
        GROUP: Finds.without_interests(np.array([False, True, False]), np.array([0, 0.75, 0.25], np.float32)),
    }
    result = score(of, found, user(weights=[0.9, 0.3]), UNLEARNED, 100)
    assert result.rows.tolist() == [6, 5]
    columns = columns_of(result)
    assert columns["interest_score"] == [0.5, 1.0]
    assert columns["interest_reciprocal_rank"] == [0.5, 1.0]
    # The tower's own score is there although nobody searched by it.
    assert columns["collaborative_score"] == [2.0, 0.5]
    assert columns["collaborative_reciprocal_rank"] == [0.0, 0.0]
    assert columns["group_score"] == [0.75, 0.0]
    assert columns["group_reciprocal_rank"] == [1.0, 0.0]
    assert columns["graph_score"] == columns["graph_reciprocal_rank"] == [0.0, 0.0]
    assert columns["interest_weight"] == pytest.approx([0.9, 0.3])


def test_a_source_scores_what_it_did_not_find() -> None:
    of = pool([5, 6])
    graph = Finds.without_interests(np.array([False, True]), np.array([-0.5, 0.75], np.float32))
    result = score(of, {U2I: finds(of, {5: 1.0}), GRAPH: graph}, user(), UNLEARNED, 100)
    assert dict(zip(result.rows.tolist(), columns_of(result)["graph_score"], strict=True)) == {5: -0.5, 6: 0.75}
    # What cannot be scored is 0, never infinite.
    assert dict(zip(result.rows.tolist(), columns_of(result)["collaborative_score"], strict=True)) == {5: 1.0, 6: 0.0}
    assert np.isfinite(result.features).all()


def test_features_tell_the_users_clicks_in_an_items_category() -> None:
    asked_by = user({1: (3, 2 * DAY), 5: (1, 10**9)})
    result = scored(pool([7, 8, 9], [1, 2, 5]), {U2I: {7: 3.0, 8: 2.0, 9: 1.0}}, user=asked_by)
    columns = columns_of(result)
    assert result.rows.tolist() == [7, 8, 9]
    assert columns["category_clicks"] == pytest.approx(np.log1p([3, 0, 1]).tolist())
    # Longer ago than ten years, and never, are the same.
    assert columns["category_days"] == pytest.approx(np.log1p([2, 3_650, 3_650]).tolist())
    centre = math.log(4) * VECTORS[1] + math.log(2) * VECTORS[5]
    expected = 1 - VECTORS[[1, 2, 5]] @ (centre / np.linalg.norm(centre))
    assert columns["unexpectedness"] == pytest.approx(expected.tolist(), abs=1e-6)
    for j, name in enumerate(layout.ITEM_STATISTICS_COLUMNS):
        assert columns[name] == [row + j / 4 for row in (7, 8, 9)]


def test_the_weight_of_an_interest_is_of_what_the_interest_source_found_whoever_it_is_counted_to() -> None:
    found = {I2I: {5: (1.0, 0), 6: (0.5, 1)}, U2I: {6: 2.0, 7: 1.0}}
    result = scored(pool([5, 6, 7]), found, user=user(weights=[0.75, 0.25]))
    told = dict(zip(result.rows.tolist(), columns_of(result)["interest_weight"], strict=True))
    assert told == {5: 0.75, 6: 0.25, 7: 0.0}
    assert dict(zip(result.rows.tolist(), result.sources.tolist(), strict=True)) == {5: I2I, 6: U2I, 7: U2I}


@pytest.mark.parametrize(
    ("key", "recent", "num_recent"),
    [
        (pb.NOVEL_CATEGORY_KEY_M2, ("a", "b"), 2.0),
        (pb.NOVEL_CATEGORY_KEY_M0, (), 0.0),
        (pb.NOVEL_CATEGORY_KEY_DEFAULT, (), -1.0),
    ],
)
def test_features_tell_the_alignment_of_an_items_category_whichever_source_found_it(
    key: pb.NovelCategoryKey, recent: tuple[str, ...], num_recent: float
) -> None:
    nothing = np.zeros(0, np.int64)
    listed = NovelCategories(
        key=key,
        group_id=1,
        profile="",
        recent=recent,
        names=("c",),
        numbers=np.array([2], np.int32),
        alignments=np.array([0.75], np.float32),
        starts=nothing,
        ends=nothing,
        state=pb.SOURCE_STATE_OK,
        generation=0,
    )
    found = {I2I: {5: (1.0, 1), 6: (0.5, 1)}, GROUP: {7: 1.0}}
    result = scored(pool([5, 6, 7], [3, 2, 2]), found, user=user(novel_categories=listed))
    columns = dict(zip(result.rows.tolist(), result.features, strict=True))
    at = [FEATURE_NAMES.index(name) for name in ("alignment", "alignment_recent")]
    assert {row: values[at].tolist() for row, values in columns.items()} == {
        5: [0.0, 0.0], 6: [0.75, num_recent], 7: [0.75, num_recent],
    }  # fmt: skip


def test_the_model_is_asked_of_the_best_by_fused_ranks_alone() -> None:
    model = Model(0, of=512)
    # 200 of each source, none found twice: 400, of which 300 are looked at.
    found = {I2I: {row: float(-row) for row in range(200)}, U2I: {row: float(-row) for row in range(200, 400)}}
    result = scored(pool(range(400)), found, wanted=200, learned=merge(model, ["item_clicks_28d"]))
    assert len(model.asked[0]) == 300
    assert sorted(result.rows.tolist()) == [*range(150), *range(200, 350)]
    # Among those, its probabilities decide.
    assert result.rows.tolist() == sorted(result.rows.tolist(), reverse=True)


def test_for_few_wanted_the_model_is_still_asked_of_two_hundred() -> None:
    model = Model(0)
    scored(pool(range(300)), {U2I: {row: float(-row) for row in range(300)}, I2I: {}}, wanted=2,
           learned=merge(model, ["item_clicks_28d"]))  # fmt: skip
    assert len(model.asked[0]) == 2
    every = {source: {row: float(-abs(row - at)) for row in range(300)} for at, source in ((0, I2I), (299, U2I))}
    scored(pool(range(300)), every, wanted=130, learned=merge(model, ["item_clicks_28d"]))
    assert len(model.asked[1]) == 200


def test_what_minima_need_is_kept_however_low_it_is_ranked() -> None:
    of = pool(range(400))
    # Two sources agree on 200 items, which are the best by far; the graph finds 200 others.
    found = {source: {row: float(-row) for row in range(200)} for source in (I2I, U2I)}
    every = {**found, GRAPH: {row: float(-row) for row in range(200, 400)}}
    without = scored(of, every, wanted=200)
    assert sorted(without.rows.tolist()) == list(range(300))
    bounded = scored(of, every, wanted=200, bounds={GRAPH: SourceBounds(160, 200)})
    assert sorted(bounded.rows.tolist()) == list(range(360))
    chosen = bounded.take(select(bounded, 200, {GRAPH: SourceBounds(160, 200)}, 200))
    assert chosen.sources.tolist().count(GRAPH) == 160


def test_a_minimum_takes_the_best_of_its_source_from_others_that_found_them() -> None:
    found = {I2I: {row: float(-row) for row in range(10)}, GROUP: {row: float(-row) for row in range(3, 10)}}
    free = scored(pool(range(10)), found)
    held = dict(zip(free.rows.tolist(), free.sources.tolist(), strict=True))
    assert {row for row, source in held.items() if source == GROUP} == set(range(3, 10))
    # What is theirs stays theirs, and two of the group's are the interests' as well, the best of them.
    bounded = scored(pool(range(10)), found, bounds={I2I: SourceBounds(5, 10)})
    held = dict(zip(bounded.rows.tolist(), bounded.sources.tolist(), strict=True))
    assert {row for row, source in held.items() if source == I2I} == set(range(5))


def test_sources_with_few_finds_take_their_minima_first() -> None:
    found = {
        I2I: {row: float(-row) for row in range(10)},
        U2I: {row: float(-row) for row in range(6)},
        GROUP: {0: 0.0},
    }
    bounds = {I2I: SourceBounds(4, 10), U2I: SourceBounds(5, 10), GROUP: SourceBounds(1, 10)}
    result = scored(pool(range(10)), found, bounds=bounds)
    assert dict(zip(result.rows.tolist(), result.sources.tolist(), strict=True)) == {
        0: GROUP, **dict.fromkeys(range(1, 6), U2I), **dict.fromkeys(range(6, 10), I2I),
    }  # fmt: skip


def test_what_a_source_has_beyond_its_maximum_goes_to_the_next_best_that_found_it() -> None:
    found = {
        I2I: {row: float(-row) for row in range(6)},
        U2I: {9: 1.0, **{row: float(-row) for row in range(2, 6)}},
        GRAPH: {8: 2.0, 9: 1.0, 5: 0.5},
    }
    bounds = {I2I: SourceBounds(0, 2)}
    result = scored(pool(range(10)), found, bounds=bounds)
    held = dict(zip(result.rows.tolist(), result.sources.tolist(), strict=True))
    # 5 is sixth of the interests, fifth of the user's and third of the graph's.
    assert held == {0: I2I, 1: I2I, 2: U2I, 3: U2I, 4: U2I, 5: GRAPH, 8: GRAPH, 9: U2I}
    assert result.raw[result.rows.tolist().index(4)] == -4.0
    # Ranks and features tell who found an item, wherever it is counted to.
    assert result.source_ranks[result.rows.tolist().index(4)].tolist() == [4, 3, -1, -1]


def bounds_of(count: int) -> st.SearchStrategy[dict[int, SourceBounds]]:
    """Bounds of some sources, whose minima fit into the count."""
    least = st.integers(0, count // len(SOURCES))
    bounds = st.tuples(least, st.integers(0, count)).map(lambda pair: SourceBounds(pair[0], max(pair)))
    return st.dictionaries(st.sampled_from(list(SOURCES)), bounds, min_size=1)


@given(
    st.lists(st.sets(st.sampled_from(list(SOURCES)), min_size=1), max_size=40),
    st.integers(3, 12).flatmap(lambda count: st.tuples(st.just(count), bounds_of(count))),
    st.randoms(use_true_random=False),
)
def test_bounds_move_items_to_other_sources_that_found_them(
    found_by: list[set[pb.Source]], asked: tuple[int, dict[int, SourceBounds]], random: Random
) -> None:
    count, bounds = asked
    of = pool(range(len(found_by)))
    found: dict[pb.Source, dict[int, Find | float]] = {
        source: {row: random.random() for row, by_sources in enumerate(found_by) if source in by_sources}
        for source in SOURCES
    }
    free, result = (scored(of, found, bounds=each) for each in ({}, bounds))
    # Whatever an item is counted to, its score and its place stay.
    assert (result.rows.tolist(), result.scores.tolist()) == (free.rows.tolist(), free.scores.tolist())
    chosen = result.take(select(result, count, bounds, count))
    held = {source: chosen.sources.tolist().count(source) for source in SOURCES}
    for row, source, raw in zip(chosen.rows.tolist(), chosen.sources.tolist(), chosen.raw.tolist(), strict=True):
        assert raw == np.float32(found[source][row])
    assert all(held[source] <= bound.max_count for source, bound in bounds.items())
    if len(bounds) == 1:
        ((source, bound),) = bounds.items()
        assert held[source] >= min(bound.min_count, len(found[source]))
    if len(chosen) < count:
        full = {source for source, bound in bounds.items() if held[source] == bound.max_count}
        assert all(found_by[row] <= full for row in set(range(len(found_by))) - set(chosen.rows.tolist()))


# Few different values, so that many tie.
found_by_row = st.dictionaries(
    st.integers(0, 30), st.tuples(st.integers(-4, 4).map(float), st.integers(0, 5)), max_size=25
)


@given(
    found=st.dictionaries(st.sampled_from(SOURCES), found_by_row),
    novel=st.lists(st.booleans(), min_size=31, max_size=31),
    categories=st.lists(st.integers(1, NUM_CATEGORIES), min_size=31, max_size=31),
    grounded=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=31, max_size=31),
    wanted=st.integers(1, 30),
    known_weight=st.sampled_from([0.5, 1.0]),
    surprise=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_scoring_agrees_with_a_plain_reading(
    found: dict[pb.Source, dict[int, tuple[float, int]]],
    novel: list[bool],
    categories: list[int],
    grounded: list[list[bool]],
    wanted: int,
    known_weight: float,
    surprise: float,
) -> None:
    # Interests lead to what the interest source finds, and to nothing else.
    every: dict[pb.Source, dict[int, Find | float]] = {
        source: {row: find if source == I2I else find[0] for row, find in each.items()}
        for source, each in found.items()
    }
    result = scored(
        pool(range(31), categories, novel, grounded), every, wanted,
        user=user({1: (4, DAY)}), known_weight=known_weight, surprise=surprise,
    )  # fmt: skip
    ranks: dict[int, dict[pb.Source, int]] = {}
    for source, each in found.items():
        best = sorted(each, key=lambda row: (-each[row][0], row))[:wanted]
        for rank, row in enumerate(best):
            ranks.setdefault(row, {})[source] = rank
    by_fused = {row: fused(*(by_source[s] for s in SOURCES if s in by_source)) for row, by_source in ranks.items()}
    assert sorted(result.rows.tolist()) == sorted(by_fused)
    values = []
    for i, row in enumerate(result.rows.tolist()):
        weighed = by_fused[row] * (1.0 if novel[row] else known_weight)
        assert result.scores[i] == pytest.approx(weighed)
        unexpected = max(0.05, 1 - float(VECTORS[categories[row], 0]))
        values.append(weighed * min(1.0, unexpected) ** (2 * surprise))
        source = min(ranks[row], key=lambda s: (s == I2I and not any(grounded[row]), ranks[row][s], SOURCES.index(s)))
        raw, _ = found[source][row]
        assert (result.sources[i], result.raw[i]) == (source, raw)
        assert result.source_ranks[i].tolist() == [ranks[row].get(source, NOT_FOUND) for source in SOURCES]
        assert result.interests[i] == found.get(I2I, {}).get(row, (0.0, NO_INTEREST))[1]
    assert (np.diff(values) <= 1e-6).all()
