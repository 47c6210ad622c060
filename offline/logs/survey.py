"""What a host's logs hold and what they are good for, before anything is built of them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from serendipity.novelty import CLICK_WINDOW
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.cost import Cost, estimated_cost
from serendipity.offline.logs.prospects import Prospect, prospects_of
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.sufficiency import Room, Wanted, depth_of, insufficiencies, open_views, room_of

_DAY = 86_400

_GAPS = 5
"""Gaps in time that are listed."""

_EXAMPLES = 2
"""Rejected rows shown per reason."""

_LATER = 0.9
"""Clicks after this share of them are the later ones, whose categories may be novel."""

_FEWEST_NOVEL = 0.05
"""A level serves novelty where at least this share of later clicks is novel."""


@dataclass(frozen=True)
class LevelFacts:
    """What a level of the category path would be as top-level.

    room: what it leaves to recall; largest: share of the clicks in the most clicked category; without: share of clicks
    in none; touched: median number of a user's in the latest 200 clicks; novel: share of the later clicks in a category
    that the user had not clicked before, of users who had clicked; novel_clicks: how many they are; serves: whether
    novelty can be judged by it.
    """

    room: Room
    largest: float
    without: float
    touched: float
    novel: float
    novel_clicks: int
    serves: bool


@dataclass(frozen=True)
class Survey:
    """What was found. read: rows by table; rejected: "<table>/<reason>" → rows; examples: the same → contents as JSON.

    since, until: Unix seconds of the first and latest event; longest_gap: seconds without any; gaps: the longest of
    two whole days or more without any, first day and first day with events again; events: name → rows;
    users: with a click; clicks: their median number; items: in the catalogue; available: that may be recalled; clicked:
    that ever were; levels: by level of the path; novelty_level: of the configuration; prospects: of the channel's
    parts; cost: of a build; problems: what keeps a channel from being built of these logs, a line each; warnings: lines
    of what may not be meant so.
    """

    read: dict[str, int]
    rejected: dict[str, int]
    examples: dict[str, list[str]]
    since: int
    until: int
    longest_gap: int
    gaps: list[tuple[str, str]]
    events: dict[str, int]
    users: int
    clicks: float
    items: int
    available: int
    clicked: int
    levels: list[LevelFacts]
    novelty_level: int
    prospects: list[Prospect]
    cost: Cost
    problems: list[str]
    warnings: list[str]

    @property
    def recommended(self) -> int | None:
        """The coarsest level by which novelty can be judged; None where there is none."""
        return next((facts.room.level for facts in self.levels if facts.serves), None)

    def to_json(self) -> str:
        """Write everything as one JSON object."""
        told = {"recommended_level": self.recommended, "advice": self.advice}
        return json.dumps({**asdict(self), **told}, indent=2)

    @property
    def advice(self) -> list[str]:
        """What the logs are good for, a line each."""
        lines = []
        if self.gaps:
            listed = ", ".join(f"{first} to {until}" for first, until in self.gaps)
            lines.append(f"time: no event from {listed}: what is learned before a gap is judged behind it")
        if self.recommended is None:
            lines.append(
                f"novelty: no level leaves enough to recall while at least {_FEWEST_NOVEL:.0%} of later clicks are "
                "novel: there is little for this channel to find"
            )
        elif self.recommended != self.novelty_level:
            lines.append(f"novelty: level {self.recommended} would serve (logs.novelty_level = {self.recommended})")
        if not self.events["exposures"]:
            lines.append("exposures: none, so what was shown and not clicked teaches nothing")
        return lines


def survey(host: Path | str, config: LogsConfig, wanted: Wanted, now: int | None = None) -> Survey:
    """Read a host's tables and tell what is in them; nothing is kept. Raises LogsError when a table cannot be read."""
    with tempfile.TemporaryDirectory() as directory:
        logs = Path(directory)
        summary = build_logs(host, logs, config.model_copy(update={"max_rejected": 1.0}), now)
        return _survey_of(logs, summary, wanted)


def _survey_of(logs: Path, summary: LogsSummary, wanted: Wanted) -> Survey:
    with duckdb.connect() as connection:
        open_views(connection, logs)

        def one(query: str) -> tuple[Any, ...]:
            return connection.execute(query).fetchone() or ()

        connection.execute(
            """
            CREATE TABLE pauses AS SELECT time, lag(time) OVER (ORDER BY time) AS before FROM (
                SELECT time FROM clicks UNION SELECT time FROM searches UNION SELECT time FROM exposures
                UNION SELECT time FROM signals
            )
            """
        )
        since, until, gap = one(
            "SELECT coalesce(min(time), 0), coalesce(max(time), 0), coalesce(max(time - before), 0) FROM pauses"
        )
        gaps = connection.execute(
            """
            SELECT strftime(make_timestamp((before // $day + 1) * $day * 1000000), '%Y-%m-%d'),
                   strftime(make_timestamp(time * 1000000), '%Y-%m-%d')
            FROM (FROM pauses WHERE time // $day - before // $day > 2 ORDER BY time - before DESC, time LIMIT $most)
            ORDER BY time
            """,
            {"day": _DAY, "most": _GAPS},
        ).fetchall()
        users, clicks = one(
            'SELECT count(*), coalesce(median(n), 0) FROM (SELECT count(*) AS n FROM clicks GROUP BY "user")'
        )
        items, available, clicked = one(
            "SELECT count(*), count(*) FILTER (available), (SELECT count(DISTINCT item) FROM clicks) FROM catalogue"
        )
        examples = connection.execute(
            "SELECT host_table || '/' || reason, list(content)[:$most] FROM rejected GROUP BY ALL ORDER BY 1",
            {"most": _EXAMPLES},
        ).fetchall()
        levels = [_level(connection, level, wanted) for level in range(depth_of(connection))]
        rooms = [facts.room for facts in levels]
        novel_clicks = {facts.room.level: facts.novel_clicks for facts in levels}
        prospects = prospects_of(connection, wanted, novel_clicks.get(summary.novelty_level, 0))
        problems = insufficiencies(connection, summary.novelty_level, wanted, rooms.__getitem__)
    return Survey(
        read={name.removeprefix("host_"): n for name, n in summary.counts.items() if name.startswith("host_")},
        rejected=summary.rejected,
        examples=dict(examples),
        since=since,
        until=until,
        longest_gap=gap,
        gaps=gaps,
        events={name: summary.counts[name] for name in ("clicks", "signals", "searches", "exposures")},
        users=users,
        clicks=clicks,
        items=items,
        available=available,
        clicked=clicked,
        levels=levels,
        novelty_level=summary.novelty_level,
        prospects=prospects,
        cost=estimated_cost(summary.counts["clicks"], items),
        problems=problems,
        warnings=list(summary.warnings),
    )


def _level(connection: duckdb.DuckDBPyConnection, level: int, wanted: Wanted) -> LevelFacts:
    found = connection.execute(
        f"""
        WITH named AS (
            SELECT "user", time, item, path[{level + 1}] AS category
            FROM clicks JOIN (SELECT row + 1 AS item, path FROM catalogue) USING (item)
        ),
        cut AS (SELECT quantile_disc(time, {_LATER}) AS moment FROM named),
        before AS (SELECT DISTINCT "user", category FROM named, cut WHERE time < moment),
        later AS (
            SELECT "user", category FROM named, cut
            WHERE time >= moment AND category IS NOT NULL AND "user" IN (SELECT "user" FROM before)
        )
        SELECT
            (SELECT max(n) / sum(n) FROM (SELECT count(*) AS n FROM named GROUP BY category)),
            (SELECT avg((category IS NULL)::INT) FROM named),
            (SELECT median(n) FROM (
                SELECT count(DISTINCT category) AS n
                FROM (SELECT *, row_number() OVER (PARTITION BY "user" ORDER BY time DESC, item) AS place FROM named)
                WHERE place <= {CLICK_WINDOW} GROUP BY "user"
            )),
            (SELECT avg((before.category IS NULL)::INT) FROM later LEFT JOIN before USING ("user", category)),
            (SELECT count(*) FROM later ANTI JOIN before USING ("user", category))
        """
    ).fetchone()
    largest, without, touched, novel, novel_clicks = (float(figure or 0.0) for figure in found or (0.0,) * 5)
    room = room_of(connection, level, wanted.asked)
    serves = room.suffices(wanted) and novel >= _FEWEST_NOVEL
    return LevelFacts(room, largest, without, touched, novel, int(novel_clicks), serves)
