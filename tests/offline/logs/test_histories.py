from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendipity.features import LongHistory, with_clicks
from serendipity.novelty import latest
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.logs.schema import LogsConfig

T = 1_500_000_000
WriteHost = Callable[..., Path]


def read(host: Path, logs: Path, **config: object) -> Histories:
    build_logs(host, logs, LogsConfig.model_validate(config | {"max_rejected": 1.0}), T + 10**6)
    return Histories.read(logs)


def made_of(clicks: list[tuple[int, int, int]]) -> Histories:
    """One user's history of (item, category, time), in the stored order."""
    clicks = sorted(set(clicks), key=lambda click: (click[2], click[0]))
    return Histories(
        user_ids=["u"],
        profiles=[{}],
        offsets=np.array([0, len(clicks)]),
        items=np.array([click[0] for click in clicks], np.int64),
        categories=np.array([click[1] for click in clicks], np.int32),
        times=np.array([click[2] for click in clicks], np.int64),
        search_offsets=np.array([0, 0]),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def test_clicks_come_newest_first_and_strictly_before(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", T), ("u", "i2", "click", T), ("u", "i1", "click", T + 5)])
    histories = read(host, tmp_path / "logs")
    assert histories.clicks_before(0, T).times.tolist() == []
    # Two clicks in one second: the reverse of the stored order.
    assert histories.clicks_before(0, T + 5).items.tolist() == [2, 1]
    assert histories.clicks_before(0, T + 6).items.tolist() == [1, 2, 1]
    assert histories.clicks_before(0, T + 6).categories.tolist() == [1, 2, 1]


def test_only_the_latest_clicks_are_kept() -> None:
    histories = made_of([(1, 1, n) for n in range(300)])
    assert histories.clicks_before(0, 250).times.tolist() == list(range(249, 49, -1))


def test_ids_of_any_script_and_length_and_users_without_clicks(write_host: WriteHost, tmp_path: Path) -> None:
    long = "ж" * 512
    events = [(long, "i1", "click", T), ("用户", "i2", "click", T), ("u'\"; --", "i1", "view", T)]
    histories = read(write_host(events=events, users=[("idle", "40", "Łódź")]), tmp_path / "logs")
    assert histories.user_ids == ["idle", "u'\"; --", long, "用户"]
    assert np.diff(histories.offsets).tolist() == [0, 0, 1, 1]
    assert histories.profiles[0] == {"age": "40", "city": "Łódź"}
    assert len(histories.clicks_before(0, T + 1)) == 0
    assert len(histories.long_history_before(0, T + 1).categories) == 0
    assert histories.user_numbers[long] == 2


def test_items_without_a_category_are_clicks_but_no_long_history(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(
        items=[("i1", ("a",)), ("i2", ("a", "b"))], events=[("u", "i1", "click", T), ("u", "i2", "click", T)]
    )
    histories = read(host, tmp_path / "logs", novelty_level=1)
    assert sorted(histories.clicks_before(0, T + 1).categories.tolist()) == [0, 1]
    assert histories.long_history_before(0, T + 1).categories.tolist() == [1]


def test_searches_of_the_last_days_come_newest_first(write_host: WriteHost, tmp_path: Path) -> None:
    searches = [("u", None, "search", T - age, query) for age, query in ((40 * 86_400, "old"), (9, "tea"), (3, "milk"))]
    histories = read(write_host(events=searches), tmp_path / "logs")
    assert histories.searches_before(0, T) == [("milk", T - 3), ("tea", T - 9)]
    assert histories.searches_before(0, T - 3, days=100) == [("tea", T - 9), ("old", T - 40 * 86_400)]


clicks_of_one_user = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(0, 30)), max_size=40)


@given(clicks_of_one_user, st.integers(0, 31))
def test_long_history_counts_what_the_clicks_are(clicks: list[tuple[int, int, int]], time: int) -> None:
    histories = made_of(clicks)
    found = histories.long_history_before(0, time)
    expected: dict[int, list[int]] = {}
    for _, category, at in set(clicks):
        if category and at < time:
            expected.setdefault(category, []).append(at)
    assert found.categories.tolist() == sorted(expected, key=lambda c: (-len(expected[c]), -max(expected[c]), c))
    assert found.counts.tolist() == [len(expected[c]) for c in found.categories]
    assert found.last_times.tolist() == [max(expected[c]) for c in found.categories]


@given(clicks_of_one_user, st.integers(0, 31), st.integers(0, 31))
def test_long_history_agrees_with_the_one_laid_over_while_serving(
    clicks: list[tuple[int, int, int]], first: int, second: int
) -> None:
    first, second = sorted((first, second))
    histories = made_of(clicks)
    start, end = histories.count_before(0, first), histories.count_before(0, second)
    later = type(histories.clicks_before(0, second))(
        histories.items[start:end], histories.categories[start:end], histories.times[start:end]
    )
    served = with_clicks(histories.long_history_before(0, first), later)
    built = histories.long_history_before(0, second)
    for name in LongHistory.__dataclass_fields__:
        assert getattr(served, name).tolist() == getattr(built, name).tolist()


@given(clicks_of_one_user, st.integers(0, 31))
def test_the_window_of_merged_clicks_is_the_stored_one(clicks: list[tuple[int, int, int]], time: int) -> None:
    histories = made_of(clicks)
    stored = histories.clicks_before(0, time, window=10)
    assert latest(stored, window=10).items.tolist() == stored.items.tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.05, 1.0))
def test_split_times_keep_at_most_their_fraction_before(times: list[int], fraction: float) -> None:
    histories = made_of([(n + 1, 1, time) for n, time in enumerate(times)])
    (split,) = split_times(histories, (fraction,))
    before = int(np.sum(histories.times < split))
    upto = int(np.sum(histories.times <= split))
    assert before <= int(fraction * len(times)) <= upto


def test_split_times_need_clicks() -> None:
    with pytest.raises(ValueError, match="found no clicks"):
        split_times(made_of([]))


def test_views_and_the_like_are_signals_for_thirty_days(write_host: WriteHost, tmp_path: Path) -> None:
    events = [
        ("u", "i1", "view", T - 40 * 86_400),
        ("u", "i1", "view", T - 5),
        ("u", "i2", "favourite", T - 4),
        ("u", "i2", "view", T - 3),
        ("u", "i1", "click", T - 2),
        ("u", "i1", "view", T),
        ("v", "i2", "exposure", T - 1),
    ]
    histories = read(write_host(events=events), tmp_path / "logs")
    # Row + 1 and time, newest first, each item once, strictly before.
    assert histories.signals_before(0, T) == [(2, T - 3), (1, T - 5)]
    assert histories.signals_before(0, T + 1) == [(1, T), (2, T - 3)]
    assert histories.signals_before(0, T, days=1 / 86_400 * 3) == [(2, T - 3)]
    assert histories.signals_before(1, T) == []
    assert read(write_host(events=events), tmp_path / "none", signal_types=()).signals_before(0, T) == []


def test_what_counts_as_a_click_is_no_signal(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "view", T), ("u", "i2", "favourite", T)])
    histories = read(host, tmp_path / "logs", click_types=("view",))
    assert histories.signals_before(0, T + 1) == [(2, T)]
    assert histories.clicks_before(0, T + 1).items.tolist() == [1]
