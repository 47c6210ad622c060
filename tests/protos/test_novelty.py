"""The one definition of "novel"."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.novelty import CLICK_WINDOW, Clicks, clicked_categories, is_novel, latest, unexpectedness

NUM_CATEGORIES = 9


def clicks(*rows: tuple[int, int, int]) -> Clicks:
    """Clicks from (item, category, time) rows, newest first."""
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Clicks(columns[:, 0], columns[:, 1].astype(np.int32), columns[:, 2])


def _histories(max_size: int = 400) -> st.SearchStrategy[Clicks]:
    row = st.tuples(st.integers(0, 50), st.integers(0, NUM_CATEGORIES), st.integers(0, 1000))
    return st.lists(row, max_size=max_size).map(lambda rows: clicks(*sorted(rows, key=lambda r: -r[2])))


def test_an_item_is_novel_when_its_category_is_not_among_the_latest_200_clicks() -> None:
    old = [(1, 5, 1)]
    recent = [(i + 2, 3, 1000 - i) for i in range(CLICK_WINDOW)]
    clicked = clicked_categories(clicks(*recent, *old), NUM_CATEGORIES)
    assert is_novel(np.array([5, 3]), clicked).tolist() == [True, False]


def test_an_item_without_a_category_is_never_novel() -> None:
    assert not is_novel(np.array([0]), clicked_categories(Clicks.empty(), NUM_CATEGORIES))[0]


def test_the_same_click_from_two_places_counts_once() -> None:
    snapshot = clicks((7, 2, 50), (8, 3, 40))
    feedback = clicks((7, 2, 50))
    assert latest(feedback, snapshot).items.tolist() == [7, 8]


def test_a_repeated_report_does_not_push_an_old_click_out_of_the_window() -> None:
    history = clicks(*[(i + 1, 1, 1000 - i) for i in range(CLICK_WINDOW - 1)], (900, 4, 1))
    merged = latest(history, history)
    assert clicked_categories(merged, NUM_CATEGORIES)[4]


def test_clicks_on_items_outside_the_catalogue_are_not_taken_for_one_another() -> None:
    assert len(latest(clicks((0, 0, 5), (0, 0, 5)), clicks((0, 0, 5)))) == 3


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 items, 0 categories, 0 times"):
        Clicks(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


@given(_histories(), _histories())
def test_the_window_holds_the_latest_clicks_newest_first(first: Clicks, second: Clicks) -> None:
    merged = latest(first, second)
    assert len(merged) <= CLICK_WINDOW
    assert (np.diff(merged.times) <= 0).all()
    if len(merged):
        outside = set(zip(first.items, first.times, strict=True)) | set(zip(second.items, second.times, strict=True))
        outside -= set(zip(merged.items, merged.times, strict=True))
        assert all(time <= merged.times[-1] for _, time in outside)


@given(_histories(), _histories())
def test_more_events_never_make_a_recently_clicked_category_novel(history: Clicks, later: Clicks) -> None:
    """Whatever is clicked last is never novel, and nothing in the merged window is."""
    merged = latest(later, history)
    clicked = clicked_categories(merged, NUM_CATEGORIES)
    assert not is_novel(merged.categories, clicked).any()


VECTORS = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0.6, 0.8]], np.float32)
"""Of categories by number; nobody clicked in what has none."""


def test_unexpectedness_runs_from_0_at_the_centre_to_1_across_from_it_and_beyond() -> None:
    clicks = np.array([0, 5, 0, 0, 0], np.float32)
    assert unexpectedness(VECTORS, clicks).tolist() == pytest.approx([1.0, 0.0, 1.0, 1.0, 0.4])


def test_the_centre_is_of_the_logarithms_of_clicks_in_every_category() -> None:
    # log(1 + 1) and log(1 + 3) are as 1 to 2: the centre is (1, 2) / √5.
    found = unexpectedness(VECTORS, np.array([7, 1, 3, 0, 0], np.float32))
    root = np.sqrt(5)
    assert found.tolist() == pytest.approx([1, 1 - 1 / root, 1 - 2 / root, 1, 1 - 2.2 / root], abs=1e-6)
    assert (found.dtype, found.shape) == (np.float32, (5,))


@pytest.mark.parametrize("clicks", [[0, 0, 0, 0, 0], [9, 0, 0, 0, 0], [0, 2, 0, 2, 0]])
def test_everything_is_unexpected_without_a_history_or_a_centre(clicks: list[int]) -> None:
    assert unexpectedness(VECTORS, np.array(clicks, np.float32)).tolist() == [1.0] * 5


@given(st.lists(st.integers(0, 1_000), min_size=5, max_size=5))
def test_unexpectedness_stays_between_0_and_1(clicks: list[int]) -> None:
    found = unexpectedness(VECTORS, np.array(clicks, np.float32))
    assert ((found >= 0) & (found <= 1)).all()
