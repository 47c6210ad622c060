"""Items of categories that lie near a user's come first, as far as validation says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.category_scores import EXPONENTS, carried_over, choose_exponent, near_popular
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.small_histories import UNTIL as LATER
from tests.fixtures.small_histories import make_small_histories
from tests.fixtures.small_host import DAY, NUM_DAYS, START, write_small_host
from tests.fixtures.small_world import NOW, SmallWorld


def test_what_goes_with_what_is_carried_over_by_name_without_the_users_left_out(tmp_path: Path) -> None:
    write_small_host(tmp_path / "host", num_users=20, num_items=60)
    build_logs(tmp_path / "host", tmp_path / "logs", LogsConfig(novelty_level=0), now=START + NUM_DAYS * DAY)
    histories, categories = Histories.read(tmp_path / "logs"), Catalogue.read(tmp_path / "logs").categories
    carried = carried_over(tmp_path / "logs", [*categories[::-1], "elsewhere"], [])
    assert carried.shape == (len(categories) + 2, len(categories) + 2)
    assert not carried[[0, -1]].any()
    assert not carried[:, [0, -1]].any()
    kept = [user for user in histories.user_ids if user != histories.user_ids[0]]
    bought = [{*histories.clicks_before(user, LATER).categories.tolist()} for user in range(len(histories))]
    last, first = len(categories), 1
    both = sum({last, first} <= one for one in bought)
    lengths = np.sqrt(sum(last in one for one in bought) * sum(first in one for one in bought))
    # The last name there is the first one here.
    assert carried[1, len(categories)] == pytest.approx(both / lengths)
    alone = carried_over(tmp_path / "logs", categories, kept)
    assert set(np.unique(alone.round(5)).tolist()) == {0.0, 1.0}


def test_nearness_orders_categories_and_popularity_the_items_inside(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    held_out = HeldOut.between(histories, small_world.catalogue, NOW, LATER)
    statistics = ClickStatistics.of(histories, held_out)
    users, categories = statistics.users[held_out.candidates], held_out.item_categories[held_out.candidates]
    near = np.full((13, 13), 1e-3, np.float32)
    near[:, 4] = 1
    [popular] = near_popular(near, held_out, statistics, 0.0)(held_out.novel.users[:1])
    np.testing.assert_array_equal(popular, users)
    [scores] = near_popular(near, held_out, statistics, 4.0)(held_out.novel.users[:1])
    assert categories[scores.argmax()] == 4
    inside = categories == 4
    np.testing.assert_array_equal(np.argsort(scores[inside], kind="stable"), np.argsort(users[inside], kind="stable"))


def test_nearness_that_tells_nothing_does_not_count(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    assert choose_exponent(np.ones((13, 13), np.float32), histories, small_world.catalogue, NOW) == EXPONENTS[0] == 0
