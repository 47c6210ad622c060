from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.sufficiency import Wanted, require_sufficient

NOW = 1_500_000_000
WANTED = Wanted(
    asked=10, fill=0.5, empty=0.01, item_users=3, learned=(0.1, 0.9), history=5, groups=1, positives=3, days=4
)
WriteHost = Callable[..., Path]


def logs_of(write_host: WriteHost, tmp_path: Path, paths: Sequence[Sequence[str]], users: int, level: int = 0) -> Path:
    """Every user clicks the first three items."""
    items = [(f"i{n}", path) for n, path in enumerate(paths)]
    events = [(f"u{user}", f"i{item}", "click", NOW - item) for user in range(users) for item in range(3)]
    build_logs(write_host(items=items, events=events), tmp_path / "logs", LogsConfig(novelty_level=level), NOW)
    return tmp_path / "logs"


def lack_of(logs: Path) -> str:
    with pytest.raises(LogsError) as caught:
        require_sufficient(logs, WANTED)
    return str(caught.value)


def test_logs_that_leave_enough_to_recall_will_do(write_host: WriteHost, tmp_path: Path) -> None:
    logs = logs_of(write_host, tmp_path, [(f"c{n % 4}",) for n in range(40)], users=3)
    require_sufficient(logs, WANTED)


def test_what_is_too_little_to_learn_from_is_said_at_once(write_host: WriteHost, tmp_path: Path) -> None:
    logs = logs_of(write_host, tmp_path, [()] * 4, users=2)
    with pytest.raises(LogsError) as caught:
        require_sufficient(logs, WANTED)
    assert str(caught.value).split("; ") == [
        "users with clicks (logs.click_types): found 2, expected at least 3",
        "items clicked by 3 users or more (towers.rows.min_item_users): found 0, expected at least 2",
        "top-level categories with items that may be recalled (path, logs.novelty_level): found 0, expected at least 1",
    ]


def test_a_level_with_too_few_categories_is_named_with_one_that_would_do(write_host: WriteHost, tmp_path: Path) -> None:
    paths = [("all", f"c{n % 8}") for n in range(40)]
    found = lack_of(logs_of(write_host, tmp_path, paths, users=3))
    assert found.startswith("novelty at level 0 (logs.novelty_level): found 1 top-level categories")
    assert "none for 100.0% of the users" in found
    assert found.endswith("level 1 would do")


def test_a_catalogue_too_small_for_what_is_asked_is_said_to_be(write_host: WriteHost, tmp_path: Path) -> None:
    found = lack_of(logs_of(write_host, tmp_path, [(f"c{n}",) for n in range(5)], users=3))
    assert "20.0% of the 10 candidates asked for" in found
    assert found.endswith("no other level would do: lower canary.count, or gate")
