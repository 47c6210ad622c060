from __future__ import annotations

import numpy as np

from benchmarks.coea.metrics import ranked
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.two_tower import TwoTower, numbered_from_the_end
from serendipity.offline.towers.config import RowsConfig, TowersConfig, TrainerConfig
from tests.benchmarks.coea.worlds import catalogue, histories

DAY = 86_400


def test_clocks_count_clicks_from_the_end_so_that_all_users_share_a_moment() -> None:
    numbered = numbered_from_the_end(histories([[1, 2, 3], [1]]))

    assert np.diff(numbered.times[:3]).tolist() == [DAY, DAY]
    assert numbered.times[2] == numbered.times[3]


def test_the_towers_name_what_is_clicked_by_users_alike() -> None:
    rng = np.random.default_rng(0)
    clicks = [(rng.integers(0, 6, 30) + (1 if user % 2 else 7)).tolist() for user in range(80)]
    split = CategorySplit.leave_last_out(histories(clicks), catalogue(12))
    config = TowersConfig(
        item_interest=False,
        rows=RowsConfig(history_length=8, max_interests=1, num_cuts=1, label_window=0.2, min_item_users=1),
        trainer=TrainerConfig(max_epochs=2, batch_users=32),
    )
    fitted = TwoTower(towers=config).fit(split, 0)

    top = ranked(fitted.scores(split.test, {"pooling": 0.0}), split.test, 1)[:, 0]

    own = [(top[row] < 6) == bool(user % 2) for row, user in enumerate(split.test.users.tolist())]
    assert np.mean(own) > 0.9
