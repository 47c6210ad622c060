"""A host with some of its users only: its files follow the host schema, it is built and judged."""

from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pytest

from benchmarks import young_host
from benchmarks.young_host import main, pool, sample_users
from serendipity.offline.evaluate.channel import ChannelEvaluationConfig
from serendipity.offline.evaluate.control_choice import Grid
from serendipity.offline.evaluate.methods import MethodResult
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.small_host import DAY, NUM_DAYS, QUICK_BUILD, START, write_small_host

NOW = START + NUM_DAYS * DAY
NUM_USERS = 30
CONFIG = LogsConfig(novelty_level=1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change its files."""
    directory = tmp_path_factory.mktemp("host")
    write_small_host(directory, num_users=NUM_USERS, num_items=96)
    return directory


def rows(directory: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        for table in ("events", "items", "users"):
            file = directory / f"{table}.parquet"
            if file.is_file():
                connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{file}')")
        return connection.execute(query).fetchall()


def users_of(directory: Path) -> list[str]:
    return [str(row[0]) for row in rows(directory, "SELECT DISTINCT user_id FROM events ORDER BY user_id")]


EVENTS = "SELECT user_id, item_id, event, timestamp, query FROM events WHERE user_id IN ({}) ORDER BY ALL"


@pytest.mark.parametrize(("share", "kept"), [(0.2, 6), (0.5, 15), (0.55, 16), (1.0, 30)])
def test_the_share_of_users_is_kept(host: Path, tmp_path: Path, share: float, kept: int) -> None:
    assert sample_users(host, tmp_path / "young", share, 1, NOW) == kept
    assert len(users_of(tmp_path / "young")) == kept
    assert set(users_of(tmp_path / "young")) <= set(users_of(host))


def test_at_least_one_user_is_kept(host: Path, tmp_path: Path) -> None:
    assert sample_users(host, tmp_path, 0.001, 1, NOW) == 1
    assert len(users_of(tmp_path)) == 1


def test_one_seed_draws_the_same_users_again_and_another_others(host: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        sample_users(host, tmp_path / name, 0.3, seed, NOW)
    assert users_of(tmp_path / "again") == users_of(tmp_path / "one")
    assert users_of(tmp_path / "other") != users_of(tmp_path / "one")


def test_a_larger_share_of_one_seed_keeps_the_users_of_a_smaller_one(host: Path, tmp_path: Path) -> None:
    sample_users(host, tmp_path / "small", 0.2, 4, NOW)
    sample_users(host, tmp_path / "large", 0.6, 4, NOW)
    assert set(users_of(tmp_path / "small")) < set(users_of(tmp_path / "large"))


def test_all_events_of_the_chosen_users_are_kept_and_none_of_others(host: Path, tmp_path: Path) -> None:
    sample_users(host, tmp_path, 0.3, 1, NOW)
    chosen = users_of(tmp_path)
    listed = ", ".join(f"'{user}'" for user in chosen)
    kept = rows(tmp_path, EVENTS.format(listed))
    assert kept == rows(host, EVENTS.format(listed))
    assert rows(tmp_path, "SELECT count(*) FROM events") == [(len(kept),)]
    assert [row[0] for row in rows(tmp_path, "SELECT user_id FROM users ORDER BY user_id")] == chosen


def test_all_items_are_kept(host: Path, tmp_path: Path) -> None:
    sample_users(host, tmp_path, 0.1, 1, NOW)
    query = "SELECT item_id, title, path, brand FROM items ORDER BY item_id"
    assert rows(tmp_path, query) == rows(host, query)


def test_the_logs_builder_reads_the_young_host_as_it_reads_the_whole_one(host: Path, tmp_path: Path) -> None:
    sample_users(host, tmp_path / "young", 0.4, 1, NOW)
    summary = build_logs(tmp_path / "young", tmp_path / "logs", CONFIG, now=NOW)
    build_logs(host, tmp_path / "whole", CONFIG, now=NOW)
    assert summary.novelty_level == 1
    assert Catalogue.read(tmp_path / "logs").item_ids == Catalogue.read(tmp_path / "whole").item_ids
    young, whole = Histories.read(tmp_path / "logs"), Histories.read(tmp_path / "whole")
    assert young.user_ids == users_of(tmp_path / "young")
    for user, user_id in enumerate(young.user_ids):
        same = whole.user_numbers[user_id]
        assert young.profiles[user] == whole.profiles[same]
        mine, theirs = young.clicks_before(user, NOW), whole.clicks_before(same, NOW)
        np.testing.assert_array_equal(mine.items, theirs.items)
        np.testing.assert_array_equal(mine.times, theirs.times)
        assert young.searches_before(user, NOW) == whole.searches_before(same, NOW)


def test_a_young_host_of_all_users_can_be_sampled_again(host: Path, tmp_path: Path) -> None:
    sample_users(host, tmp_path / "whole", 1.0, 1, NOW)
    sample_users(host, tmp_path / "one", 0.3, 5, NOW)
    sample_users(tmp_path / "whole", tmp_path / "other", 0.3, 5, NOW)
    assert users_of(tmp_path / "one") == users_of(tmp_path / "other")


def write_odd_host(directory: Path) -> None:
    """Integer ids, times as TIMESTAMP, further columns, no users file, and rows that the logs builder would reject."""
    directory.mkdir()
    with duckdb.connect() as connection:
        connection.execute(
            f"""COPY (SELECT n AS item_id, 'Thing ' || n AS title, ['a', 'b ' || n % 2] AS path, 2.5 AS price
            FROM range(4) t(n) UNION ALL SELECT 9, 'no path', ['|', 'b'], 1)
            TO '{directory}/items.parquet' (FORMAT parquet)"""
        )
        connection.execute(
            f"""COPY (SELECT u AS user_id, n AS item_id, 'click' AS event,
            make_timestamp({START + 5}::BIGINT * 1000000) AS timestamp FROM range(4) t(n), range(5) s(u)
            UNION ALL SELECT 7, 77, 'click', make_timestamp({START}::BIGINT * 1000000)
            UNION ALL SELECT 0, 1, 'dance', make_timestamp({START}::BIGINT * 1000000))
            TO '{directory}/events.parquet' (FORMAT parquet)"""
        )


def test_rows_that_the_logs_builder_rejects_are_left_out_and_their_users_are_not_drawn(tmp_path: Path) -> None:
    write_odd_host(tmp_path / "host")
    # User 7 has nothing but a click on an unknown item.
    assert sample_users(tmp_path / "host", tmp_path / "young", 1.0, 1, NOW) == 5
    assert users_of(tmp_path / "young") == ["0", "1", "2", "3", "4"]
    assert rows(tmp_path / "young", "SELECT count(*) FROM events WHERE event <> 'click'") == [(0,)]
    assert rows(tmp_path / "young", "SELECT item_id, price FROM items ORDER BY 1") == [(f"{n}", 2.5) for n in range(4)]
    strict = LogsConfig(novelty_level=1, max_rejected=0.0)
    build_logs(tmp_path / "young", tmp_path / "logs", strict, now=NOW)
    histories = Histories.read(tmp_path / "logs")
    assert len(histories) == 5
    assert (histories.times == START + 5).all()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"nowhere/items: missing"):
        sample_users(tmp_path / "nowhere", tmp_path / "young", 0.5, 1, NOW)


def measured(name: str, values: list[list[float]]) -> MethodResult:
    return MethodResult(name, "channel", tuple(range(len(values))), {("recall", 1): np.array(values)})


def test_pooled_evaluations_lay_their_users_one_after_another() -> None:
    first = (measured("a", [[1.0, 0.0], [0.0, 0.0]]), measured("b", [[0.2, np.nan]]))
    second = (measured("a", [[0.5]]), measured("b", [[0.4]]))
    pooled = pool([first, second])
    assert [(one.name, one.kind, one.seeds) for one in pooled] == [("a", "channel", (None,)), ("b", "channel", (None,))]
    assert pooled[0].per_user["recall", 1].tolist() == [[0.5, 0, 0.5]]
    np.testing.assert_array_equal(pooled[1].per_user["recall", 1], [[0.2, np.nan, 0.4]])
    assert pooled[1].mean("recall", 1) == pytest.approx(0.3)


def test_a_method_that_one_evaluation_lacks_is_not_pooled() -> None:
    pooled = pool([[measured("interest", [[0.5]]), measured("group", [[0.5]])], [measured("group", [[0.5]])]])
    assert [one.name for one in pooled] == ["group"]
    assert pooled[0].per_user["recall", 1].tolist() == [[0.5, 0.5]]


def test_a_draw_is_built_and_judged_and_one_that_is_too_small_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(ChannelEvaluationConfig, grid=Grid(factors=(8,), alphas=(1.0,), ridges=(100.0,), exponents=(0.5,)))
    monkeypatch.setattr(young_host, "ChannelEvaluationConfig", quick)
    write_small_host(tmp_path / "shop", num_users=60, num_items=240)
    (tmp_path / "build.toml").write_text(QUICK_BUILD)
    given = ["--dataset", str(tmp_path / "shop"), "--config", str(tmp_path / "build.toml")]
    asked = [*given, "--work", str(tmp_path / "work"), "--shares", "0.5", "0.01", "--draws", "1"]
    build_logs(tmp_path / "shop", tmp_path / "grown" / "logs", LogsConfig(novelty_level=0), now=NOW)
    assert main([*asked, "--carry", str(tmp_path / "grown")]) == 0
    printed = capsys.readouterr()
    assert "# Young hosts of shop" in printed.out
    assert "## 50% of the users\n\n1 draws" in printed.out
    assert "## 1% of the users" not in printed.out
    for name in ("**channel, every source but interest**", "texts of the clicks", "popularity × near by carried over"):
        assert f"| {name} | 0." in printed.out
    assert "left out: " in printed.err
