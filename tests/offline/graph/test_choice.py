from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from serendipity.offline.graph.choice import GraphBuildConfig, choose, item_trend
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, before

DAY = 86_400
NUM_USERS, NUM_ITEMS, EARLY, LATE = 60, 160, 9, 1
LATER = 100 * DAY
"""When the later clicks begin, a tenth of all."""

CONFIG = GraphBuildConfig.model_validate(
    {
        "held": {"num_clusters": (2,), "most_held": (3,)},
        "model": {"dim": 8, "trainer": {"max_epochs": 3, "check_every": 1}},
    }
)


def catalogue() -> Catalogue:
    """Every item is a category of its own."""
    return Catalogue(
        item_ids=[f"i{row:03d}" for row in range(NUM_ITEMS)],
        titles=["tent sleeping stove" if row < NUM_ITEMS // 2 else "bread flour yeast" for row in range(NUM_ITEMS)],
        paths=[(f"shelf {row:03d}",) for row in range(NUM_ITEMS)],
        brands=[""] * NUM_ITEMS,
        tags=[()] * NUM_ITEMS,
        available=np.ones(NUM_ITEMS, np.bool_),
        prices=np.full(NUM_ITEMS, np.nan, np.float32),
        categories=[f"shelf {row:03d}" for row in range(NUM_ITEMS)],
        item_categories=np.arange(1, NUM_ITEMS + 1, dtype=np.int32),
        category_offsets=np.arange(NUM_ITEMS + 1),
        novelty_level=0,
    )


def histories(*, fashion: bool) -> Histories:
    """Users of two tastes click items of theirs. fashion: every taste's hot items come up late, and are clicked next.

    Without it, the items that come up late are those that nobody goes on to.
    """
    rng = np.random.default_rng(1)
    hot = np.arange(3)
    items, times = [], []
    for user in range(NUM_USERS):
        half = NUM_ITEMS // 2 * (user % 2)
        early = rng.choice(np.arange(3, NUM_ITEMS // 2), EARLY, replace=False)
        late = int(rng.choice(hot))
        # Half of the users have met the hot items by now, the others do next, or turn to anything else.
        if user % 4 < 2:
            early[-2:] = rng.choice(hot, 2, replace=False)
        elif not fashion:
            late = int(rng.choice(np.setdiff1d(np.arange(3, NUM_ITEMS // 2), early)))
        items += [*(half + early + 1), half + late + 1]
        times += [*(np.arange(EARLY - 2) * DAY), LATER - 2 * DAY, LATER - DAY, LATER + user]
    items_of = np.array(items, np.int64)
    clicks = EARLY + LATE
    return Histories(
        user_ids=[f"u{user:02d}" for user in range(NUM_USERS)],
        profiles=[{}] * NUM_USERS,
        offsets=np.arange(NUM_USERS + 1) * clicks,
        items=items_of,
        categories=items_of.astype(np.int32),
        times=np.array(times, np.int64),
        search_offsets=np.zeros(NUM_USERS + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def test_the_way_that_finds_most_of_the_later_clicks_is_taken() -> None:
    found = choose(histories(fashion=True), catalogue(), CONFIG)
    assert len(found.recall) == len(CONFIG.powers) * len(CONFIG.trends)
    best = max(found.recall.values(), key=np.prod)
    taken = f"{found.choice.power:g}, {found.choice.trend:g}"
    assert np.prod(found.recall[taken]) == pytest.approx(np.prod(best))


def test_the_trend_counts_where_later_clicks_follow_it_and_not_otherwise() -> None:
    assert choose(histories(fashion=True), catalogue(), CONFIG).choice.trend > 0
    assert choose(histories(fashion=False), catalogue(), CONFIG).choice.trend == 0


def test_nothing_of_the_later_clicks_is_looked_at_by_the_trend() -> None:
    made = histories(fashion=True)
    whole = item_trend(before(made, LATER), catalogue(), LATER)
    assert np.array_equal(item_trend(made, catalogue(), LATER), whole)
    assert whole[:3].min() > 1


def test_without_novel_clicks_the_first_way_is_taken() -> None:
    made = histories(fashion=True)
    made.categories[:] = 1
    of_one = catalogue()
    of_one.item_categories[:] = 1
    found = choose(made, of_one, CONFIG)
    assert found.recall == {}
    assert (found.choice.power, found.choice.trend) == (CONFIG.powers[0], CONFIG.trends[0])


def test_training_chooses_its_epochs_on_the_later_clicks() -> None:
    found = choose(histories(fashion=True), catalogue(), CONFIG.model_copy(update={"trained": True}))
    assert 1 <= found.choice.epochs <= 3
    assert len(found.recall) == len(CONFIG.trends)


@pytest.mark.parametrize(
    "wrong",
    [
        {"powers": (float("inf"),)},
        {"powers": (-3.0,)},
        {"trends": (float("nan"),)},
        {"trends": (1000.0,)},
        {"held": {"num_clusters": (0,)}},
        {"held": {"most_held": (10,)}},
        {"held": {"seed": -1}},
        {"model": {"seed": -1}},
    ],
)
def test_numbers_that_nothing_can_be_made_with_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GraphBuildConfig.model_validate(wrong)
