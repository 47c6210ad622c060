"""Choices come from the clicks before the cut alone, and are the best there of what was tried."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.offline.evaluate.control_choice import (
    ALS_TREND,
    CONTROLS,
    POPULARITY,
    Chosen,
    Grid,
    Period,
    choose_controls,
    validation_start,
)
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, before

DAY = 86_400
NUM_USERS, NUM_CATEGORIES, PER_CATEGORY = 30, 6, 30
NUM_ITEMS = NUM_CATEGORIES * PER_CATEGORY
CUT, END = 80 * DAY, 100 * DAY
ITEM_CATEGORIES = np.repeat(np.arange(1, NUM_CATEGORIES + 1, dtype=np.int32), PER_CATEGORY)
GRID = Grid(factors=(2, 4), alphas=(1.0, 8.0), ridges=(10.0, 100.0), exponents=(0.0, 1.0))

Click = tuple[int, int, int]
"""User, item row, Unix seconds."""


def catalogue() -> Catalogue:
    names = [f"c{n}" for n in range(NUM_CATEGORIES)]
    return Catalogue(
        item_ids=[f"i{n:03d}" for n in range(NUM_ITEMS)],
        titles=[""] * NUM_ITEMS,
        paths=[(names[c - 1],) for c in ITEM_CATEGORIES.tolist()],
        brands=[""] * NUM_ITEMS,
        tags=[()] * NUM_ITEMS,
        available=np.ones(NUM_ITEMS, np.bool_),
        prices=np.full(NUM_ITEMS, np.nan, np.float32),
        categories=names,
        item_categories=ITEM_CATEGORIES,
        category_offsets=np.arange(0, NUM_ITEMS + 1, PER_CATEGORY),
        novelty_level=0,
    )


def histories_of(clicks: Sequence[Click], num_users: int = NUM_USERS) -> Histories:
    clicks = sorted(clicks, key=lambda click: (click[0], click[2], click[1]))
    users, rows, times = (np.array([click[i] for click in clicks], np.int64) for i in range(3))
    return Histories(
        user_ids=[f"u{n:02d}" for n in range(num_users)],
        profiles=[{}] * num_users,
        offsets=np.searchsorted(users, np.arange(num_users + 1)),
        items=rows + 1,
        categories=ITEM_CATEGORIES[rows],
        times=times,
        search_offsets=np.zeros(num_users + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def clicks_of(rng: np.random.Generator, start: int, end: int, count: int, spread: float) -> list[Click]:
    """Draw clicks of categories near the user's own, popular items first; spread: how far they wander in time."""
    users = rng.integers(0, NUM_USERS, count)
    times = rng.integers(start, end, count)
    wander = rng.normal(0, 1, count) * spread + 2 * times / END
    categories = (users % NUM_CATEGORIES + np.abs(wander).astype(int)) % NUM_CATEGORIES
    rows = categories * PER_CATEGORY + (PER_CATEGORY * rng.random(count) ** 2).astype(int)
    return list(zip(users.tolist(), rows.tolist(), times.tolist(), strict=True))


def returning_clicks(seed: int) -> tuple[list[Click], list[Click]]:
    """Draw 500 clicks a user, who goes through five categories, 13 days each, and then turns to the first again.

    By then the first lies before the latest 200 clicks; one user in three turns to the sixth instead, never clicked in.
    """
    rng = np.random.default_rng(seed)
    users, times = rng.integers(0, NUM_USERS, 15_000), rng.integers(0, END, 15_000)
    turns = np.where((users % 3 == 0) & (times > 66 * DAY), 5, times // (13 * DAY) % 5)
    rows = (users + turns) % NUM_CATEGORIES * PER_CATEGORY + (PER_CATEGORY * rng.random(15_000) ** 3).astype(int)
    clicks = list(zip(users.tolist(), rows.tolist(), times.tolist(), strict=True))
    return [click for click in clicks if click[2] < CUT], [click for click in clicks if click[2] >= CUT]


def small_clicks(seed: int) -> tuple[list[Click], list[Click]]:
    rng = np.random.default_rng(seed)
    return clicks_of(rng, 0, CUT, 800, 0.7), clicks_of(rng, CUT, END, 200, 0.7)


def told(chosen: Sequence[Chosen]) -> list[tuple[str, dict[str, float], tuple[float, float]]]:
    return [(one.control.name, dict(one.parameters), one.validation) for one in chosen]


@pytest.fixture(scope="module")
def chosen() -> tuple[Chosen, ...]:
    past, later = small_clicks(1)
    return choose_controls(histories_of(past + later), catalogue(), CUT, GRID)


LATER_CLICKS = st.lists(
    st.tuples(st.integers(0, NUM_USERS - 1), st.integers(0, NUM_ITEMS - 1), st.integers(CUT, 2 * END)),
    min_size=200,
    max_size=200,
)


@settings(max_examples=4)
@given(LATER_CLICKS)
def test_no_click_at_or_after_the_cut_changes_a_choice_or_its_figures(
    chosen: tuple[Chosen, ...], later: list[Click]
) -> None:
    past, _ = small_clicks(1)
    assert told(choose_controls(histories_of(past + later), catalogue(), CUT, GRID)) == told(chosen)


def test_clicks_moved_to_the_cut_itself_or_all_to_one_user_change_nothing(chosen: tuple[Chosen, ...]) -> None:
    past, later = small_clicks(1)
    for others in ([(user, row, CUT) for user, row, _ in later], [(3, 7, time) for _, _, time in later]):
        assert told(choose_controls(histories_of(past + others), catalogue(), CUT, GRID)) == told(chosen)


def test_a_click_just_before_the_cut_is_looked_at(chosen: tuple[Chosen, ...]) -> None:
    past, later = small_clicks(1)
    # As many clicks as before, but those of the last days are of other items.
    moved = [(user, (row + 3 * PER_CATEGORY) % NUM_ITEMS if time > CUT - 10 * DAY else row, time)
             for user, row, time in past]  # fmt: skip
    assert told(choose_controls(histories_of(moved + later), catalogue(), CUT, GRID)) != told(chosen)


def test_every_control_is_chosen_for_in_the_order_of_reports(chosen: tuple[Chosen, ...]) -> None:
    assert [one.control for one in chosen] == list(CONTROLS)
    names = [one.control.name for one in chosen]
    assert POPULARITY in names
    assert ALS_TREND in names
    assert len(set(names)) == len(names)


def naive_validation(period: Period, control_index: int, parameters: dict[str, float]) -> tuple[float, float]:
    """Novel recall@20 and @100, user by user."""
    held_out = period.held_out
    users = held_out.novel.users
    ranked = held_out.top_k(CONTROLS[control_index].fit(period, parameters, 0), users, 100, novel=True)
    recalls = []
    for i, listed in enumerate(ranked.tolist()):
        wanted = held_out.novel.rows[held_out.novel.offsets[i] : held_out.novel.offsets[i + 1]].tolist()
        recalls.append([len(set(listed[:k]) & set(wanted)) / len(wanted) for k in (20, 100)])
    mean = np.mean(recalls, axis=0)
    return float(mean[0]), float(mean[1])


FIELDS = {"factors": GRID.factors, "alpha": GRID.alphas, "ridge": GRID.ridges, "exponent": GRID.exponents}


@pytest.mark.parametrize(("draw", "seed"), [(small_clicks, 1), (small_clicks, 2), (returning_clicks, 3)])
def test_the_chosen_parameters_have_the_largest_geometric_mean_of_all_that_were_tried(
    draw: Callable[[int], tuple[list[Click], list[Click]]], seed: int
) -> None:
    past, later = draw(seed)
    histories = histories_of(past + later)
    chosen = choose_controls(histories, catalogue(), CUT, GRID)
    period = Period.of(before(histories, CUT), catalogue(), validation_start(histories, CUT), CUT, GRID)
    differing = set()
    for index, one in enumerate(chosen):
        axes = list(one.parameters)
        tried = [dict(zip(axes, values, strict=True)) for values in product(*(FIELDS[axis] for axis in axes))]
        figures = [naive_validation(period, index, parameters) for parameters in tried]
        means = [np.sqrt(low * high) for low, high in figures]
        assert dict(one.parameters) == tried[int(np.argmax(means))]
        np.testing.assert_allclose(one.validation, figures[int(np.argmax(means))], rtol=1e-12)
        if len(set(means)) > 1:
            differing.add(one.control.name)
    # The histories leave something to choose.
    assert len(differing) >= 2


def test_the_figures_differ_from_nothing_and_everything(chosen: tuple[Chosen, ...]) -> None:
    assert all(0 < one.validation[0] < one.validation[1] <= 1 for one in chosen)


def test_every_combination_is_told_of_and_few_users_may_be_sampled() -> None:
    past, later = small_clicks(1)
    ticks: list[int] = []
    grid = Grid(factors=(2,), alphas=(1.0, 8.0), ridges=(10.0,), exponents=(0.0, 1.0), max_users=3)
    choose_controls(histories_of(past + later), catalogue(), CUT, grid, ticks.append)
    assert sum(ticks) == sum(len(list(control.tried(grid))) for control in CONTROLS)
    # 3 without parameters, ALS 2, ALS × trend 4, EASE × trend 2, fused 2.
    assert sum(ticks) == 13
    # Other users, other figures; as many as there are, the same.
    for max_users, same in ((1, False), (NUM_USERS, True)):
        some = choose_controls(histories_of(past + later), catalogue(), CUT, replace(grid, max_users=max_users))
        every = choose_controls(histories_of(past + later), catalogue(), CUT, replace(grid, max_users=2_000))
        assert (told(some) == told(every)) is same


def test_a_host_whose_users_turn_to_nothing_new_before_the_cut_has_nothing_to_choose_on() -> None:
    past, later = small_clicks(1)
    settled = [(user, (user % NUM_CATEGORIES) * PER_CATEGORY + row % PER_CATEGORY, time) for user, row, time in past]
    with pytest.raises(ValueError, match="no novel target just before the cut, expected a longer history"):
        choose_controls(histories_of(settled + later), catalogue(), CUT, GRID)


def test_a_host_with_hardly_any_click_before_the_cut_has_nothing_to_choose_on() -> None:
    past, later = small_clicks(1)
    for few in ([], past[:3]):
        with pytest.raises(ValueError, match="no novel target just before the cut, expected a longer history"):
            choose_controls(histories_of(few + later), catalogue(), CUT, GRID)


def test_a_cut_that_no_click_comes_after_has_nothing_to_choose_on() -> None:
    past, _ = small_clicks(1)
    with pytest.raises(ValueError, match="controls"):
        choose_controls(histories_of(past), catalogue(), CUT, GRID)


@given(st.integers(0, 200), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_validation_has_as_many_clicks_as_come_after_the_cut(known: int, judged: int, seed: int) -> None:
    known = max(known, 1)
    judged = max(judged, 1)
    rng = np.random.default_rng(seed)
    times = rng.permutation(10_000)[: known + judged]
    cut = int(np.sort(times)[known])
    clicks = [(int(rng.integers(0, NUM_USERS)), 0, int(time)) for time in times]
    start = validation_start(histories_of(clicks), cut)
    assert (times >= cut).sum() == judged
    assert ((times >= start) & (times < cut)).sum() == min(judged, known)


def test_validation_begins_with_the_first_click_where_there_are_too_few() -> None:
    clicks = [(0, 0, 10), (0, 1, 20), (1, 2, 30), (1, 3, 40), (2, 4, 50), (2, 5, 60)]
    starts = [validation_start(histories_of(clicks), cut) for cut in (60, 50, 40, 20)]
    assert starts == [50, 30, 10, 10]


def test_factorisations_of_one_period_are_fitted_once() -> None:
    past, later = small_clicks(1)
    period = Period.of(histories_of(past + later), catalogue(), CUT, END, GRID)
    assert period.als(2, 1.0, 0) is period.als(2.0, 1.0, 0)
    assert period.als(2, 1.0, 0) is not period.als(2, 1.0, 1)
    assert period.ease(10.0) is period.ease(10.0)
    assert period.ease(10.0) is not period.ease(20.0)


def test_only_seeded_controls_change_with_the_seed() -> None:
    past, later = small_clicks(1)
    period = Period.of(histories_of(past + later), catalogue(), CUT, END, GRID)
    for control in CONTROLS:
        if control.name == CONTROLS[-1].name:
            continue
        parameters = next(iter(control.tried(GRID)))
        first, second = (control.fit(period, parameters, seed)(np.arange(NUM_USERS)) for seed in (0, 1))
        assert np.array_equal(first, second) != control.seeded
