"""What the parts of a channel can come to on logs: the builders' own conditions, asked before anything is built.

That a condition holds promises nothing: what a source is worth is measured by the build's replay (<out>/merge) and by
`serendip evaluate channel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from serendipity.offline.logs.sufficiency import Wanted

_DAY = 86_400
_KNOWN = 0.5
"""Share of the clicks on items that something is learned of, below which the towers know little."""
_USERS_OF_A_GROUP = 10
"""Users with history for each group below which groups say little of their members."""


@dataclass(frozen=True)
class Prospect:
    """Of a part of the channel: whether it can be made, and what speaks for that."""

    part: str
    outlook: Literal["yes", "little", "no"]
    why: str


def prospects_of(connection: duckdb.DuckDBPyConnection, wanted: Wanted, novel_clicks: int) -> list[Prospect]:
    """Tell what the parts of a channel can come to. novel_clicks: later clicks in categories new to their users."""
    clicks, known, since, until, searches, searched, users, historied, told = _figures(connection, wanted)
    share = known / max(clicks, 1)
    days = (until - since) / _DAY
    return [
        Prospect(
            "collaborative",
            "yes" if share >= _KNOWN else "little" if known else "no",
            f"{share:.0%} of the clicks are on items of {wanted.item_users} users or more, of which alone it learns",
        ),
        Prospect(
            "interest",
            "yes" if searches else "little",
            f"{searches:,} searches of {searched:,} users in the last 30 days"
            + ("" if searches else ": interests rest on clicks alone"),
        ),
        Prospect(
            "group",
            "no" if not historied else "little" if historied < _USERS_OF_A_GROUP * wanted.groups else "yes",
            f"{historied:,} of {users:,} users have {wanted.history} clicks or more, for {wanted.groups} groups",
        ),
        Prospect(
            "graph",
            "yes" if told else "little",
            f"{told:,} items that may be recalled have a brand, tags or a path of two levels to be linked by",
        ),
        Prospect(
            "merge model",
            "no" if novel_clicks < wanted.positives else "little" if novel_clicks < 2 * wanted.positives else "yes",
            f"{novel_clicks:,} of the latest tenth of the clicks are novel, of which {wanted.positives} must be "
            "found; with fewer the sources' ranks are fused",
        ),
        Prospect(
            "InterestGPT",
            "yes" if days >= wanted.days else "no",
            f"logs of {days:.0f} days; it needs {wanted.days:.0f}",
        ),
    ]


def _figures(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> tuple[Any, ...]:
    return (
        connection.execute(
            """
        SELECT (SELECT count(*) FROM clicks),
               (SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM clicks GROUP BY item
                   HAVING count(DISTINCT "user") >= $item_users)),
               (SELECT coalesce(min(time), 0) FROM clicks), (SELECT coalesce(max(time), 0) FROM clicks),
               recent.searches, recent.searched,
               (SELECT count(DISTINCT "user") FROM clicks),
               (SELECT count(*) FROM (SELECT "user" FROM clicks GROUP BY 1 HAVING count(*) >= $history)),
               (SELECT count(*) FROM catalogue WHERE available AND (brand <> '' OR len(tags) > 0 OR len(path) > 1))
        FROM (
            SELECT count(*) AS searches, count(DISTINCT "user") AS searched
            FROM searches WHERE time > (SELECT max(time) FROM clicks) - $month
        ) AS recent
        """,
            {"item_users": wanted.item_users, "history": wanted.history, "month": 30 * _DAY},
        ).fetchone()
        or (0,) * 9
    )
