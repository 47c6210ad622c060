"""What a cycle draws: uniformly, by its seed, from all records alike, knowing only the past."""

from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.coevolution.config import ExamplesConfig
from serendipity.offline.coevolution.examples import known_before
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.logs.histories import Histories


def _records(clicks: list[list[tuple[int, int]]]) -> InteractionRecords:
    """clicks: per user (category, time); the item's row is its category."""
    columns = np.array([row for user in clicks for row in user], np.int64).reshape(-1, 2)
    histories = Histories(
        user_ids=[f"u{number}" for number in range(len(clicks))],
        profiles=[{} for _ in clicks],
        offsets=np.cumsum([0, *map(len, clicks)]).astype(np.int64),
        items=columns[:, 0],
        categories=columns[:, 0].astype(np.int32),
        times=columns[:, 1],
        search_offsets=np.zeros(len(clicks) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )
    size = len(columns)
    return InteractionRecords(histories, np.arange(size, dtype=np.int32), np.arange(size))


def test_a_moment_knows_nothing_of_its_own_second_or_later() -> None:
    records = _records([[(1, 1), (2, 2), (1, 3), (3, 4), (4, 5), (5, 5), (6, 9)]])
    known = [known_before(records.histories, records.groups, click) for click in (0, 3, 5, 6)]
    assert known == [(0, 1, (), 0), (0, 4, (1, 2), 3), (0, 5, (3, 1, 2), 4), (0, 9, (5, 4, 3), 6)]


def test_one_per_cent_of_all_records_is_drawn_without_repetition() -> None:
    records = _records([[(1, time) for time in range(5_000)]])
    drawn = records.sample(0.01, 1_000, np.random.default_rng(1))
    assert len(drawn) == len(set(drawn.tolist())) == 50
    assert np.all(np.diff(drawn) > 0)
    assert len(records.sample(0.01, 20, np.random.default_rng(1))) == 20
    assert len(_records([[(1, 1)]]).sample(0.01, 20, np.random.default_rng(1))) == 1


def test_the_draw_is_uniform() -> None:
    # 200 records; 10 % drawn 3,000 times: 300 of each expected, σ = 16.4.
    records = _records([[(1, time) for time in range(200)]])
    generator = np.random.default_rng(11)
    drawn = np.zeros(200)
    for _ in range(3_000):
        drawn[records.sample(0.1, 1_000, generator)] += 1
    assert np.abs(drawn - 300).max() < 5 * 16.4


def test_the_same_seed_draws_the_same_and_another_draws_otherwise() -> None:
    records = _records([[(1, time) for time in range(2_000)]])
    first, second, other = (records.sample(0.1, 1_000, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.tolist() == second.tolist()
    assert first.tolist() != other.tolist()


def test_groups_of_other_histories_are_refused() -> None:
    records = _records([[(1, 1), (2, 2)]])
    with pytest.raises(ValueError, match="groups: found 1,"):
        InteractionRecords.of(records.histories, np.zeros(1, np.int32), ExamplesConfig())


def test_only_clicks_of_the_splits_users_are_records() -> None:
    records = _records([[(user % 3 + 1, 1), (0, 2)] for user in range(200)])
    config = ExamplesConfig(validation_share=0.2)
    trained = InteractionRecords.of(records.histories, records.groups, config)
    assert set(trained.clicks.tolist()) < set(range(0, 400, 2))
    assert 140 <= len(trained) <= 180
