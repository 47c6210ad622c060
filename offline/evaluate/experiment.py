"""A host's experiment as its serving log and feedback tell it: arms side by side, whole and by source.

    ENR     novel exposures / exposures               CNR     novel clicks / clicks
    CTR     exposures that were clicked / exposures   clicks a user: clicks / users who were answered

ENR and CNR as arXiv 2508.04032 names them. A candidate was exposed if feedback that names its answer says that it was
shown, clicked or ordered, and clicked if it was clicked or ordered; novel is what the answer said was novel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serendipity.offline.evaluate.methods_report import number, table
from serendipity.offline.evaluate.significance import Estimate
from serendipity.offline.logs.errors import LogsError

Outcome = tuple[str, str, bool]
"""What feedback says of a candidate: the answer's recall id, the item, and whether it was clicked or only shown."""

_SUMS = ("users", "answers", "exposures", "clicks", "novel exposures", "novel clicks")
_MEASURES = {
    "ENR": ("novel exposures", "exposures"),
    "CNR": ("novel clicks", "clicks"),
    "CTR": ("clicks", "exposures"),
    "clicks a user": ("clicks", "users"),
}
"""Sums over users that each divides."""

_UNITS = 2_000
"""Users are resampled in so many groups at most: beyond, intervals hardly change, and their cost does."""
_SAMPLES = 2_000
_TAILS = (0.025, 0.975)
_ROWS = 100_000
_ALL = ""

# Users on the erasure list are logged without an id: nobody's.
_JOINED = f"""
CREATE TABLE answers AS
    SELECT user_id, experiment_tag AS arm, response FROM read_parquet($files, union_by_name = true) WHERE user_id <> '';
CREATE TABLE units AS
    SELECT user_id, (row_number() OVER (ORDER BY user_id) - 1) % {_UNITS} AS unit
    FROM (SELECT DISTINCT user_id FROM answers);
CREATE TABLE candidates AS
    SELECT response.recall_id AS recall_id, user_id, arm, unnest(response.item_ids) AS item_id,
        lower(replace(unnest(response.sources), 'SOURCE_', '')) AS source,
        unnest(list_slice(response.rank_features."values", list_position(response.rank_features.names, 'novel'),
            len(response.rank_features."values"), len(response.rank_features.names))) > 0 AS novel
    FROM answers;
CREATE TABLE exposures AS
    SELECT recall_id, item_id, bool_or(clicked) AS clicked FROM told GROUP BY ALL;
"""
_BY_SOURCE = """
SELECT unit, arm, source, count(*), count_if(clicked), count_if(novel), count_if(clicked AND novel)
FROM candidates JOIN exposures USING (recall_id, item_id) JOIN units USING (user_id) GROUP BY ALL
"""
_USERS = "SELECT unit, arm, count(DISTINCT user_id), count(*) FROM answers JOIN units USING (user_id) GROUP BY ALL"
_IN_SEVERAL = "SELECT count(*) FROM (SELECT user_id FROM answers GROUP BY user_id HAVING count(DISTINCT arm) > 1)"
_STRANGERS = "SELECT count(*) FROM exposures ANTI JOIN candidates USING (recall_id, item_id)"


@dataclass(frozen=True)
class Arm:
    """What became of the answers with one experiment tag, of all sources, or of one.

    source: empty for all; counts: of users and answers (of all sources), exposures, clicks; measured: by measure, None
    where there is nothing to divide by; gained: the same minus the baseline's.
    """

    tag: str
    source: str
    counts: Mapping[str, int]
    measured: Mapping[str, Estimate | None]
    gained: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Experiment:
    """arms: the baseline's first; in_several: users who were answered in more than one arm; strangers: candidates that
    feedback names and the logs do not hold."""

    arms: Sequence[Arm]
    in_several: int
    strangers: int


def read_experiment(logs: Sequence[Path], outcomes: Iterable[Outcome], baseline: str | None, seed: int) -> Experiment:
    """Join serving logs and feedback by recall id and item.

    logs: directories of serving logs; baseline: tag that others are compared with, None: the one with most answers;
    seed: of the bootstrap over users. Raises LogsError without answers, or without any of the baseline.
    """
    files = [str(path) for directory in logs for path in sorted(directory.glob("*.parquet"))]
    if not files:
        found = ", ".join(map(str, logs))
        raise LogsError(
            f"{found}: found no Parquet, expected serving logs that a service compacted, an hour after it began them; "
            "of one that has ended: python -m serendipity.channel.state.serving_log_files DIRECTORY"
        )
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE told (recall_id VARCHAR, item_id VARCHAR, clicked BOOLEAN)")
        outcomes = iter(outcomes)
        while rows := list(islice(outcomes, _ROWS)):
            connection.register(
                "batch", pa.table(dict(zip(("recall_id", "item_id", "clicked"), zip(*rows, strict=True), strict=True)))
            )
            connection.execute("INSERT INTO told SELECT * FROM batch")
        for statement in _JOINED.split(";")[:-1]:
            connection.execute(statement, {"files": files} if "$files" in statement else None)
        users, by_source = connection.execute(_USERS).fetchall(), connection.execute(_BY_SOURCE).fetchall()
        in_several, strangers = (connection.execute(asked).fetchall()[0][0] for asked in (_IN_SEVERAL, _STRANGERS))
    sums: dict[tuple[str, str], NDArray[np.float64]] = defaultdict(lambda: np.zeros((_UNITS, len(_SUMS))))
    for unit, tag, *counted in users:
        sums[tag, _ALL][unit, :2] += counted
    tags = sorted((tag for tag, _ in sums), key=lambda tag: (-sums[tag, _ALL][:, 1].sum(), tag))
    if not tags:
        raise LogsError(f"{', '.join(map(str, logs))}: found answers of nobody who may be named, expected some")
    if baseline is not None and baseline not in tags:
        raise LogsError(f"baseline: found {baseline!r}, expected one of: {', '.join(map(repr, tags))}")
    first = tags[0] if baseline is None else baseline
    tags.sort(key=lambda tag: tag != first)
    for unit, tag, source, *counted in by_source:
        sums[tag, _ALL][unit, 2:] += counted
        sums[tag, source][unit, 2:] += counted
        sums[tag, source][:, :2] = sums[tag, _ALL][:, :2]
    return Experiment(_arms(tags, sums, np.random.default_rng(seed)), in_several, strangers)


def _arms(
    tags: Sequence[str], sums: Mapping[tuple[str, str], NDArray[np.float64]], rng: np.random.Generator
) -> list[Arm]:
    """Measure every arm, whole and by source, on the same resamples of users."""
    num_units = 1 + max(int(np.flatnonzero(each[:, 1]).max()) for each in sums.values())
    weights = rng.multinomial(num_units, np.full(num_units, 1.0 / num_units), _SAMPLES).astype(np.float64)
    # Row 0 is what happened, the others are resamples.
    weights = np.vstack([np.ones(num_units), weights])
    drawn: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
    for key, of_units in sums.items():
        totals = dict(zip(_SUMS, (weights @ of_units[:num_units]).T, strict=True))
        drawn[key] = {
            measure: np.divide(totals[top], totals[below], out=np.full(len(weights), np.nan), where=totals[below] > 0)
            for measure, (top, below) in _MEASURES.items()
        }
    arms = []
    for tag, source in sorted(sums, key=lambda key: (tags.index(key[0]), key[1])):
        figures, theirs = drawn[tag, source], drawn.get((tags[0], source))
        counts = dict(zip(_SUMS, map(int, sums[tag, source].sum(axis=0)), strict=True))
        measured = {measure: _estimate(figures[measure]) for measure in _MEASURES}
        gained = {measure: _estimate(figures[measure] - theirs[measure]) for measure in _MEASURES} if theirs else {}
        arms.append(Arm(tag, source, counts, measured, gained))
    return arms


def _estimate(drawn: NDArray[np.float64]) -> Estimate | None:
    """Estimate from what happened, first, and what happened in the resamples, as far as there was any."""
    if np.isnan(drawn[0]):
        return None
    low, high = np.nanquantile(drawn[1:], _TAILS)
    return Estimate(float(drawn[0]), float(low), float(high))


def to_markdown(experiment: Experiment) -> str:
    """Lay the arms out: side by side, against the baseline, and by source."""
    whole = [arm for arm in experiment.arms if arm.source == _ALL]
    counted = ("users", "answers", "exposures", "clicks")
    side_by_side = [
        (_named(arm), *(f"{arm.counts[name]:,}" for name in counted), *map(_told, arm.measured.values()))
        for arm in whole
    ]
    against = [(_named(arm), *map(_told, arm.gained.values())) for arm in whole[1:]]
    by_source = [
        (
            _named(arm),
            arm.source,
            *(f"{arm.counts[name]:,}" for name in counted[2:]),
            *map(_told, arm.measured.values()),
        )
        for arm in experiment.arms
        if arm.source != _ALL
    ]
    parts = [table(("arm", *counted, *_MEASURES), side_by_side)]
    if against:
        parts += [f"Minus {_named(whole[0])}:", table(("arm", *_MEASURES), against)]
    parts += ["By source:", table(("arm", "source", *counted[2:], *_MEASURES), by_source)]
    parts.append(
        f"In parentheses: 95 % bootstrap intervals over users. {experiment.in_several:,} users were answered in more "
        f"than one arm; {experiment.strangers:,} candidates that feedback names are not in these logs."
    )
    return "\n\n".join(parts)


def _named(arm: Arm) -> str:
    return arm.tag or "(no tag)"


def _told(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"
