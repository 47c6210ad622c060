from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serendipity.channel.recall.candidates import NO_INTEREST, Candidates
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import NovelCategoryKey, SourceState
from serendipity.channel.recall.scorer import FEATURE_NAMES, Scored, rank_features, score
from serendipity.channel.snapshot.calibration import Calibration, Knots

I2I, U2I, GROUP = Source.INTEREST, Source.COLLABORATIVE, Source.GROUP

NO_LIST = NovelCategories.none(NovelCategoryKey.NONE)


def knots(raw: list[float], probability: list[float]) -> Knots:
    return Knots(np.array(raw), np.array(probability))


CALIBRATION = Calibration(
    "test",
    {
        (I2I, False): knots([0, 1], [0.0, 0.5]),
        (U2I, False): knots([0, 10], [0.0, 1.0]),
        (U2I, True): knots([0, 10], [0.0, 0.1]),
    },
)


def candidates(*finds: tuple[int, Source, float, int]) -> Candidates:
    rows, sources, raw, interests = zip(*finds, strict=True) if finds else ((), (), (), ())
    return Candidates(
        np.array(rows, np.int64), np.array(sources, np.int8), np.array(raw, np.float32), np.array(interests, np.int16)
    )


def scored(found: Candidates, novel: list[bool] | None = None, **options: object) -> Scored:
    return score(
        found,
        np.ones(len(found), np.int32),
        np.array(novel if novel is not None else [True] * len(found)),
        np.arange(100, dtype=np.int32)[::-1],
        CALIBRATION,
        **{"fallback": False, "interest_factors": np.ones(16, np.float32), **options},  # type: ignore[arg-type]
    )


def test_an_item_of_several_sources_takes_the_highest_score() -> None:
    result = scored(
        candidates((7, I2I, 0.4, 0), (7, U2I, 5.0, NO_INTEREST), (8, I2I, 1.0, 1), (8, U2I, 1.0, NO_INTEREST))
    )
    assert result.rows.tolist() == [8, 7]
    assert result.scores.tolist() == [0.5, 0.5]
    assert result.sources.tolist() == [I2I, U2I]
    assert result.raw.tolist() == [1.0, 5.0]
    assert result.interests.tolist() == [1, NO_INTEREST]


def test_of_several_interests_the_nearest_counts() -> None:
    result = scored(candidates((7, I2I, 0.2, 0), (7, I2I, 0.9, 3), (7, I2I, 0.5, 1)))
    assert (result.rows.tolist(), result.interests.tolist()) == ([7], [3])
    assert result.source_ranks.tolist() == [[0, -1, -1]]


def test_ties_go_to_the_better_rank_then_to_the_smaller_id() -> None:
    # Above the last knot all scores are equal; ids are ordered against rows here.
    result = scored(candidates((1, I2I, 3.0, 0), (2, I2I, 2.0, 0), (3, I2I, 9.0, 0)))
    assert len(set(result.scores.tolist())) == 1
    assert result.rows.tolist() == [3, 1, 2]
    result = scored(candidates((1, I2I, 1.0, 0), (2, U2I, 5.0, NO_INTEREST)))
    assert result.rows.tolist() == [2, 1]


def test_soft_novelty_weighs_what_is_known() -> None:
    found = candidates((1, I2I, 1.0, 0), (2, I2I, 0.8, 0))
    result = scored(found, novel=[False, True], known_weight=0.5)
    assert result.rows.tolist() == [2, 1]
    assert result.scores.tolist() == pytest.approx([0.4, 0.25])
    assert result.novel.tolist() == [True, False]


def test_stored_vectors_have_a_calibrator_of_their_own() -> None:
    found = candidates((1, U2I, 10.0, NO_INTEREST))
    assert scored(found).scores.tolist() == [1.0]
    assert scored(found, fallback=True).scores.tolist() == pytest.approx([0.1])
    # A source without one for stored vectors takes the tower's.
    assert scored(candidates((1, I2I, 1.0, 0)), fallback=True).scores.tolist() == [0.5]


def test_without_calibrators_scores_are_read_as_log_odds() -> None:
    raw = np.array([-1e30, -2.0, 0.0, 2.0, 1e30], np.float32)
    probabilities = Calibration().probabilities(I2I, False, raw)
    assert probabilities.tolist() == pytest.approx([0.0, 0.11920292, 0.5, 0.88079708, 1.0])


@given(npst.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)), st.booleans())
def test_calibration_keeps_the_order_and_gives_probabilities(raw: np.ndarray, calibrated: bool) -> None:
    raw.sort()
    probabilities = (CALIBRATION if calibrated else Calibration()).probabilities(U2I, False, raw)
    assert (np.diff(probabilities) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_the_group_source_without_a_curve_takes_that_of_u2i() -> None:
    raw = np.array([1.0, 5.0, 50.0], np.float32)
    assert CALIBRATION.probabilities(GROUP, False, raw).tolist() == pytest.approx([0.1, 0.5, 1.0])
    assert CALIBRATION.probabilities(GROUP, True, raw).tolist() == pytest.approx([0.01, 0.05, 0.1])
    own = Calibration("own", {**CALIBRATION.knots, (GROUP, False): knots([0, 10], [0.0, 0.5])})
    assert own.probabilities(GROUP, False, raw).tolist() == pytest.approx([0.05, 0.25, 0.5])
    # Its own for the tower goes before another source's for stored vectors.
    assert own.probabilities(GROUP, True, raw).tolist() == pytest.approx([0.05, 0.25, 0.5])
    uncalibrated = Calibration().probabilities(GROUP, False, raw)
    assert uncalibrated.tolist() == Calibration().probabilities(U2I, False, raw).tolist()


def test_nothing_found_is_nothing_scored() -> None:
    result = scored(candidates())
    assert len(result) == 0
    nothing = np.empty(0, np.float32)
    assert rank_features(result, nothing, nothing, NO_LIST).shape == (0, len(FEATURE_NAMES))


def test_features_say_what_each_source_found() -> None:
    result = scored(candidates((5, I2I, 1.0, 1), (6, I2I, 0.5, 0), (6, U2I, 2.0, NO_INTEREST)))
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


def test_features_tell_the_alignment_of_an_items_category_whichever_source_found_it() -> None:
    found = candidates((5, I2I, 1.0, 1), (6, GROUP, 2.0, NO_INTEREST), (7, GROUP, 1.0, NO_INTEREST))
    result = score(
        found,
        np.array([3, 2, 2], np.int32),
        np.ones(3, np.bool_),
        np.arange(100, dtype=np.int32),
        CALIBRATION,
        fallback=False,
        interest_factors=np.ones(2, np.float32),
    )
    nothing = np.zeros(0, np.int64)
    novel = NovelCategories(
        key=NovelCategoryKey.M2,
        group_id=1,
        profile="",
        recent=("a", "b"),
        names=("c",),
        numbers=np.array([2], np.int32),
        alignments=np.array([0.75], np.float32),
        starts=nothing,
        ends=nothing,
        state=SourceState.OK,
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
    default = replace(novel, key=NovelCategoryKey.DEFAULT, recent=())
    features = rank_features(result, np.zeros(3, np.float32), np.ones(2, np.float32), default)
    assert features[:, FEATURE_NAMES.index("alignment_recent")].tolist() == [0.0, -1.0, -1.0]


finds = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(list(Source)), st.floats(-2, 12, width=32), st.integers(0, 5)),
    max_size=80,
    unique_by=lambda find: (find[0], find[1], find[3]),
)


@given(finds)
def test_scoring_agrees_with_a_plain_reading(drawn: list[tuple[int, Source, float, int]]) -> None:
    result = scored(candidates(*drawn))
    assert sorted(result.rows.tolist()) == sorted({row for row, *_ in drawn})
    assert (np.diff(result.scores) <= 0).all()
    for row, found, source in zip(result.rows.tolist(), result.scores.tolist(), result.sources.tolist(), strict=True):
        by_source = {
            other: float(CALIBRATION.probabilities(other, False, np.array([raw], np.float32))[0])
            for r, other, raw, _ in sorted(drawn, key=lambda find: find[2])
            if r == row
        }
        assert found == pytest.approx(max(by_source.values()))
        assert by_source[Source(source)] == pytest.approx(found)


def test_feedback_moves_the_probability_of_what_an_interest_led_to() -> None:
    found = candidates((1, I2I, 0.8, 0), (2, I2I, 0.6, 1), (1, I2I, 0.5, 1), (3, U2I, 2.0, NO_INTEREST))
    before = scored(found)
    after = scored(found, interest_factors=np.array([0.25, 1.5], np.float32))
    assert before.rows.tolist() == [1, 2, 3]
    assert after.rows.tolist() == [2, 1, 3]
    np.testing.assert_allclose(after.scores, [0.45, 0.375, 0.2], rtol=1e-6)
    # Item 1 is now there for its other interest, and its rank within the source follows.
    assert after.interests[after.rows == 1].tolist() == [1]
    assert after.source_ranks[after.rows == 1, 0].tolist() == [1]
    # U2I has no interest to be moved by, and no probability goes beyond 1.
    raised = scored(candidates((1, I2I, 1.0, 0)), interest_factors=np.array([4.0], np.float32))
    assert raised.scores.tolist() == [1.0]
