"""Users to be forgotten: of them nothing enters the logs, so nothing that is built of the logs knows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import lmdb

from serendipity.layout import hash_of
from serendipity.offline.logs.errors import LogsError

_HASHED = 33
"""Length of the key of an id too long to be its own: \\x01 and a SHA-256 (layout.user_key)."""


_HASHED_ID = "CASE WHEN strlen(user_id) > 511 THEN chr(1) || sha256(user_id) END"
"""strlen counts bytes."""


@dataclass(frozen=True)
class Erasures:
    """The users to be forgotten, by their keys (layout.user_key)."""

    keys: frozenset[bytes] = frozenset()

    @classmethod
    def read(cls, path: Path | None) -> Erasures:
        """Read an erasure list: an LMDB environment of key → Unix seconds; None: an empty one.

        Raises LogsError when there is no such list or it cannot be read: a build that forgot to forget is no build.
        """
        if path is None:
            return cls()
        try:
            with (
                lmdb.open(str(path), readonly=True, create=False, max_dbs=0) as environment,
                environment.begin() as transaction,
                transaction.cursor() as cursor,
            ):
                return cls(frozenset(bytes(key) for key in cursor.iternext(values=False)))
        except lmdb.Error as error:
            raise LogsError(f"{path}: cannot be read ({error}); expected an erasure list") from error

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the list: equal exactly when the same users are on it."""
        return hash_of(sorted(self.keys))


def leave_out(connection: duckdb.DuckDBPyConnection, erasures: Erasures) -> dict[str, int]:
    """Delete the rows of erased users from host_users and host_events; returns "users" and "events" left out.

    users: those of whom there was anything.
    """
    ids = []
    for key in erasures.keys:
        if len(key) == _HASHED and key[0] == 1:
            ids.append(f"\x01{key[1:].hex()}")
        try:
            ids.append(key.decode())
        except UnicodeDecodeError:
            continue
    connection.execute("CREATE TEMP TABLE erased AS SELECT DISTINCT unnest($ids::VARCHAR[]) AS id", {"ids": ids})
    of_erased = f"user_id IN (SELECT id FROM erased) OR {_HASHED_ID} IN (SELECT id FROM erased)"
    found = connection.execute(
        "SELECT count(DISTINCT user_id) FROM (SELECT user_id FROM host_users UNION ALL SELECT user_id FROM host_events)"
        f" WHERE {of_erased}"
    ).fetchone()
    events = connection.execute(f"DELETE FROM host_events WHERE {of_erased}").fetchone()
    connection.execute(f"DELETE FROM host_users WHERE {of_erased}")
    return {"users": int(found[0]) if found else 0, "events": int(events[0]) if events else 0}
