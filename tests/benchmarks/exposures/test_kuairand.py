"""KuaiRand's exposures become a host's files: what was shown, clicked and played, and watches in their order."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from benchmarks.exposures.__main__ import main
from benchmarks.exposures.kuairand import write_kuairand
from benchmarks.exposures.log import ExposureLog
from serendipity.offline.datasets.adapter import DatasetError
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.exposures_slice import FROM, write_tiny_slice

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "kuairand-slice"
DAY = 86_400
APRIL_9, APRIL_24 = 1_649_462_400, 1_650_758_400


def convert(tmp_path: Path) -> Path:
    write_kuairand(write_tiny_slice(tmp_path / "slice"), tmp_path / "host")
    return tmp_path / "host"


def rows(host: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        for table in ("events", "items"):
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{host / table}.parquet')")
        return connection.execute(query).fetchall()


def test_the_first_tag_is_top_level(tmp_path: Path) -> None:
    found = rows(convert(tmp_path), "SELECT item_id, path FROM items ORDER BY item_id")
    assert found[1:4] == [("11", ["39", "68"]), ("12", ["3"]), ("13", ["unknown"])]


def test_exposures_of_one_second_are_one_that_was_clicked_if_either_was(tmp_path: Path) -> None:
    found = rows(convert(tmp_path), f"SELECT event, item_id, value, tab FROM events WHERE user_id = '1' AND "
                 f"timestamp >= {FROM} ORDER BY event")  # fmt: skip
    assert found == [("click", "12", None, None), ("exposure", "12", 2.0, 1)]


def test_what_was_liked_or_hated_is_an_event_of_its_own(tmp_path: Path) -> None:
    found = rows(convert(tmp_path), "SELECT event, item_id, timestamp FROM events WHERE event IN ('favourite', "
                 "'not_interested') ORDER BY event")  # fmt: skip
    assert found == [("favourite", "12", FROM), ("not_interested", "14", FROM + 90)]


def test_watches_keep_their_order_and_only_the_last_ones_time(tmp_path: Path) -> None:
    query = "SELECT item_id, timestamp FROM events WHERE user_id = '{}' AND timestamp < {} ORDER BY timestamp"
    host = convert(tmp_path)
    assert rows(host, query.format(0, FROM)) == [
        ("11", APRIL_9),
        ("10", APRIL_9 + (1_650_600_000 - APRIL_9) // 3),
        ("12", 1_650_600_000),
    ]
    # The made-up ones end before 24 April, whenever the last watch was.
    assert rows(host, query.format(1, FROM)) == [("10", APRIL_9), ("11", 1_650_800_000)]


def test_users_with_fewer_exposures_are_left_out_with_their_watches(tmp_path: Path) -> None:
    host = tmp_path / "host"
    write_kuairand(write_tiny_slice(tmp_path / "slice"), host, least_exposures=3)
    assert rows(host, "SELECT DISTINCT user_id FROM events") == [("0",)]
    assert rows(host, "SELECT count(*) FROM items") == [(6,)]


def test_the_logs_builder_takes_every_row(tmp_path: Path) -> None:
    host = convert(tmp_path)
    summary = build_logs(host, tmp_path / "logs", LogsConfig(), now=FROM + DAY)
    assert not sum(summary.rejected.values())
    assert Catalogue.read(tmp_path / "logs").categories == ["3", "39", "7", "unknown"]


def test_a_missing_file_or_column_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_tiny_slice(tmp_path / "slice")
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1 AS user_id) TO '{source / 'histories.parquet'}' (FORMAT parquet)")
    with pytest.raises(DatasetError, match=r"histories.parquet: found columns user_id, expected last_time_ms, watch"):
        write_kuairand(source, tmp_path / "host")
    (source / "exposures.parquet").unlink()
    assert main(["--data", str(source), "--work", str(tmp_path / "work")]) == 1
    said = capsys.readouterr().err
    assert "exposures.parquet: missing" in said
    assert said.count("\n") == 1


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the slice of KuaiRand")
def test_the_real_slice_is_read_whole(tmp_path: Path) -> None:
    write_kuairand(REAL, tmp_path / "host")
    summary = build_logs(tmp_path / "host", tmp_path / "logs", LogsConfig())
    assert sum(summary.rejected.values()) <= 1
    histories, catalogue = Histories.read(tmp_path / "logs"), Catalogue.read(tmp_path / "logs")
    log = ExposureLog.read(tmp_path / "host", histories, catalogue)
    assert (len(log), len(catalogue), len(catalogue.categories)) == (222_437, 7_583, 44)
    # Novel exposures are clicked less.
    assert 0.2 < log.novel.mean() < 0.3
    assert log.clicked[log.novel].mean() < log.clicked[~log.novel].mean() - 0.03
    assert np.all(np.diff(log.users) >= 0)
