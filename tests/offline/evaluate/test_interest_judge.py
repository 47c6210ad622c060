"""The judge calls plausible what users like this one turn to, and knows nothing of the period it judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.offline.evaluate.interest_judge import SENSITIVITY, Judge, clicked_between, is_novel, recent_clicks
from serendipity.offline.logs.histories import Histories

DAY = 86_400
NUM_CATEGORIES = 12
START, END, UNTIL = 100 * DAY, 130 * DAY, 160 * DAY


def make_histories(num_users: int = 400, seed: int = 3) -> Histories:
    """Users of two tribes: they click in half of their tribe's six categories, and later enter others of the six."""
    rng = np.random.default_rng(seed)
    rows: list[list[tuple[int, int]]] = []
    for user in range(num_users):
        own = rng.permutation(np.arange(1, 7) + 6 * (user % 2))
        past = [(int(rng.integers(0, START)), int(rng.choice(own[:3]))) for _ in range(20)]
        then = [(int(rng.integers(START, END)), int(own[3])) for _ in range(2)]
        later = [(int(rng.integers(END, UNTIL)), int(own[4])) for _ in range(2)]
        rows.append(sorted([*past, *then, *later]))
    times = np.array([time for clicks in rows for time, _ in clicks], np.int64)
    categories = np.array([category for clicks in rows for _, category in clicks], np.int32)
    return Histories(
        user_ids=[f"u{user:03d}" for user in range(num_users)],
        profiles=[{} for _ in rows],
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        items=np.ones(len(times), np.int64),
        categories=categories,
        times=times,
        search_offsets=np.zeros(num_users + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def make_vectors() -> NDArray[np.float32]:
    vectors = np.zeros((NUM_CATEGORIES + 1, NUM_CATEGORIES), np.float32)
    vectors[1:] = np.eye(NUM_CATEGORIES)
    return vectors


@pytest.fixture(scope="module")
def histories() -> Histories:
    return make_histories()


@pytest.fixture(scope="module")
def judge(histories: Histories) -> Judge:
    return Judge.fit(histories, make_vectors(), START, END, np.random.default_rng(0))


def test_the_judge_tells_what_a_tribe_turns_to_from_what_it_never_does(judge: Judge, histories: Histories) -> None:
    users = np.arange(len(histories))
    plausible = judge.plausible(users)
    own = plausible[0::2, 1:7].mean() + plausible[1::2, 7:].mean()
    foreign = plausible[0::2, 7:].mean() + plausible[1::2, 1:7].mean()
    assert own / 2 >= SENSITIVITY - 0.05
    assert foreign / 2 < 0.05
    assert judge.auc > 0.8
    assert not plausible[:, 0].any()


def test_it_keeps_nine_in_ten_of_what_users_later_enter(judge: Judge, histories: Histories) -> None:
    users = np.arange(len(histories))
    novel = is_novel(recent_clicks(histories, users, END, NUM_CATEGORIES))
    entered = clicked_between(histories, users, END, UNTIL, NUM_CATEGORIES) & novel
    assert entered.any()
    assert judge.plausible(users)[entered].mean() >= SENSITIVITY - 0.05


def test_what_happens_after_the_moment_changes_nothing(judge: Judge, histories: Histories) -> None:
    later = histories.times >= END
    changed = replace(histories, categories=np.where(later, 1, histories.categories).astype(np.int32))
    other = Judge.fit(changed, make_vectors(), START, END, np.random.default_rng(0))
    users = np.arange(len(histories))
    assert np.array_equal(other.plausible(users), judge.plausible(users))


def test_a_period_in_which_nobody_entered_anything_is_refused(histories: Histories) -> None:
    with pytest.raises(ValueError, match="nobody entered a category"):
        Judge.fit(histories, make_vectors(), UNTIL + DAY, UNTIL + 2 * DAY, np.random.default_rng(0))


def test_a_user_without_clicks_is_judged_by_what_is_usual(judge: Judge, histories: Histories) -> None:
    offsets = np.concatenate([histories.offsets, histories.offsets[-1:]])
    known = replace(
        histories,
        user_ids=[*histories.user_ids, "cold"],
        profiles=[*histories.profiles, {}],
        offsets=offsets,
        search_offsets=np.zeros(len(offsets), np.int64),
    )
    cold = Judge.fit(known, make_vectors(), START, END, np.random.default_rng(0))
    assert np.isfinite(cold.usual).all()
    assert cold.plausible(np.array([len(histories)])).shape == (1, NUM_CATEGORIES + 1)
