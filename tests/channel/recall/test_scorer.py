from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.pool import Pool
from serendipity.channel.recall.query import SOURCES, SourceBounds
from serendipity.channel.recall.scorer import FEATURE_NAMES, NOT_FOUND, Scored, rank_features, score
from serendipity.channel.recall.selector import Quota, select
from serendipity.channel.recall.sources import NO_INTEREST, Finds
from serendipity.v1 import channel_pb2 as pb

I2I, U2I, GROUP = pb.SOURCE_INTEREST, pb.SOURCE_COLLABORATIVE, pb.SOURCE_GROUP

NO_LIST = NovelCategories.none(pb.NOVEL_CATEGORY_KEY_NONE)

Find = tuple[float, float, int]
"""Raw score, probability, interest."""


def pool(
    rows: Sequence[int],
    categories: Sequence[int] | None = None,
    novel: Sequence[bool] | None = None,
    grounded: Sequence[Sequence[bool]] | None = None,
) -> Pool:
    m = len(rows)
    return Pool(
        rows=np.array(rows, np.int64),
        scores=np.zeros((m, 1), np.float32),
        grounded=np.zeros((m, 0), np.bool_) if grounded is None else np.array(grounded, np.bool_),
        categories=np.ones(m, np.int32) if categories is None else np.array(categories, np.int32),
        novel=np.ones(m, np.bool_) if novel is None else np.array(novel, np.bool_),
    )


def finds(of: Pool, found: Mapping[int, Find]) -> Finds:
    """Finds of a source by row."""
    columns = [found.get(row, (9.0, 9.0, 9)) for row in of.rows.tolist()]
    return Finds(
        found=np.array([row in found for row in of.rows.tolist()], np.bool_),
        # Where nothing is found there is rubbish, which nobody may look at.
        raw=np.array([raw for raw, _, _ in columns], np.float32),
        probabilities=np.array([probability for _, probability, _ in columns], np.float32),
        interests=np.array([interest for _, _, interest in columns], np.int16),
    )


def scored(
    of: Pool, found: Mapping[pb.Source, Mapping[int, Find]], wanted: int = 100, known_weight: float = 1.0
) -> Scored:
    return score(of, {source: finds(of, each) for source, each in found.items()}, wanted, known_weight)


def alone(raw: float, probability: float) -> Find:
    """A find that no interest led to."""
    return raw, probability, NO_INTEREST


def test_an_item_of_several_sources_takes_the_highest_score() -> None:
    result = scored(
        pool([7, 8]),
        {I2I: {7: (0.4, 0.2, 0), 8: (1.0, 0.5, 1)}, U2I: {7: alone(5.0, 0.5), 8: alone(1.0, 0.1)}},
    )
    assert result.rows.tolist() == [7, 8]
    assert result.scores.tolist() == [0.5, 0.5]
    assert result.sources.tolist() == [U2I, I2I]
    assert result.raw.tolist() == [5.0, 1.0]
    # What leads the interest source to an item is told whichever source it is returned for.
    assert result.interests.tolist() == [0, 1]


def test_ties_go_to_the_better_rank_then_to_the_earlier_row() -> None:
    # Above the last knot all probabilities are equal.
    result = scored(pool([1, 2, 3]), {I2I: {1: (3.0, 0.5, 0), 2: (2.0, 0.5, 0), 3: (9.0, 0.5, 0)}})
    assert len(set(result.scores.tolist())) == 1
    assert result.rows.tolist() == [3, 1, 2]
    # Each is the best of its source.
    result = scored(pool([1, 2]), {I2I: {2: (1.0, 0.5, 0)}, U2I: {1: alone(5.0, 0.5)}})
    assert result.rows.tolist() == [1, 2]
    # Nothing tells them apart but their rows.
    result = scored(pool([3, 5, 8]), {U2I: {row: alone(1.0, 0.5) for row in (3, 5, 8)}})
    assert result.rows.tolist() == [3, 5, 8]
    assert result.source_ranks[:, 1].tolist() == [0, 1, 2]


def test_of_sources_that_score_an_item_alike_the_one_that_ranks_it_better_has_it_then_the_first() -> None:
    result = scored(
        pool([1, 2]),
        {I2I: {1: (1.0, 0.5, 0), 2: (2.0, 0.6, 0)}, U2I: {1: alone(3.0, 0.5)}, GROUP: {1: alone(4.0, 0.5)}},
    )
    assert dict(zip(result.rows.tolist(), result.sources.tolist(), strict=True)) == {1: U2I, 2: I2I}
    # A source that gives probability 0 found the item all the same, and one that did not find it has none.
    result = scored(pool([1]), {GROUP: {1: alone(1.0, 0.0)}, U2I: {}})
    assert (result.rows.tolist(), result.sources.tolist(), result.scores.tolist()) == ([1], [GROUP], [0.0])


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
    found = {
        source: {row: alone(raw := random.random(), raw / 2) for row, by in enumerate(found_by) if source in by}
        for source in SOURCES
    }
    result = score(of, {source: finds(of, each) for source, each in found.items()}, 100, 1.0, bounds)
    quotas = [Quota(frozenset([source]), bound.min_count, bound.max_count) for source, bound in bounds.items()]
    chosen = result.take(select(result, count, quotas, count))
    held = {source: chosen.sources.tolist().count(source) for source in SOURCES}
    for row, source, probability in zip(chosen.rows, chosen.sources, chosen.scores, strict=True):
        assert probability == np.float32(found[source][row][1])
    assert all(held[source] <= bound.max_count for source, bound in bounds.items())
    if len(bounds) == 1:
        ((source, bound),) = bounds.items()
        assert held[source] >= min(bound.min_count, len(found[source]))
    if len(chosen) < count:
        full = {source for source, bound in bounds.items() if held[source] == bound.max_count}
        assert all(found_by[row] <= full for row in set(range(len(found_by))) - set(chosen.rows.tolist()))


def test_sources_with_few_finds_take_their_minima_first() -> None:
    everything = {row: (1.0, 0.9 - row / 100, 0) for row in range(10)}
    of = pool(range(10))
    found = {I2I: everything, U2I: {row: alone(1.0, 0.1) for row in range(6)}, GROUP: {0: alone(1.0, 0.05)}}
    bounds = {I2I: SourceBounds(4, 10), U2I: SourceBounds(5, 10), GROUP: SourceBounds(1, 10)}
    result = score(of, {source: finds(of, each) for source, each in found.items()}, 100, 1.0, bounds)
    assert dict(zip(result.rows.tolist(), result.sources.tolist(), strict=True)) == {
        0: GROUP, **dict.fromkeys(range(1, 6), U2I), **dict.fromkeys(range(6, 10), I2I),
    }  # fmt: skip


def test_only_the_best_of_each_source_count() -> None:
    of = pool(range(6))
    result = scored(
        of,
        {
            I2I: {row: (float(row), row / 10, 0) for row in range(6)},
            # What ties in probability is told apart by the raw score.
            U2I: {row: alone(float(-row), 0.05) for row in range(4)},
        },
        wanted=2,
    )
    assert result.rows.tolist() == [5, 4, 0, 1]
    assert result.sources.tolist() == [I2I, I2I, U2I, U2I]
    assert result.source_ranks.tolist() == [
        [0, -1, -1, -1], [1, -1, -1, -1], [-1, 0, -1, -1], [-1, 1, -1, -1],
    ]  # fmt: skip
    assert result.interests.tolist() == [0, 0, NO_INTEREST, NO_INTEREST]
    assert result.source_scores[result.source_ranks == NOT_FOUND].tolist() == [0.0] * 12


def test_what_no_source_found_is_not_returned() -> None:
    result = scored(pool([1, 2, 3]), {U2I: {2: alone(1.0, 0.5)}})
    assert result.rows.tolist() == [2]
    assert len(scored(pool([1, 2, 3]), {})) == 0


def test_soft_novelty_weighs_what_is_known() -> None:
    of = pool([1, 2], novel=[False, True])
    result = scored(of, {I2I: {1: (1.0, 0.5, 0), 2: (0.8, 0.4, 0)}}, known_weight=0.5)
    assert result.rows.tolist() == [2, 1]
    assert result.scores.tolist() == pytest.approx([0.4, 0.25])
    assert result.novel.tolist() == [True, False]


def test_what_is_known_of_an_item_follows_it_into_its_place() -> None:
    of = pool([1, 2, 3], [4, 5, 6], [True, False, True], [[True, False], [False, False], [False, True]])
    result = scored(of, {U2I: {1: alone(1.0, 0.1), 2: alone(2.0, 0.2), 3: alone(3.0, 0.3)}})
    assert result.rows.tolist() == [3, 2, 1]
    assert result.categories.tolist() == [6, 5, 4]
    assert result.novel.tolist() == [True, False, True]
    assert result.grounded.tolist() == [[False, True], [False, False], [True, False]]
    chosen = result.take(np.array([2, 0]))
    assert (chosen.rows.tolist(), chosen.categories.tolist()) == ([1, 3], [4, 6])
    assert chosen.grounded.tolist() == [[True, False], [False, True]]


def test_nothing_found_is_nothing_scored() -> None:
    result = score(Pool.empty(), {}, 10)
    assert len(result) == 0
    nothing = np.empty(0, np.float32)
    assert rank_features(result, nothing, nothing, NO_LIST).shape == (0, len(FEATURE_NAMES))


def test_features_say_what_each_source_found() -> None:
    result = scored(pool([5, 6]), {I2I: {5: (1.0, 0.5, 1), 6: (0.5, 0.25, 0)}, U2I: {6: alone(2.0, 0.2)}})
    features = rank_features(result, np.array([0.25, 0.75], np.float32), np.array([0.9, 0.3], np.float32), NO_LIST)
    columns = {name: features[:, i].tolist() for i, name in enumerate(FEATURE_NAMES)}
    assert result.rows.tolist() == [5, 6]
    assert columns["relevance"] == [1.0, 0.5]
    assert columns["unexpectedness"] == [0.25, 0.75]
    assert columns["novel"] == [1.0, 1.0]
    assert columns["interest_weight"] == pytest.approx([0.3, 0.9])
    assert columns["interest_score"] == [0.5, 0.25]
    assert columns["interest_reciprocal_rank"] == [1.0, 0.5]
    assert columns["collaborative_score"] == pytest.approx([0.0, 0.2])
    assert columns["collaborative_reciprocal_rank"] == [0.0, 1.0]


def test_only_what_is_returned_for_an_interest_has_its_weight() -> None:
    result = scored(pool([5]), {I2I: {5: (1.0, 0.1, 0)}, U2I: {5: alone(2.0, 0.2)}})
    features = rank_features(result, np.zeros(1, np.float32), np.array([0.9], np.float32), NO_LIST)
    assert features[0, FEATURE_NAMES.index("interest_weight")] == 0
    assert features[0, FEATURE_NAMES.index("interest_score")] == pytest.approx(0.1)


def test_features_tell_the_alignment_of_an_items_category_whichever_source_found_it() -> None:
    of = pool([5, 6, 7], [3, 2, 2])
    result = scored(of, {I2I: {5: (1.0, 0.5, 1)}, GROUP: {6: alone(2.0, 0.2), 7: alone(1.0, 0.1)}})
    nothing = np.zeros(0, np.int64)
    novel = NovelCategories(
        key=pb.NOVEL_CATEGORY_KEY_M2,
        group_id=1,
        profile="",
        recent=("a", "b"),
        names=("c",),
        numbers=np.array([2], np.int32),
        alignments=np.array([0.75], np.float32),
        starts=nothing,
        ends=nothing,
        state=pb.SOURCE_STATE_OK,
        generation=0,
    )
    features = rank_features(result, np.zeros(3, np.float32), np.ones(2, np.float32), novel)
    columns = {name: features[:, i].tolist() for i, name in enumerate(FEATURE_NAMES)}
    assert result.rows.tolist() == [5, 6, 7]
    assert columns["alignment"] == [0.0, 0.75, 0.75]
    assert columns["alignment_recent"] == [0.0, 2.0, 2.0]
    assert columns["group_score"] == pytest.approx([0.0, 0.2, 0.1])
    assert columns["group_reciprocal_rank"] == [0.0, 1.0, 0.5]
    assert columns["interest_weight"] == [1.0, 0.0, 0.0]
    default = replace(novel, key=pb.NOVEL_CATEGORY_KEY_DEFAULT, recent=())
    features = rank_features(result, np.zeros(3, np.float32), np.ones(2, np.float32), default)
    assert features[:, FEATURE_NAMES.index("alignment_recent")].tolist() == [0.0, -1.0, -1.0]


# Few different values, as isotonic curves give.
found_by_row = st.dictionaries(
    st.integers(0, 30),
    st.tuples(st.integers(-4, 4).map(float), st.sampled_from([0.0, 0.125, 0.5, 1.0]), st.integers(0, 5)),
    max_size=25,
)


@given(
    found=st.dictionaries(st.sampled_from(SOURCES), found_by_row),
    novel=st.lists(st.booleans(), min_size=31, max_size=31),
    wanted=st.integers(1, 30),
    known_weight=st.sampled_from([0.5, 1.0]),
)
def test_scoring_agrees_with_a_plain_reading(
    found: dict[pb.Source, dict[int, Find]], novel: list[bool], wanted: int, known_weight: float
) -> None:
    # Interests lead to what the interest source finds, and to nothing else.
    for other in found.keys() - {I2I}:
        found[other] = {row: alone(raw, probability) for row, (raw, probability, _) in found[other].items()}
    result = scored(pool(range(31), novel=novel), found, wanted, known_weight)
    ranks: dict[int, dict[pb.Source, int]] = {}
    for source, each in found.items():
        best = sorted(each, key=lambda row: (-each[row][1], -each[row][0], row))[:wanted]
        for rank, row in enumerate(best):
            ranks.setdefault(row, {})[source] = rank
    expected = []
    for row, by_source in ranks.items():
        source = min(by_source, key=lambda s: (-found[s][row][1], by_source[s], SOURCES.index(s)))
        raw, probability, _ = found[source][row]
        weighed = probability * (1.0 if novel[row] else known_weight)
        expected.append((-weighed, by_source[source], row, source, raw))
    expected.sort()
    assert result.rows.tolist() == [row for _, _, row, _, _ in expected]
    assert result.scores.tolist() == [-weighed for weighed, *_ in expected]
    assert result.sources.tolist() == [source for *_, source, _ in expected]
    assert result.raw.tolist() == [raw for *_, raw in expected]
    for i, row in enumerate(result.rows.tolist()):
        assert result.source_ranks[i].tolist() == [ranks[row].get(source, NOT_FOUND) for source in SOURCES]
        led = found[I2I][row][2] if I2I in ranks[row] else NO_INTEREST
        assert result.interests[i] == led
