"""Host files → catalogue, clicks, searches, exposures and users, all by number and sorted.

catalogue.parquet  an item a row, sorted by (top-level category name, path, item id), those without one last
clicks.parquet     user, item, category, time, value; sorted by (user, time, item id)
searches.parquet   user, query, time              exposures.parquet  user, item, time
signals.parquet    user, item, time               views and the like, see LogsConfig.signal_types
users.parquet      user (number), user_id, attributes; sorted by user_id
rejected.parquet   every refused row with its reason, file and position
logs.json          counts, configuration, events_until; written last
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from serendipity.layout import write_atomically
from serendipity.offline.logs.category_names import merge_names
from serendipity.offline.logs.erasures import Erasures, leave_out
from serendipity.offline.logs.errors import LogsError, RejectionError
from serendipity.offline.logs.host_rows import REPEATED, load_events, load_items, load_users
from serendipity.offline.logs.host_table import Host, one_line
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.ubi import UNUSED
from serendipity.offline.parquet import write_query

SUMMARY = "logs.json"


@dataclass(frozen=True)
class LogsSummary:
    """What the logs hold.

    counts: rows by table, and host_<file> for rows read; rejected: "<file>/<reason>" → rows; events_until: Unix
    seconds, every event in the logs lies before it; click_types: events that count as clicks; novelty_level: level
    of the category path that is top-level; signal_types: events kept as signals; erased: "users", "events" → what was
    left out because its users are to be forgotten; warnings: what is taken as it is and may not be meant so.
    """

    counts: dict[str, int]
    rejected: dict[str, int]
    events_until: int
    click_types: tuple[str, ...]
    novelty_level: int
    signal_types: tuple[str, ...] = ()
    erased: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, logs: Path) -> LogsSummary:
        """Read logs.json below a logs directory."""
        found = json.loads((logs / SUMMARY).read_text(encoding="utf-8"))
        for name in ("click_types", "signal_types", "warnings"):
            found[name] = tuple(found.get(name, ()))
        return cls(**found)


def build_logs(
    host: Path | str,
    logs: Path,
    config: LogsConfig,
    now: int | None = None,
    erasures: Erasures | None = None,
    *,
    warn: bool = True,
) -> LogsSummary:
    """Read a host's tables and write the logs directory.

    host: their folder or its URL; now: Unix seconds by which timestamps in the future are told; the clock by default.
    erasures: users of whom nothing is written, not even among the rejected rows. warn: whether to look for what may not
    be meant so: ids that are alike, events of other names. Raises LogsError when a table or
    column is missing or of another type, RejectionError when more than config.max_rejected of a table's rows are
    rejected; rejected.parquet is written all the same, and nothing else is.
    """
    logs.mkdir(parents=True, exist_ok=True)
    spill = logs / ".spill"
    try:
        with duckdb.connect(config={"temp_directory": str(spill)}) as connection:
            tables = Host(connection, str(host), config)
            load_items(connection, tables)
            load_users(connection, tables)
            load_events(connection, tables, int(time.time()) if now is None else now, config.until)
            erased = leave_out(connection, erasures or Erasures())
            read, rejected = _count(connection)
            write_query(connection, _REJECTED, logs / "rejected.parquet")
            _check(read, rejected, config, logs / "rejected.parquet")
            warnings = [*_ids_alike(connection), *_unknown_events(connection)] if warn else []
            return _build(connection, logs, config, read, rejected, erased, warnings)
    except duckdb.Error as error:
        # DuckDB names the file and the text: Parquet's VARCHAR that is no UTF-8, say.
        raise LogsError(f"{host}: cannot be read ({one_line(error)})") from error
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def _build(
    connection: duckdb.DuckDBPyConnection,
    logs: Path,
    config: LogsConfig,
    read: dict[str, int],
    rejected: dict[str, int],
    erased: dict[str, int],
    warnings: list[str],
) -> LogsSummary:
    warnings = [*merge_names(connection, config.novelty_level), *warnings]
    connection.execute(_CATALOGUE, {"level": config.novelty_level + 1})
    connection.execute(_USERS)
    connection.execute(_CLICKS, {"click_types": list(config.click_types)})
    connection.execute(_SIGNALS, {"signal_types": list(config.signals)})
    tables = {
        "catalogue": "SELECT * FROM catalogue ORDER BY row",
        "users": 'SELECT * FROM users ORDER BY "user"',
        "clicks": 'SELECT * FROM clicks ORDER BY "user", time, item_id',
        "searches": _SEARCHES,
        "exposures": _EXPOSURES,
        "signals": 'SELECT * EXCLUDE (item_id) FROM signals ORDER BY "user", time, item_id',
    }
    counts = {f"host_{name}": number for name, number in read.items()}
    for name, query in tables.items():
        counts[name] = write_query(connection, query, logs / f"{name}.parquet")
    latest = connection.execute("SELECT max(time) FROM host_events WHERE reason IS NULL").fetchone()
    until = config.until
    if until is None:
        until = int(latest[0]) + 1 if latest and latest[0] is not None else 0
    summary = LogsSummary(
        counts, rejected, until, config.click_types, config.novelty_level, config.signals, erased, tuple(warnings)
    )
    write_atomically(logs / SUMMARY, json.dumps(summary.__dict__, indent=2, sort_keys=True).encode())
    return summary


def _count(connection: duckdb.DuckDBPyConnection) -> tuple[dict[str, int], dict[str, int]]:
    read: dict[str, int] = {}
    rejected: dict[str, int] = {}
    for name in ("items", "users", "events"):
        groups = connection.execute(f"SELECT reason, count(*) FROM host_{name} GROUP BY 1 ORDER BY 1").fetchall()
        read[name] = sum(number for _, number in groups)
        rejected |= {f"{name}/{reason}": number for reason, number in groups if reason is not None}
    return read, rejected


def _check(read: dict[str, int], rejected: dict[str, int], config: LogsConfig, aside: Path) -> None:
    unused = UNUSED if config.format == "ubi" else ()
    bad = {name: n for name, n in rejected.items() if name not in unused and name.partition("/")[2] not in REPEATED}
    for table, total in read.items():
        counts = {name: n for name, n in bad.items() if name.startswith(f"{table}/")}
        number = sum(counts.values())
        if number > config.max_rejected * total:
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda c: -c[1]))
            raise RejectionError(
                f"{table}: {number:,} of {total:,} rows rejected ({number / total:.2%}), at most "
                f"{config.max_rejected:.2%} (logs.max_rejected) may be: {listed}{_hints(counts, rejected)}. "
                f"The rows lie in {aside}",
                counts,
            )


def _hints(counts: dict[str, int], rejected: dict[str, int]) -> str:
    """Say what is behind reasons that do not tell by themselves."""
    hints = ""
    if "events/timestamp_not_in_seconds" in counts:
        hints += "; times in milliseconds want logs.columns.events.timestamp = 'timestamp / 1000'"
    if "events/rejected_item" in counts:
        items = ", ".join(f"{name} {number:,}" for name, number in rejected.items() if name.startswith("items/"))
        hints += f"; their items were rejected: {items}"
    return hints


def _ids_alike(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Warn of ids that are kept apart and look as if they were meant to be one: 12 and 00012, é in its two forms."""
    warnings = []
    for name, tables in (("item_id", ("items",)), ("user_id", ("users", "events"))):
        ids = " UNION ".join(f"SELECT {name} AS id FROM host_{table} WHERE reason IS NULL" for table in tables)
        found = connection.execute(
            f"""
            SELECT count(*), any_value(ids ORDER BY ids)
            FROM (
                SELECT list(id ORDER BY id) AS ids FROM ({ids})
                GROUP BY ltrim(trim(nfc_normalize(id)), '0') HAVING count(*) > 1
            )
            """
        ).fetchone()
        if found and found[0]:
            shown = " and ".join(map(repr, found[1][:2]))
            warnings.append(
                f"{name}: {found[0]:,} ids come in several forms (leading zeros, spaces, Unicode), such as {shown}: "
                "each form is an id of its own"
            )
    return warnings


def _unknown_events(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Name the events that were refused for their name: a name may only be another one's."""
    found = connection.execute(
        "SELECT event, count(*) FROM host_events WHERE reason = 'unknown_event' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 8"
    ).fetchall()
    if not found:
        return []
    listed = ", ".join(f"{name} {number:,}" for name, number in found)
    return [f"events of other names are left out: {listed}; logs.columns.events.event can say what they are"]


def _rejected(table: str, columns: str) -> str:
    # Rows of formats other than Parquet are numbered through all files of a table.
    return f"""
    SELECT '{table.removeprefix("host_")}' AS host_table, source, source_row - first AS source_row, reason,
           to_json(struct_pack({columns})) AS content
    FROM {table} JOIN (SELECT source, min(source_row) AS first FROM {table} GROUP BY 1) USING (source)
    WHERE reason IS NOT NULL"""


_REJECTED = (
    " UNION ALL ".join(
        (
            _rejected("host_items", "item_id, title, path, brand, tags"),
            _rejected("host_users", "user_id, attributes"),
            _rejected("host_events", "user_id, item_id, event, time, query, value"),
        )
    )
    + " ORDER BY source, source_row"
)

_CATALOGUE = """
CREATE TEMP TABLE catalogue AS
SELECT row_number() OVER (ORDER BY category NULLS LAST, path, item_id) - 1 AS row, item_id, title, path, brand, tags,
       price, available, category,
       CASE WHEN category IS NULL THEN 0 ELSE dense_rank() OVER (ORDER BY category NULLS LAST) END::INTEGER
           AS category_number
FROM (
    SELECT * REPLACE (CASE WHEN category IS NULL THEN path
        ELSE list_concat(path[:$level - 1], [category], path[$level + 1:]) END AS path)
    FROM (SELECT *, path[$level] AS name FROM host_items WHERE reason IS NULL) LEFT JOIN category_names USING (name)
)
"""

_USERS = """
CREATE TEMP TABLE users AS
SELECT (row_number() OVER (ORDER BY user_id) - 1)::INTEGER AS "user", user_id,
       coalesce(attributes, MAP {}::MAP(VARCHAR, VARCHAR)) AS attributes
FROM (
    SELECT user_id FROM host_users WHERE reason IS NULL
    UNION
    SELECT user_id FROM host_events WHERE reason IS NULL
) LEFT JOIN (SELECT user_id, attributes FROM host_users WHERE reason IS NULL) USING (user_id)
"""

# The same item at the same second is one click, whatever number of events report it: serendipity.novelty.latest.
_CLICKS = """
CREATE TEMP TABLE clicks AS
SELECT "user", row + 1 AS item, category_number AS category, time, max(value) AS value, item_id
FROM host_events JOIN users USING (user_id) JOIN catalogue USING (item_id)
WHERE host_events.reason IS NULL AND list_contains($click_types, event)
GROUP BY ALL
"""

_SIGNALS = """
CREATE TEMP TABLE signals AS
SELECT DISTINCT "user", row + 1 AS item, time, item_id
FROM host_events JOIN users USING (user_id) JOIN catalogue USING (item_id)
WHERE host_events.reason IS NULL AND list_contains($signal_types, event)
"""

_SEARCHES = """
SELECT "user", query, time FROM host_events JOIN users USING (user_id)
WHERE reason IS NULL AND event = 'search' ORDER BY "user", time, query
"""

_EXPOSURES = """
SELECT "user", row + 1 AS item, time FROM host_events JOIN users USING (user_id) JOIN catalogue USING (item_id)
WHERE reason IS NULL AND event = 'exposure' ORDER BY "user", time, item
"""
