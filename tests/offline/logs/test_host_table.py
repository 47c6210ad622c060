"""What warehouses export: part files that differ, other formats, other names, files that are not committed yet."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig

NOW = 1_500_000_000
WriteHost = Callable[..., Path]
EVENT = {"user_id": ["u"], "item_id": ["i1"], "event": ["click"], "timestamp": [NOW]}


def write(path: Path, /, **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def built(host: Path | str, logs: Path, **config: object) -> LogsSummary:
    return build_logs(host, logs, LogsConfig.model_validate({"max_rejected": 1.0, **config}), NOW)


@pytest.mark.parametrize("first", ["a", "c"])
def test_a_column_that_only_some_parts_have_is_read_from_them(
    write_host: WriteHost, tmp_path: Path, first: str
) -> None:
    host = write_host(events=[])
    (host / "items.parquet").unlink()
    common = {"title": ["t"], "path": [["a"]]}
    write(host / "items" / f"{first}.parquet", item_id=["i1"], **common)
    write(host / "items" / "b.parquet", item_id=["i2"], available=[False], brand=["b"], price=[2.5], **common)
    built(host, tmp_path / "logs")
    catalogue = Catalogue.read(tmp_path / "logs")
    assert dict(zip(catalogue.item_ids, catalogue.available.tolist(), strict=True)) == {"i1": True, "i2": False}
    assert dict(zip(catalogue.item_ids, catalogue.brands, strict=True)) == {"i1": "", "i2": "b"}


def test_parts_may_hold_a_column_in_several_types(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(items=[("7", ("a",)), ("i1", ("b",))])
    (host / "events.parquet").unlink()
    write(host / "events" / "0.parquet", **{name: pa.array([], pa.null()) for name in EVENT})
    write(host / "events" / "1.parquet", **{**EVENT, "user_id": [12], "item_id": [7], "query": pa.nulls(1)})
    write(host / "events" / "2.parquet", **{**EVENT, "timestamp": [float(NOW)], "value": [3]})
    assert built(host, tmp_path / "logs").rejected == {}
    histories = Histories.read(tmp_path / "logs")
    assert (histories.user_ids, histories.times.tolist()) == (["12", "u"], [NOW, NOW])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_any_unit_and_zone(write_host: WriteHost, tmp_path: Path, unit: str, zone: str | None) -> None:
    host = write_host()
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    write(host / "events.parquet", **{**EVENT, "timestamp": pa.array([NOW * per_second], pa.timestamp(unit, zone))})
    built(host, tmp_path / "logs")
    assert Histories.read(tmp_path / "logs").times.tolist() == [NOW]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.string()])
def test_times_without_a_zone_are_of_the_zone_that_is_said(
    write_host: WriteHost, tmp_path: Path, kind: pa.DataType
) -> None:
    host = write_host()
    write(host / "events.parquet", **{**EVENT, "timestamp": pa.array(["2017-07-14 04:40:00"]).cast(kind)})
    built(host, tmp_path / "logs", time_zone="Europe/Berlin")
    assert Histories.read(tmp_path / "logs").times.tolist() == [NOW]


def test_what_a_writer_has_not_committed_is_not_read(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host()
    (host / "events.parquet").unlink()
    write(host / "events" / "day=2017-07-14" / "part-0.parquet", **EVENT)
    for name in ("_temporary/0/part-1.parquet", ".part-2.parquet", ".tmp/part-3.parquet"):
        write(host / "events" / name, **{**EVENT, "user_id": ["ghost"]})
    (host / "events" / "_SUCCESS").touch()
    built(host, tmp_path / "logs")
    assert Histories.read(tmp_path / "logs").user_ids == ["u"]


def test_an_attribute_that_is_given_twice_is_taken_once(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW)])
    pairs = pa.array([[("age", "30"), ("age", "31"), ("city", None)]], pa.map_(pa.string(), pa.string()))
    write(host / "users.parquet", user_id=["u"], attributes=pairs)
    built(host, tmp_path / "logs")
    assert Histories.read(tmp_path / "logs").profiles == [{"age": "30"}]


def test_a_list_of_lists_is_no_path(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host()
    write(host / "items.parquet", item_id=["i1"], title=["t"], path=[[["A"], ["B"]]])
    with pytest.raises(LogsError, match=r"items.parquet: column path: found VARCHAR\[\]\[\], expected VARCHAR\[\]"):
        built(host, tmp_path / "logs")


def test_tables_may_be_csv_and_json_lines(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host()
    for table in ("items", "events"):
        (host / f"{table}.parquet").unlink()
    with gzip.open(host / "events.csv.gz", "wt") as file:
        file.write("user_id,item_id,event,timestamp,value\n")
        file.write(
            f"007,i1,click,{NOW},2.5\n008,i2,click,2017-07-14T02:40:00Z,\n009,i1,click,soon,1\n007,i2,click,{NOW},x\n"
        )
    (host / "items.jsonl").write_text(
        '{"item_id": "i1", "title": "t", "path": ["Food", "Cheese"], "tags": ["x"], "available": false}\n'
        '{"item_id": "i2", "title": "t", "path": null, "price": 1}\n{"item_id": 3, "title": "t", "path": ["Food"]}\n'
    )
    summary = built(host, tmp_path / "logs")
    assert summary.rejected == {"events/unreadable_timestamp": 1, "events/unreadable_value": 1}
    assert Histories.read(tmp_path / "logs").user_ids == ["007", "008"]
    catalogue = Catalogue.read(tmp_path / "logs")
    assert dict(zip(catalogue.item_ids, catalogue.paths, strict=True)) == {
        "i1": ("Food", "Cheese"), "i2": (), "3": ("Food",),
    }  # fmt: skip
    aside = duckdb.sql(f"SELECT source, source_row FROM '{tmp_path}/logs/rejected.parquet'").fetchall()
    assert aside == [("events.csv.gz", 2), ("events.csv.gz", 3)]


@pytest.mark.parametrize(
    "text", ["Food > Soft Cheese", "Food|Soft Cheese", '["Food", "Soft Cheese"]', "[Food, Soft Cheese]"]
)
def test_a_path_may_be_a_text(write_host: WriteHost, tmp_path: Path, text: str) -> None:
    host = write_host()
    write(host / "items.parquet", item_id=["i1"], title=["t"], path=[text])
    built(host, tmp_path / "logs")
    assert Catalogue.read(tmp_path / "logs").paths == [("Food", "Soft Cheese")]


def test_columns_and_files_of_other_names_are_told_by_the_configuration(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(items=[("1", ("a",))])
    (host / "events.parquet").unlink()
    write(host / "raw" / "2017" / "x.parquet", visitor=[5, 6], sku=[1, 1], what=["buy", "look"], ts=[NOW * 1000] * 2)
    write(host / "users.parquet", visitor=[5], age=[30])
    summary = built(
        host,
        tmp_path / "logs",
        files={"events": "raw/**/*.parquet"},
        columns={
            "events": {
                "user_id": "visitor", "item_id": "sku", "timestamp": "ts / 1000",
                "event": "CASE what WHEN 'buy' THEN 'order' ELSE 'view' END",
            },
            "users": {"user_id": "visitor"},
        },
    )  # fmt: skip
    assert (summary.rejected, summary.counts["clicks"], summary.counts["signals"]) == ({}, 1, 1)
    histories = Histories.read(tmp_path / "logs")
    assert (histories.user_ids, histories.profiles[0]) == (["5", "6"], {"age": "30"})


def test_an_expression_that_cannot_be_is_named(write_host: WriteHost, tmp_path: Path) -> None:
    with pytest.raises(
        LogsError, match=r"logs.columns.events.timestamp: 'ts / 1000' cannot be had of .*events.parquet"
    ):
        built(write_host(), tmp_path / "logs", columns={"events": {"timestamp": "ts / 1000"}})


def test_tables_of_several_formats_are_refused(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host()
    (host / "events.csv").write_text("user_id\n")
    with pytest.raises(LogsError, match=r"found files of .csv, .parquet, expected one format"):
        built(host, tmp_path / "logs")


def test_tables_may_lie_in_object_storage(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW)])
    memory = fsspec.filesystem("memory")
    memory.put(str(host), "/bucket/logs", recursive=True)
    built("memory://bucket/logs", tmp_path / "logs")
    assert Histories.read(tmp_path / "logs").user_ids == ["u"]


def test_what_comes_twice_is_left_out_and_not_held_against_the_limit(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(items=[("i1", ("a",))] * 2, events=[("u", "i1", "click", NOW)] * 9)
    summary = build_logs(host, tmp_path / "logs", LogsConfig(max_rejected=0.0), NOW)
    assert summary.rejected == {"items/duplicate_item": 1, "events/duplicate_event": 8}
    assert summary.counts["clicks"] == 1


def test_categories_that_look_alike_are_one_and_said_to_be(write_host: WriteHost, tmp_path: Path) -> None:
    names = ("Shoes", "shoes", "SHOES ", "Shoes", "T-Shirts", "T Shirts", "Cafe\u0301", "Caf\u00e9", "Tea", "Tea|")
    host = write_host(items=[(f"i{n}", ("all", name)) for n, name in enumerate(names)])
    summary = built(host, tmp_path / "logs", novelty_level=1)
    catalogue = Catalogue.read(tmp_path / "logs")
    assert catalogue.categories == ["Caf\u00e9", "Shoes", "T Shirts", "Tea"]
    assert {path[1] for path in catalogue.paths} == set(catalogue.categories)
    assert any("categories at level 1" in warning for warning in summary.warnings)


def test_ids_that_look_alike_stay_apart_and_are_warned_of(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("12", "i1", "click", NOW), ("00012", "i1", "click", NOW), ("é", "i1", "click", NOW)])
    summary = built(host, tmp_path / "logs")
    assert summary.warnings == (
        "user_id: 1 ids come in several forms (leading zeros, spaces, Unicode), such as '00012' and '12': each form is "
        "an id of its own",
    )


@pytest.mark.parametrize("url", ["nope://bucket/logs", "s3://bucket/logs"])
def test_storage_that_cannot_be_reached_is_named(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where its package is not installed.
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(LogsError, match=rf"{url}: (ValueError: Protocol not known|ImportError: Install s3fs)"):
        built(url, tmp_path / "logs")
