from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from serendipity.layout import user_key
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig

NOW = 1_500_000_000
WriteHost = Callable[..., Path]


def list_of(path: Path, *user_ids: str) -> Path:
    """Write an erasure list as the channel does."""
    path.mkdir(exist_ok=True)
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        for user_id in user_ids:
            transaction.put(user_key(user_id), NOW.to_bytes(8, "big"))
    return path


def test_nothing_of_erased_users_enters_the_logs(write_host: WriteHost, tmp_path: Path) -> None:
    long = "ж" * 300
    events = [
        ("kept", "i1", "click", NOW),
        ("gone-user", "i1", "click", NOW),
        ("gone-user", None, "search", NOW, "gone-query"),
        ("gone-user", "i1", "exposure", NOW),
        ("gone-user", "i1", "view", NOW),
        ("gone-user", "nowhere", "click", NOW),
        (long, "i1", "click", NOW),
    ]
    host = write_host(events=events, users=[("gone-user", "40", "gone-city"), ("idle", "9", "Here")])
    erasures = Erasures.read(list_of(tmp_path / "erasures", "gone-user", long, "never seen"))
    logs = tmp_path / "logs"
    summary = build_logs(host, logs, LogsConfig(), NOW, erasures)
    assert summary.erased == {"users": 2, "events": 6}
    assert summary == LogsSummary.read(logs)
    # The row of an unknown item would have been set aside, with the id in it.
    assert summary.rejected == {}
    assert Histories.read(logs).user_ids == ["idle", "kept"]
    for file in logs.rglob("*"):
        content = file.read_bytes()
        assert not any(text in content for text in (b"gone", long.encode())), file.name


def test_without_a_list_nobody_is_erased(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW)])
    plain = build_logs(host, tmp_path / "a", LogsConfig(), NOW)
    assert plain.erased == {"users": 0, "events": 0}
    assert build_logs(host, tmp_path / "b", LogsConfig(), NOW, Erasures.read(None)) == plain


def test_lists_differ_by_their_users_alone(tmp_path: Path) -> None:
    first, same, other = (
        Erasures.read(list_of(tmp_path / name, *users))
        for name, users in (("a", ("u", "v")), ("b", ("v", "u")), ("c", ("u",)))
    )
    assert first.hash == same.hash != other.hash


def test_a_list_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"erasures: cannot be read .* expected an erasure list"):
        Erasures.read(tmp_path / "erasures")
    assert not (tmp_path / "erasures").exists()
