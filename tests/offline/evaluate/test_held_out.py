import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

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


def random_held_out(rng: np.random.Generator) -> HeldOut:
    num_users, num_items, num_categories = (int(rng.integers(1, high)) for high in (6, 16, 5))
    seen = (rng.random((num_users, num_items)) < 0.3).astype(np.float32)
    seen[0, 0] = 1
    clicked = rng.random((num_users, num_categories + 1)) < 0.4
    clicked[:, 0] = True
    nothing = Targets.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    return HeldOut(
        cut=0,
        until=1,
        candidates=np.flatnonzero(seen.any(axis=0)).astype(np.int64),
        seen=sparse.csr_matrix(seen),
        clicked=clicked,
        item_categories=rng.integers(0, num_categories + 1, num_items).astype(np.int32),
        targets=nothing,
        novel=nothing,
    )


def sorted_by_score_and_priority(
    held_out: HeldOut, scores: np.ndarray, user: int, k: int, *, novel: bool, excluded: list[int]
) -> list[int]:
    priority = np.random.default_rng(0).permutation(len(held_out.candidates))
    left = []
    for column, row in enumerate(held_out.candidates.tolist()):
        known = novel and held_out.clicked[user, held_out.item_categories[row]]
        if held_out.seen[user, row] or known or row in excluded:
            continue
        left.append((-scores[column], priority[column], row))
    found = [row for *_, row in sorted(left)][:k]
    return found + [-1] * (k - len(found))


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(1, 30))
def test_top_lists_equal_a_plain_sort_by_score_and_one_priority_of_equal_scores(
    seed: int, k: int, batch: int, novel: bool, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    held_out = random_held_out(rng)
    num_users, num_items = held_out.seen.shape
    # Few levels: most scores equal others.
    scores = rng.integers(-levels, levels, (num_users, len(held_out.candidates))).astype(np.float32) / 2
    users = rng.permutation(num_users)
    excluded = rng.integers(-1, num_items, (num_users, 3))
    found = held_out.top_k(lambda some: scores[some], users, k, novel=novel, excluded=excluded, batch=batch)
    expected = [
        sorted_by_score_and_priority(held_out, scores[user], user, k, novel=novel, excluded=excluded[i].tolist())
        for i, user in enumerate(users.tolist())
    ]
    assert found.tolist() == expected


@given(st.integers(0, 2**32 - 1))
def test_excluded_rows_are_never_returned(seed: int) -> None:
    rng = np.random.default_rng(seed)
    held_out = random_held_out(rng)
    num_users, num_items = held_out.seen.shape
    scores = rng.normal(size=(num_users, len(held_out.candidates))).astype(np.float32)
    excluded = rng.integers(-1, num_items, (num_users, 4))
    users = np.arange(num_users)
    found = held_out.top_k(lambda some: scores[some], users, num_items, novel=False, excluded=excluded, batch=2)
    every = held_out.top_k(lambda some: scores[some], users, num_items, novel=False)
    for kept, unwanted, ranked in zip(found.tolist(), excluded.tolist(), every.tolist(), strict=True):
        assert [row for row in kept if row >= 0] == [row for row in ranked if row >= 0 and row not in unwanted]


def many_items(num_users: int = 7, num_items: int = 300) -> HeldOut:
    seen = np.zeros((num_users, num_items), np.float32)
    seen[0] = 1
    nothing = Targets.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    return HeldOut(
        cut=0,
        until=1,
        candidates=np.arange(num_items),
        seen=sparse.csr_matrix(seen),
        clicked=np.zeros((num_users, 2), np.bool_),
        item_categories=np.ones(num_items, np.int32),
        targets=nothing,
        novel=nothing,
    )


def test_equal_scores_are_ordered_alike_whatever_the_users_and_the_size_of_their_batch() -> None:
    held_out = many_items()
    scores = np.random.default_rng(3).integers(0, 3, (7, 300)).astype(np.float32)
    users = np.arange(1, 7)
    whole = held_out.top_k(lambda some: scores[some], users, 50, novel=True)
    for batch in (1, 2, 5, 1_000):
        np.testing.assert_array_equal(
            held_out.top_k(lambda some: scores[some], users, 50, novel=True, batch=batch), whole
        )
    np.testing.assert_array_equal(held_out.top_k(lambda some: scores[some], users[::-1], 50, novel=True), whole[::-1])


def test_a_shorter_list_is_the_beginning_of_a_longer_one_even_among_equal_scores() -> None:
    held_out = many_items()
    scores = np.random.default_rng(4).integers(0, 2, (7, 300)).astype(np.float32)
    users = np.arange(1, 7)
    longest = held_out.top_k(lambda some: scores[some], users, 300, novel=True)
    for k in (1, 7, 150, 299):
        np.testing.assert_array_equal(held_out.top_k(lambda some: scores[some], users, k, novel=True), longest[:, :k])


def test_equal_scores_do_not_favour_the_first_columns_and_are_in_one_order_for_all_users() -> None:
    held_out = many_items()
    found = held_out.top_k(lambda some: np.zeros((len(some), 300), np.float32), np.arange(1, 7), 50, novel=True)
    assert (found == found[0]).all()
    assert 120 < found[0].mean() < 180


def test_a_score_function_that_repeats_one_row_is_left_as_it_is(held_out: HeldOut) -> None:
    row = np.arange(6, dtype=np.float32)
    held_out.top_k(lambda some: np.broadcast_to(row, (len(some), 6)), np.array([0, 1]), 3, novel=True)
    assert row.tolist() == [0, 1, 2, 3, 4, 5]


def test_targets_of_some_users_are_those_of_all_without_the_others(held_out: HeldOut) -> None:
    assert as_sets(held_out.targets.of_users(np.array([1, 3]))) == {1: {0}}
    assert as_sets(held_out.targets.of_users(np.array([1, 0]))) == as_sets(held_out.targets)
    assert len(held_out.targets.of_users(np.array([2]))) == 0


def test_recall_counts_a_target_once_and_divides_by_all_of_the_user_s() -> None:
    targets = Targets.from_pairs(np.array([4, 4, 4, 9]), np.array([8, 1, 5, 1]))
    ranked = np.array([[5, 0, 8, 5], [3, 2, -1, -1]])
    assert targets.hits(ranked).tolist() == [[True, False, True, False], [False] * 4]
    assert targets.recall(ranked, 1).tolist() == [1 / 3, 0]
    assert targets.recall(ranked, 4).tolist() == [2 / 3, 0]
    with pytest.raises(ValueError, match="found 1 lists, expected one for each of 2 users"):
        targets.hits(ranked[:1])
