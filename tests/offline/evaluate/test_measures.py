"""What ranked lists are judged by, on made-up targets whose figures are known, and what holds of any lists."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import MISSING, HeldOut, Targets
from serendipity.offline.evaluate.measures import EXCLUSIVE, RECALLS, Judge
from serendipity.offline.evaluate.unexpectedness import FELT, surprisals

DAY = 86_400
CUT = 100 * DAY
NOBODY = np.full((3, 1), -1)

# Items 0-1 in category 1, 2-3 in category 2, 4-6 in category 3.
CATEGORIES = np.array([1, 1, 2, 2, 3, 3, 3], np.int32)
OWN_CLICKS = np.array([[0, 9, 3, 0], [0, 0, 0, 4], [0, 0, 6, 6]], np.float32)


def held_out_of(categories: np.ndarray, num_users: int, novel: Sequence[tuple[int, int]]) -> HeldOut:
    pairs = np.array(novel, np.int64).reshape(-1, 2)
    targets = Targets.from_pairs(pairs[:, 0], pairs[:, 1])
    return HeldOut(
        cut=CUT,
        until=CUT + 1,
        candidates=np.arange(len(categories)),
        seen=sparse.csr_matrix((num_users, len(categories)), dtype=np.float32),
        clicked=np.zeros((num_users, int(categories.max()) + 1), np.bool_),
        item_categories=categories,
        targets=targets,
        novel=targets,
    )


def judge_of(novel: Sequence[tuple[int, int]], users: Sequence[int] = (0, 1, 2), host: np.ndarray = NOBODY) -> Judge:
    statistics = ClickStatistics(
        users=np.array([50, 25, 4, 9, 1, 16, 0], np.float32),
        recent_users=np.zeros(7, np.float32),
        first_clicks=np.array([0, 0, 5, 6, CUT - 28 * DAY + 1, CUT - 28 * DAY - 1, CUT]),
        own_clicks=OWN_CLICKS,
    )
    return Judge.of(held_out_of(CATEGORIES, 3, novel), statistics, np.array(users), host)


# User 0 clicked in category 2 long ago and never in 3; user 2 never in 1. User 1 has no novel target.
NOVEL = [(0, 2), (0, 4), (0, 5), (2, 1)]
LISTS = np.array([[4, 0, 2, 6, -1], [3, 1, -1, -1, -1]])


def test_recall_is_the_share_of_the_users_novel_targets_among_the_first() -> None:
    found = judge_of(NOVEL).recalls(LISTS, (1, 2, 3, 5))
    np.testing.assert_allclose(found["recall", 1], [1 / 3, 0])
    np.testing.assert_allclose(found["recall", 2], [1 / 3, 1])
    np.testing.assert_allclose(found["recall", 3], [2 / 3, 1])
    np.testing.assert_allclose(found["recall", 5], [2 / 3, 1])


def test_targets_of_categories_never_clicked_in_and_of_those_left_long_ago_are_told_apart() -> None:
    found = judge_of(NOVEL).recalls(LISTS, (1, 2, 3))
    np.testing.assert_allclose([found["never", k] for k in (1, 2, 3)], [[1 / 2, 0], [1 / 2, 1], [1 / 2, 1]])
    # User 2 has no target in a category left long ago.
    np.testing.assert_array_equal([found["re-entry", k] for k in (1, 2, 3)], [[0, np.nan], [0, np.nan], [1, np.nan]])


def test_cold_items_were_first_clicked_in_the_last_28_days() -> None:
    # Item 4 is one second younger than 28 days, item 5 one second older.
    found = judge_of(NOVEL).recalls(LISTS, (1, 5))
    np.testing.assert_array_equal(found["cold items", 1], [1, np.nan])
    found = judge_of(NOVEL).recalls(np.array([[5, 2], [1, 0]]), (2,))
    np.testing.assert_array_equal(found["cold items", 2], [0, np.nan])


def test_inverse_popularity_weighs_a_target_by_one_over_the_root_of_its_users() -> None:
    # Items 2, 4 and 5 have 4, 1 and 16 users: weights 1/2, 1 and 1/4.
    found = judge_of(NOVEL).recalls(LISTS, (1, 3))
    np.testing.assert_allclose(found["inverse popularity", 1], [1 / 1.75, 0])
    np.testing.assert_allclose(found["inverse popularity", 3], [1.5 / 1.75, 1])


def test_an_item_without_users_weighs_like_one_with_a_single_user() -> None:
    found = judge_of([(0, 4), (0, 6)]).recalls(np.array([[6]]), (1,))
    assert found["inverse popularity", 1].tolist() == [0.5]


def test_serendipity_weighs_hits_by_how_it_is_felt_at_their_unexpectedness() -> None:
    found = surprisals(OWN_CLICKS, np.array([0, 2]))
    # By rising surprisal: item 2 to user 0, then 4 and 5, of one category, then item 1 to user 2.
    assert found[0, 2] < found[0, 3] < found[1, 1]
    lowest, highest = FELT[0], FELT[4]
    # Places 1 and 2 of 0 to 3 share 1.5: unexpectedness 1 + 4 · 1.5 / 3 = 3.
    mean = (lowest + 2 * FELT[2] + highest) / 4
    measured = judge_of(NOVEL).recalls(LISTS, (1, 2, 3))
    np.testing.assert_allclose(measured["serendipity", 1], [FELT[2] / mean / 3, 0])
    np.testing.assert_allclose(measured["serendipity", 2], [FELT[2] / mean / 3, highest / mean])
    np.testing.assert_allclose(measured["serendipity", 3], [(FELT[2] + lowest) / mean / 3, highest / mean])


def test_only_users_with_novel_targets_are_judged_and_only_those_asked_for() -> None:
    assert judge_of(NOVEL).targets.users.tolist() == [0, 2]
    assert judge_of(NOVEL, users=[1, 2], host=NOBODY[:2]).targets.users.tolist() == [2]


def test_one_list_too_few_is_named() -> None:
    with pytest.raises(ValueError, match="found 1 lists, expected one for each of 2 users"):
        judge_of(NOVEL).recalls(LISTS[:1], (5,))


def test_the_place_of_a_target_is_its_first_one_in_the_list_if_it_is_there() -> None:
    judge = judge_of(NOVEL)
    assert judge.targets.places(np.array([[0, 5, 5, 2], [1, 1, 1, 1]])).tolist() == [3, MISSING, 1, 0]


def test_an_item_that_comes_twice_counts_once_at_its_first_place() -> None:
    judge = judge_of(NOVEL)
    twice = np.array([[4, 4, 4, 2], [0, 1, 1, 0]])
    assert judge.targets.hits(twice).tolist() == [[True, False, False, True], [False, True, False, False]]
    np.testing.assert_allclose(judge.recalls(twice, (3,))["recall", 3], [1 / 3, 1])
    assert judge.exclusive(twice, (3,))[EXCLUSIVE, 3].tolist() == [1, 1]


def test_empty_lists_find_nothing() -> None:
    judge = judge_of(NOVEL)
    nothing = np.full((2, 3), -1)
    assert judge.recalls(nothing, (3,))["recall", 3].tolist() == [0, 0]
    assert judge.exclusive(nothing, (3,))[EXCLUSIVE, 3].tolist() == [0, 0]
    assert not judge.targets.hits(nothing).any()
    assert judge.targets.hits(np.empty((2, 0), np.int64)).shape == (2, 0)


@pytest.mark.parametrize("width", [0, 1, 3])
def test_a_depth_past_the_end_of_the_lists_finds_what_the_whole_lists_find(width: int) -> None:
    judge = judge_of(NOVEL)
    lists = np.array([[4, 0, -1], [3, 0, -1]])[:, :width]
    found = 1 / 3 if width else 0
    np.testing.assert_allclose(judge.recalls(lists, (5,))["recall", 5], [found, 0])
    assert judge.exclusive(lists, (5,))[EXCLUSIVE, 5].tolist() == [min(width, 1), 0]


def test_an_exclusive_hit_is_never_an_item_of_the_host() -> None:
    # The host shows user 0 item 4, and user 2 item 2, which is a target of user 0 only.
    judge = judge_of(NOVEL, host=np.array([[4, -1], [-1, -1], [2, 3]]))
    lists = np.array([[4, 5, 2], [2, 1, 0]])
    found = judge.exclusive(lists, (1, 2, 3))
    assert [found[EXCLUSIVE, k].tolist() for k in (1, 2, 3)] == [[0, 0], [1, 1], [2, 1]]
    # Without regard to the host the same lists find more.
    np.testing.assert_allclose(judge.recalls(lists, (3,))["recall", 3], [1, 1])


def random_judge(seed: int) -> tuple[np.random.Generator, Judge]:
    rng = np.random.default_rng(seed)
    num_users, num_items, num_categories = int(rng.integers(1, 6)), int(rng.integers(2, 25)), int(rng.integers(1, 5))
    wanted = rng.random((num_users, num_items)) < 0.3
    wanted[0, 0] = True
    novel = [(int(user), int(row)) for user, row in np.argwhere(wanted)]
    held_out = held_out_of(rng.integers(1, num_categories + 1, num_items).astype(np.int32), num_users, novel)
    own_clicks = rng.poisson(1.0, (num_users, int(held_out.clicked.shape[1]))).astype(np.float32)
    statistics = ClickStatistics(
        users=rng.integers(0, 30, num_items).astype(np.float32),
        recent_users=np.zeros(num_items, np.float32),
        first_clicks=rng.integers(CUT - 60 * DAY, CUT, num_items),
        own_clicks=own_clicks,
    )
    host = rng.integers(-1, num_items, (num_users, 4))
    return rng, Judge.of(held_out, statistics, np.arange(num_users), host)


def random_lists(rng: np.random.Generator, judge: Judge) -> np.ndarray:
    """Lists with gaps, repetitions and items that are nobody's target."""
    return rng.integers(-1, 30, (len(judge.targets), int(rng.integers(1, 25))))


def oracle(judge: Judge, length: int) -> np.ndarray:
    """Each user's targets, best first, in lists of one length."""
    lists = np.full((len(judge.targets), length), -1)
    for i, (start, end) in enumerate(zip(judge.targets.offsets, judge.targets.offsets[1:], strict=False)):
        rows = judge.targets.rows[start:end][:length]
        lists[i, : len(rows)] = rows
    return lists


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_all_measures_equal_a_count_of_one_target_after_another(seed: int) -> None:
    rng, judge = random_judge(seed)
    lists = random_lists(rng, judge)
    depths = sorted({1, lists.shape[1] // 2 + 1, lists.shape[1]})
    recalls, exclusive = judge.recalls(lists, depths), judge.exclusive(lists, depths)
    for k in depths:
        for i, ranked in enumerate(lists.tolist()):
            mine = np.flatnonzero(judge.targets.owners == i)
            hit = [t for t in mine if judge.targets.rows[t] in ranked[:k]]
            for name in RECALLS:
                weight, total = judge.weights[name]
                expected = weight[hit].sum() / total[i] if total[i] > 0 else np.nan
                assert recalls[name, k][i] == pytest.approx(expected, nan_ok=True)
            own = set(judge.host[i].tolist())
            assert exclusive[EXCLUSIVE, k][i] == sum(int(judge.targets.rows[t]) not in own for t in hit)


@given(SEEDS)
def test_never_and_re_entry_share_the_novel_targets_among_them(seed: int) -> None:
    _, judge = random_judge(seed)
    never, re_entry, every = (judge.weights[name] for name in ("never", "re-entry", "recall"))
    np.testing.assert_array_equal(never[0] + re_entry[0], every[0])
    np.testing.assert_array_equal(never[0] * re_entry[0], 0)
    np.testing.assert_array_equal(never[1] + re_entry[1], judge.targets.counts)
    np.testing.assert_array_equal(every[1], judge.targets.counts)


@given(SEEDS)
def test_a_user_without_such_a_target_has_no_figure_and_every_other_has_one(seed: int) -> None:
    rng, judge = random_judge(seed)
    found = judge.recalls(random_lists(rng, judge), (5,))
    for name in RECALLS:
        none = np.bincount(judge.targets.owners, judge.weights[name][0] > 0, len(judge.targets)) == 0
        np.testing.assert_array_equal(np.isnan(found[name, 5]), none)


@given(SEEDS, st.integers(1, 25))
def test_an_oracle_finds_everything_where_it_may_name_enough(seed: int, k: int) -> None:
    _, judge = random_judge(seed)
    enough = judge.targets.counts <= k
    found = judge.recalls(oracle(judge, k), (k,))
    for name in RECALLS:
        if name != "serendipity":
            values = found[name, k][enough]
            np.testing.assert_allclose(values[~np.isnan(values)], 1)
    np.testing.assert_allclose(found["recall", k][~enough], k / judge.targets.counts[~enough])


@given(SEEDS)
def test_an_oracles_serendipity_is_one_over_all_targets_together(seed: int) -> None:
    _, judge = random_judge(seed)
    found = judge.recalls(oracle(judge, 25), (25,))["serendipity", 25]
    assert np.average(found, weights=judge.targets.counts) == pytest.approx(1)


@given(SEEDS)
def test_longer_lists_never_find_less(seed: int) -> None:
    rng, judge = random_judge(seed)
    lists = random_lists(rng, judge)
    depths = tuple(range(1, lists.shape[1] + 1))
    found = {**judge.recalls(lists, depths), **judge.exclusive(lists, depths)}
    for name in (*RECALLS, EXCLUSIVE):
        values = np.stack([found[name, k] for k in depths])
        values = values[:, ~np.isnan(values[0])]
        assert (np.diff(values, axis=0) >= -1e-12).all()


@given(SEEDS)
def test_lists_of_the_hosts_own_items_have_no_exclusive_hit(seed: int) -> None:
    _, judge = random_judge(seed)
    assert not judge.exclusive(judge.host, (4,))[EXCLUSIVE, 4].any()
