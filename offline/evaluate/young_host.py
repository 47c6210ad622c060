"""A host's files with some of its users only: what a host that has just begun would have."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np

from serendipity.offline.datasets.adapter import write_parquet
from serendipity.offline.logs.host_files import load_events, load_items, load_users

_ORIGIN = "EXCLUDE (source, source_row, reason)"


def sample_users(host: Path, out: Path, share: float, seed: int, now: int) -> int:
    """Write host files with a share of the users who have events, drawn at random, and all items.

    now: Unix seconds. Rows that the logs builder would reject are left out. Returns how many users those are, at least
    one where there are any. Raises LogsError when a file is missing or cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        load_items(connection, host)
        load_events(connection, host, now, None)
        load_users(connection, host)
        found = connection.execute("SELECT DISTINCT user_id FROM host_events WHERE reason IS NULL").fetchall()
        users = sorted(row[0] for row in found)
        chosen = np.random.default_rng(seed).permutation(users)[: max(1, round(share * len(users)))].tolist()
        connection.execute("CREATE TEMP TABLE chosen AS SELECT unnest(?::VARCHAR[]) AS user_id", [chosen])
        theirs = "reason IS NULL AND user_id IN (SELECT user_id FROM chosen)"
        events = f"SELECT * {_ORIGIN} RENAME (time AS timestamp) FROM host_events WHERE {theirs}"
        write_parquet(connection, events, out / "events.parquet")
        write_parquet(connection, f"SELECT * {_ORIGIN} FROM host_users WHERE {theirs}", out / "users.parquet")
        write_parquet(connection, f"SELECT * {_ORIGIN} FROM host_items WHERE reason IS NULL", out / "items.parquet")
    return len(chosen)
