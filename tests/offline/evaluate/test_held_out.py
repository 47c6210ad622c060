import numpy as np
import pytest

from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

# Items 0-2 in category 1, 3-5 in category 2, 6 without one. The cut is at 100.
CLICKS = [
    (0, 0, 10), (0, 1, 20), (0, 0, 110), (0, 2, 120), (0, 2, 130), (0, 4, 140), (0, 6, 150),
    (1, 3, 10), (1, 4, 20), (1, 6, 30), (1, 0, 100), (1, 5, 999),
    (2, 2, 40), (2, 1, 50),
    (3, 0, 105),
]  # fmt: skip


def catalogue() -> Catalogue:
    return Catalogue(
        item_ids=[f"i{n}" for n in range(7)],
        titles=[""] * 7,
        paths=[("a",)] * 3 + [("b",)] * 3 + [()],
        brands=[""] * 7,
        tags=[()] * 7,
        available=np.ones(7, np.bool_),
        prices=np.full(7, np.nan, np.float32),
        categories=["a", "b"],
        item_categories=np.array([1, 1, 1, 2, 2, 2, 0], np.int32),
        category_offsets=np.array([0, 3, 6]),
        novelty_level=0,
    )


def histories() -> Histories:
    clicks = sorted(CLICKS, key=lambda click: (click[0], click[2], click[1]))
    users, rows, times = (np.array([click[i] for click in clicks], np.int64) for i in range(3))
    return Histories(
        user_ids=["a", "b", "c", "d"],
        profiles=[{}] * 4,
        offsets=np.searchsorted(users, np.arange(5)),
        items=rows + 1,
        categories=catalogue().item_categories[rows],
        times=times,
        search_offsets=np.zeros(5, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


@pytest.fixture
def held_out() -> HeldOut:
    return HeldOut.between(histories(), catalogue(), cut=100, until=500)


def as_sets(targets: Targets) -> dict[int, set[int]]:
    return {
        int(user): set(targets.rows[targets.offsets[i] : targets.offsets[i + 1]].tolist())
        for i, user in enumerate(targets.users)
    }


def test_targets_are_new_to_the_user_and_known_to_training(held_out: HeldOut) -> None:
    # Item 0 is not new to user 0; item 5 was seen by nobody; user 3 by nothing; 999 is past the end.
    assert as_sets(held_out.targets) == {0: {2, 4, 6}, 1: {0}}
    assert held_out.candidates.tolist() == [0, 1, 2, 3, 4, 6]


def test_novel_targets_have_a_category_outside_the_clicked_ones(held_out: HeldOut) -> None:
    assert as_sets(held_out.novel) == {0: {4}, 1: {0}}


def test_top_lists_leave_out_what_was_clicked_and_what_is_not_novel(held_out: HeldOut) -> None:
    descending = np.arange(6, 0, -1, dtype=np.float32)
    users = np.array([0, 1, 2])

    def score(some: np.ndarray) -> np.ndarray:
        return np.tile(descending, (len(some), 1))

    every = held_out.top_k(score, users, 4, novel=False, batch=2)
    assert every.tolist() == [[2, 3, 4, 6], [0, 1, 2, -1], [0, 3, 4, 6]]
    novel = held_out.top_k(score, users, 4, novel=True)
    assert novel.tolist() == [[3, 4, -1, -1], [0, 1, 2, -1], [3, 4, -1, -1]]


def test_lists_longer_than_the_candidates_are_filled_up(held_out: HeldOut) -> None:
    found = held_out.top_k(lambda some: np.ones((len(some), 6), np.float32), np.array([0]), 9, novel=False)
    assert found.shape == (1, 9)
    assert sorted(found[0].tolist()) == [-1] * 5 + [2, 3, 4, 6]
