from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendipity.ids import id_fault
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError, RejectionError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig

NOW = 1_500_000_000
LENIENT = LogsConfig(max_rejected=1.0)
WriteHost = Callable[..., Path]


def test_clicks_are_the_configured_events(write_host: WriteHost, tmp_path: Path) -> None:
    names = ("click", "order", "view", "exposure", "favourite", "not_interested")
    events = [(f"u{n}", "i1", name, NOW) for n, name in enumerate(names)]
    host = write_host(events=events)
    counts = build_logs(host, tmp_path / "a", LogsConfig(), NOW).counts
    assert (counts["clicks"], counts["signals"]) == (2, 2)
    summary = build_logs(host, tmp_path / "b", LogsConfig(click_types=("view",)), NOW)
    assert (summary.counts["clicks"], summary.counts["exposures"], summary.click_types) == (1, 1, ("view",))
    assert summary == LogsSummary.read(tmp_path / "b")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ((None, "i1", "click", NOW), "missing_user_id"),
        (("", "i1", "click", NOW), "missing_user_id"),
        (("u\0", "i1", "click", NOW), "invalid_user_id"),
        (("u", None, "click", NOW), "missing_item_id"),
        (("u", "", "click", NOW), "missing_item_id"),
        (("u", "elsewhere", "click", NOW), "unknown_item"),
        (("u", "i1", "bought", NOW), "unknown_event"),
        (("u", "i1", None, NOW), "unknown_event"),
        (("u", "i1", "click", None), "missing_timestamp"),
        (("u", "i1", "click", 17), "timestamp_before_1990"),
        (("u", "i1", "click", NOW * 1000), "timestamp_not_in_seconds"),
        (("u", "i1", "click", NOW * 1_000_000), "timestamp_not_in_seconds"),
        (("u", "i1", "click", NOW + 100_000), "timestamp_in_future"),
        (("u", None, "search", NOW, "  "), "missing_query"),
        (("u", "i1", "click", NOW - 9), "duplicate_event"),
    ],
)
def test_bad_events_are_set_aside_with_their_reason(
    write_host: WriteHost, tmp_path: Path, event: tuple[object, ...], reason: str
) -> None:
    host = write_host(events=[("u", "i1", "click", NOW - 9), event])
    summary = build_logs(host, tmp_path / "logs", LENIENT, NOW)
    assert summary.rejected == {f"events/{reason}": 1}
    assert summary.counts["clicks"] == 1
    aside = duckdb.sql(f"SELECT source, source_row, reason FROM '{tmp_path}/logs/rejected.parquet'").fetchall()
    assert aside == [("events.parquet", 1, reason)]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ((None, ("a",)), "missing_item_id"),
        (("i2", tuple("abcdefghi")), "path_levels"),
        (("i2", (None, "b")), "empty_path_level"),
        (("i2", ("a", " \u200b|", "c")), "empty_path_level"),
        (("i2", ("a\x9f",)), "invalid_path_level"),
        (("i2", ("a", "x" * 513)), "invalid_path_level"),
        (("i1", ("b",)), "duplicate_item"),
    ],
)
def test_bad_items_are_set_aside_and_so_are_their_events(
    write_host: WriteHost, tmp_path: Path, item: tuple[str | None, tuple[str, ...]], reason: str
) -> None:
    host = write_host(items=[("i1", ("a",)), item], events=[("u", "i2", "click", NOW)])
    summary = build_logs(host, tmp_path / "logs", LENIENT, NOW)
    events = "rejected_item" if item[0] == "i2" else "unknown_item"
    assert summary.rejected == {f"items/{reason}": 1, f"events/{events}": 1}
    assert Catalogue.read(tmp_path / "logs").item_ids == ["i1"]


@pytest.mark.parametrize(("path", "kept"), [(None, ()), ((), ()), ((None, " "), ()), ((" a  b ", None), ("a b",))])
def test_items_may_lack_a_category_or_levels_of_it(
    write_host: WriteHost, tmp_path: Path, path: tuple[str, ...] | None, kept: tuple[str, ...]
) -> None:
    host = write_host(items=[("i1", ("a",)), ("i2", path)], events=[("u", "i2", "click", NOW)])
    assert build_logs(host, tmp_path / "logs", LogsConfig(), NOW).counts["clicks"] == 1
    catalogue = Catalogue.read(tmp_path / "logs")
    assert catalogue.paths[catalogue.item_ids.index("i2")] == kept


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), min_size=40), st.integers(500, 520))
def test_the_logs_take_the_ids_that_calls_take(
    write_host: WriteHost, tmp_path: Path, texts: set[str], length: int
) -> None:
    ids = sorted(texts | {"x" * length, "🦊" * length, *map(chr, range(0xA1))})
    host = write_host(
        items=[(item_id, ("a",)) for item_id in ids],
        events=[(user_id, "a", "click", NOW) for user_id in ids],
    )
    build_logs(host, tmp_path / "logs", LENIENT, NOW)
    taken = {text for text in ids if not id_fault(text)}
    assert set(Catalogue.read(tmp_path / "logs").item_ids) == taken
    assert set(Histories.read(tmp_path / "logs").user_ids) == taken


def test_a_file_with_text_that_is_no_utf8_is_named(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("anna", "i1", "click", NOW)])
    content = (host / "events.parquet").read_bytes()
    (host / "events.parquet").write_bytes(content.replace(b"anna", b"a\xed\xa0\x80"))
    with pytest.raises(LogsError, match=r'host: .*events.parquet": value "a\\xED\\xA0\\x80" is not valid UTF8'):
        build_logs(host, tmp_path / "logs", LENIENT, NOW)


def test_the_run_stops_beyond_the_threshold_and_keeps_the_rows_aside(write_host: WriteHost, tmp_path: Path) -> None:
    good = [("u", "i1", "click", NOW - n) for n in range(98)]
    host = write_host(events=[*good, ("u", "no", "click", NOW), ("", "i1", "click", NOW)])
    with pytest.raises(RejectionError, match=r"events: 2 of 100 rows rejected \(2.00%\).*unknown_item 1") as caught:
        build_logs(host, tmp_path / "logs", LogsConfig(), NOW)
    assert caught.value.counts == {"events/unknown_item": 1, "events/missing_user_id": 1}
    assert (tmp_path / "logs" / "rejected.parquet").is_file()
    assert not (tmp_path / "logs" / "logs.json").exists()
    assert build_logs(host, tmp_path / "logs", LogsConfig(max_rejected=0.02), NOW).counts["clicks"] == 98


def test_a_missing_column_is_named_with_the_expected_type(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(event_types={"user_id": "VARCHAR", "item_id": "VARCHAR", "event": "VARCHAR"})
    with pytest.raises(LogsError, match=r"events.parquet: column timestamp: missing .* expected Unix seconds"):
        build_logs(host, tmp_path / "logs", LogsConfig(), NOW)


@pytest.mark.parametrize(
    ("column", "kind", "found"),
    [
        ("timestamp", "VARCHAR[]", r"column timestamp: found VARCHAR\[\], expected Unix seconds"),
        ("user_id", "DOUBLE", r"column user_id: found DOUBLE, .*; cast it: logs.columns.events.user_id"),
    ],
)
def test_a_column_of_another_type_is_named_with_both_types(
    write_host: WriteHost, tmp_path: Path, column: str, kind: str, found: str
) -> None:
    types = {"user_id": "VARCHAR", "item_id": "VARCHAR", "event": "VARCHAR", "timestamp": "BIGINT"}
    host = write_host(event_types={**types, column: kind})
    with pytest.raises(LogsError, match=found):
        build_logs(host, tmp_path / "logs", LogsConfig(), NOW)


def test_missing_and_broken_files_are_named(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host()
    (host / "events.parquet").write_bytes(b"not parquet")
    with pytest.raises(LogsError, match=r"events.parquet: cannot be read \("):
        build_logs(host, tmp_path / "logs", LogsConfig(), NOW)
    (host / "events.parquet").unlink()
    with pytest.raises(LogsError, match=r"host/events: missing; expected a file events.parquet"):
        build_logs(host, tmp_path / "logs", LogsConfig(), NOW)


def test_a_folder_of_part_files_is_read_like_one_file(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW)])
    (host / "events" / "day=1").mkdir(parents=True)
    (host / "events.parquet").rename(host / "events" / "day=1" / "part-0.parquet")
    write_host(events=[("u", "i2", "click", NOW), ("u", "i1", "click", NOW)])
    (host / "events.parquet").rename(host / "events" / "part-1.parquet")
    summary = build_logs(host, tmp_path / "logs", LENIENT, NOW)
    assert summary.counts["clicks"] == 2
    assert summary.rejected == {"events/duplicate_event": 1}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("TIMESTAMP", "2017-07-14 02:40:00"),
        ("TIMESTAMPTZ", "2017-07-14 04:40:00+02:00"),
        ("DOUBLE", 1_500_000_000.9),
        ("UINTEGER", 1_500_000_000),
    ],
)
def test_times_may_be_numbers_or_timestamps(write_host: WriteHost, tmp_path: Path, kind: str, value: object) -> None:
    types = {"user_id": "BIGINT", "item_id": "VARCHAR", "event": "VARCHAR", "timestamp": kind}
    host = write_host(events=[(7, "i1", "click", value)], event_types=types)
    build_logs(host, tmp_path / "logs", LogsConfig(), NOW)
    histories = Histories.read(tmp_path / "logs")
    assert (histories.user_ids, histories.times.tolist()) == (["7"], [1_500_000_000])


@pytest.mark.parametrize(("kind", "value"), [("DOUBLE", float("nan")), ("DOUBLE", 1e300), ("TIMESTAMP", "infinity")])
def test_times_that_are_no_number_are_set_aside(
    write_host: WriteHost, tmp_path: Path, kind: str, value: object
) -> None:
    types = {"user_id": "VARCHAR", "item_id": "VARCHAR", "event": "VARCHAR", "timestamp": kind}
    host = write_host(events=[("u", "i1", "click", value)], event_types=types)
    assert build_logs(host, tmp_path / "logs", LENIENT, NOW).rejected == {"events/missing_timestamp": 1}


def test_until_builds_as_of_a_moment(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW - 1), ("u", "i2", "click", NOW), ("v", "no", "click", NOW + 1)])
    summary = build_logs(host, tmp_path / "logs", LogsConfig(until=NOW), NOW + 10)
    assert (summary.counts["clicks"], summary.counts["host_events"], summary.events_until) == (1, 1, NOW)
    assert summary.rejected == {}
    assert Histories.read(tmp_path / "logs").user_ids == ["u"]


def test_events_until_lies_just_past_the_last_event(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW - 5), ("u", None, "search", NOW, "tea")])
    assert build_logs(host, tmp_path / "logs", LogsConfig(), NOW).events_until == NOW + 1


def test_the_same_item_in_the_same_second_is_one_click(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[("u", "i1", "click", NOW), ("u", "i1", "order", NOW)])
    summary = build_logs(host, tmp_path / "logs", LogsConfig(), NOW)
    assert summary.counts["clicks"] == 1
    assert summary.rejected == {}


def test_empty_logs_are_logs(write_host: WriteHost, tmp_path: Path) -> None:
    summary = build_logs(write_host(), tmp_path / "logs", LogsConfig(), NOW)
    assert (summary.counts["clicks"], summary.counts["users"], summary.events_until) == (0, 0, 0)
    assert len(Histories.read(tmp_path / "logs")) == 0


def test_attributes_may_be_columns_or_a_map(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(users=[("u", "30", None), ("v", None, None)])
    build_logs(host, tmp_path / "a", LogsConfig(), NOW)
    assert Histories.read(tmp_path / "a").profiles == [{"age": "30"}, {}]
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 'u' AS user_id, MAP {{'age': '30', 'city': NULL}} AS attributes) TO '{host}/users.parquet'"
        )
    build_logs(host, tmp_path / "b", LogsConfig(), NOW)
    assert Histories.read(tmp_path / "b").profiles == [{"age": "30"}]


def test_a_rebuild_writes_the_same_bytes(write_host: WriteHost, tmp_path: Path) -> None:
    host = write_host(events=[(f"u{n % 7}", f"i{n % 2 + 1}", "click", NOW - n % 5) for n in range(70)])
    for name in ("a", "b"):
        build_logs(host, tmp_path / name, LENIENT, NOW)
    for file in ("catalogue", "clicks", "users", "rejected"):
        assert (tmp_path / "a" / f"{file}.parquet").read_bytes() == (tmp_path / "b" / f"{file}.parquet").read_bytes()
