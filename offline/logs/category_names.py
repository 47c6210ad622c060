"""Top-level categories whose names cannot be told apart are one."""

from __future__ import annotations

import duckdb

from serendipity.interests.text import comparable


def merge_names(connection: duckdb.DuckDBPyConnection, novelty_level: int) -> list[str]:
    """Make table category_names: name at the novelty level → category, from host_items; returns what to warn of.

    Names are one when `comparable` is equal: users see no difference, and what is told of a category by its name, to
    language models and by them, could only ever mean one. The spelling of most items stands for all.
    """
    found = connection.execute(
        "SELECT path[$level] AS name, count(*) FROM host_items WHERE reason IS NULL AND len(path) >= $level "
        "GROUP BY 1 ORDER BY 2 DESC, 1",
        {"level": novelty_level + 1},
    ).fetchall()
    spelled: dict[str, list[str]] = {}
    for name, _ in found:
        spelled.setdefault(comparable(name) or name, []).append(name)
    pairs = [(name, names[0]) for names in spelled.values() for name in names]
    connection.execute(
        "CREATE TEMP TABLE category_names AS SELECT unnest($names::VARCHAR[]) AS name, "
        "unnest($categories::VARCHAR[]) AS category",
        {"names": [name for name, _ in pairs], "categories": [category for _, category in pairs]},
    )
    merged = [names for names in spelled.values() if len(names) > 1]
    if not merged:
        return []
    shown = ", ".join(repr(name) for name in merged[0][:3])
    return [
        f"path: {sum(map(len, merged)):,} names of categories at level {novelty_level} differ only in case, spacing, "
        f"marks or past their first 80 characters and make {len(merged):,}: {shown} …"
    ]
