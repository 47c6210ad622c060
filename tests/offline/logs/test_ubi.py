"""Logs of OpenSearch's User Behavior Insights 1.3: queries, and events joined to them by query_id."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.errors import LogsError, RejectionError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.tables import read_rows

NOW = 1_500_000_000
TIME = "2017-07-14T02:{:02}:00Z"
"""NOW is 02:40."""

QUERIES = [
    {"query_id": "q1", "client_id": "browser-1", "user_query": "warm socks", "timestamp": TIME.format(10),
     "query_response_hit_ids": ["i1", "i2"]},
    {"query_id": "q2", "client_id": "browser-2", "user_query": "rain coat", "timestamp": 1_499_998_200_000},
    {"query_id": "q3", "client_id": "browser-2", "user_query": "", "timestamp": TIME.format(31)},
]  # fmt: skip


def event(action: str, minute: int, item: str | int | None = None, **fields: Any) -> dict[str, Any]:
    position = {"position": {"ordinal": 3}}
    attributes = position if item is None else {"object": {"object_id": item, "object_id_field": "sku"}, **position}
    return {"action_name": action, "timestamp": TIME.format(minute), "event_attributes": attributes, **fields}


EVENTS = [
    event("impression", 11, "i1", query_id="q1", client_id="browser-1"),
    event("impression", 11, "i2", query_id="q1", client_id="browser-1"),
    event("click", 12, "i1", query_id="q1", client_id="browser-1", user_id="ann"),
    event("add_to_cart", 13, "i1", query_id="q1", client_id="browser-1", user_id="ann"),
    event("purchase", 14, "i1", client_id="browser-1", user_id="ann"),
    event("view", 32, "i2", query_id="q2"),
    event("click_through", 33, "i2", query_id="q2", user_id=""),
    event("login", 34, client_id="browser-2"),
    event("click", 35, client_id="browser-2"),
]


@pytest.fixture
def ubi_host(write_host: Callable[..., Path]) -> Callable[..., Path]:
    """Write a host folder with UBI's indexes as JSON lines beside its items."""

    def write(events: Sequence[object] = EVENTS, queries: Sequence[object] | None = QUERIES) -> Path:
        host = write_host()
        (host / "events.parquet").unlink()
        for name, documents in (("ubi_events", events), ("ubi_queries", queries)):
            if documents is not None:
                (host / f"{name}.ndjson").write_text("\n".join(map(json.dumps, documents)))
        return host

    return write


def built(host: Path, logs: Path, **config: object) -> LogsSummary:
    return build_logs(host, logs, LogsConfig.model_validate({"format": "ubi", **config}), NOW)


def users_of(logs: Path, table: str) -> list[tuple[Any, ...]]:
    names = Histories.read(logs).user_ids
    rows = read_rows(logs / f"{table}.parquet", '"user", time')
    return [(names[user], (time - NOW) // 60 + 40) for user, time in rows]


def test_events_and_queries_become_clicks_exposures_views_and_searches(
    ubi_host: Callable[..., Path], tmp_path: Path
) -> None:
    built(ubi_host(), tmp_path / "logs")
    assert users_of(tmp_path / "logs", "clicks") == [("ann", 12), ("ann", 13), ("ann", 14), ("browser-2", 33)]
    assert users_of(tmp_path / "logs", "exposures") == [("ann", 11), ("ann", 11)]
    assert users_of(tmp_path / "logs", "signals") == [("browser-2", 32)]
    searches = read_rows(tmp_path / "logs" / "searches.parquet", "query")
    assert searches == [("warm socks",), ("rain coat",)]


def test_who_is_named_beside_a_query_is_the_user_of_all_that_came_of_it(
    ubi_host: Callable[..., Path], tmp_path: Path
) -> None:
    built(ubi_host(), tmp_path / "logs")
    assert Histories.read(tmp_path / "logs").user_ids == ["ann", "browser-2"]
    assert users_of(tmp_path / "logs", "searches") == [("ann", 10), ("browser-2", 10)]


def test_what_ubi_holds_and_no_channel_needs_is_counted_and_held_against_nobody(
    ubi_host: Callable[..., Path], tmp_path: Path
) -> None:
    summary = built(ubi_host(), tmp_path / "logs", max_rejected=0)
    assert summary.counts["host_events"] == 12
    assert summary.rejected == {"events/missing_item_id": 1, "events/missing_query": 1, "events/unknown_event": 1}
    assert summary.warnings == (
        "events of other names are left out: login 1; logs.columns.events.event can say what they are",
    )


def test_a_refused_row_names_its_file_and_place(ubi_host: Callable[..., Path], tmp_path: Path) -> None:
    host = ubi_host([*EVENTS, event("click", 36, "nowhere", client_id="browser-3")])
    built(host, tmp_path / "logs", max_rejected=0.1)
    rows = read_rows(tmp_path / "logs" / "rejected.parquet", "host_table, source, source_row, reason")
    assert set(rows) == {
        ("events", "ubi_events.ndjson", 7, "unknown_event"),
        ("events", "ubi_events.ndjson", 8, "missing_item_id"),
        ("events", "ubi_events.ndjson", 9, "unknown_item"),
        ("events", "ubi_queries.ndjson", 2, "missing_query"),
    }
    with pytest.raises(RejectionError, match=r"events: 1 of 13 rows rejected .* events/unknown_item 1"):
        built(host, tmp_path / "other", max_rejected=0)


def test_other_actions_and_flat_columns_are_told_by_the_configuration(
    ubi_host: Callable[..., Path], tmp_path: Path
) -> None:
    host = ubi_host(queries=None)
    (host / "ubi_events.ndjson").unlink()
    (host / "ubi_events.csv").write_text(
        "action_name,client_id,timestamp,event_attributes.object.object_id\n"
        f"product_purchase,browser-1,{TIME.format(5)},i1\nsort,browser-1,{TIME.format(6)},\n"
    )
    columns = {"events": {"event": "CASE action_name WHEN 'product_purchase' THEN 'order' ELSE action_name END"}}
    summary = built(host, tmp_path / "logs", columns=columns)
    assert users_of(tmp_path / "logs", "clicks") == [("browser-1", 5)]
    assert summary.rejected == {"events/unknown_event": 1}


def test_objects_of_parquet_are_read_as_well(ubi_host: Callable[..., Path], tmp_path: Path) -> None:
    host = ubi_host()
    with duckdb.connect() as connection:
        for name in ("ubi_events", "ubi_queries"):
            connection.execute(f"COPY (FROM '{host / name}.ndjson') TO '{host / name}.parquet' (FORMAT parquet)")
            (host / f"{name}.ndjson").unlink()
    built(host, tmp_path / "logs")
    assert users_of(tmp_path / "logs", "clicks") == [("ann", 12), ("ann", 13), ("ann", 14), ("browser-2", 33)]


def test_an_index_of_events_that_is_missing_is_named(ubi_host: Callable[..., Path], tmp_path: Path) -> None:
    host = ubi_host()
    (host / "ubi_events.ndjson").unlink()
    with pytest.raises(LogsError, match=r"host/ubi_events: missing; expected a file ubi_events.parquet"):
        built(host, tmp_path / "logs")
