"""What an evaluation of the channel found, as data, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from serendipity.layout import write_atomically
from serendipity.offline.evaluate.control_choice import Chosen
from serendipity.offline.evaluate.measures import EXCLUSIVE
from serendipity.offline.evaluate.methods import MethodResult
from serendipity.offline.evaluate.methods_report import (
    LEGEND,
    chosen_table,
    method_data,
    methods_table,
    number,
    ratios_table,
    seeds_table,
    table,
)
from serendipity.offline.evaluate.reliability import Reliability
from serendipity.offline.evaluate.source_worth import SourceWorth

JSON_REPORT = "channel.json"
MARKDOWN_REPORT = "channel.md"

_COMPARED = (("recall", 0), ("recall", 1), ("serendipity", 1), (EXCLUSIVE, 0), (EXCLUSIVE, 1))
"""Measures, and which of the depths, that the channel's ratios to the other methods are given for."""


@dataclass(frozen=True)
class Percentiles:
    """Times in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Answers:
    """How the STRICT answers look.

    fill: mean share of the candidates asked for that came; violations: candidates that are not novel; categories:
    distinct ones per answer, mean; coverage: share of the catalogue in somebody's answer; milliseconds: by stage,
    "caller" is what the caller waited.
    """

    fill: float
    violations: int
    categories: float
    coverage: float
    degraded: int
    degraded_reasons: Mapping[str, int]
    milliseconds: Mapping[str, Percentiles]


@dataclass(frozen=True)
class ColdUsers:
    """Users without a click before the cut. recall: K → share found of what they then clicked."""

    users: int
    fill: float
    recall: Mapping[int, float]


@dataclass(frozen=True)
class ChannelReport:
    """What replays of the channel showed.

    cut, until: Unix seconds; users: judged; targets: measure → novel targets that it looks at; depths: the two K.
    """

    dataset: str
    snapshots: tuple[str, ...]
    cut: int
    until: int
    users: int
    targets: Mapping[str, int]
    depths: tuple[int, int]
    bootstrap_samples: int
    chosen: tuple[Chosen, ...]
    methods: tuple[MethodResult, ...]
    sources: tuple[SourceWorth, ...]
    answers: Answers
    cold: ColdUsers | None
    reliability: Mapping[str, Reliability]

    @property
    def channel(self) -> MethodResult:
        """The channel's own figures."""
        return next(method for method in self.methods if method.kind == "channel")


def write_report(report: ChannelReport, heading: str, directory: Path) -> None:
    """Write channel.json and channel.md below `directory`. heading: how it was run."""
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / JSON_REPORT, to_json(report, heading).encode())
    write_atomically(directory / MARKDOWN_REPORT, to_markdown(report, heading).encode())


def to_json(report: ChannelReport, heading: str) -> str:
    """Lay the report out as JSON; what is not a number (NaN) becomes null."""
    content = {name: value for name, value in vars(report).items() if name not in ("methods", "chosen")}
    content |= {
        "heading": heading,
        "chosen": {one.control.name: {**one.parameters, "validation": one.validation} for one in report.chosen},
        "methods": [method_data(method) for method in report.methods],
    }
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"


def to_markdown(report: ChannelReport, heading: str) -> str:
    """Lay the report out as Markdown tables."""
    shallow, deep = report.depths
    counts = report.targets
    users = (
        f"{report.users:,} users with {counts['recall']:,} novel targets, {counts['never']:,} in categories never "
        f"clicked, {counts['re-entry']:,} re-entries, {counts['cold items']:,} cold items"
    )
    compared = [(measure, report.depths[place]) for measure, place in _COMPARED]
    others = [method for method in report.methods if method.kind != "channel"]
    seeds = seeds_table(report.methods, [(measure, k) for measure in ("recall", EXCLUSIVE) for k in report.depths])
    sections = [
        f"# The channel on {report.dataset}\n\n{heading}\n\n"
        f"Clicks of {_date(report.cut)} to {_date(report.until)}: {users}. Snapshots {', '.join(report.snapshots)}.",
        f"## Every method, the same users, candidates and places\n\n@{shallow} / @{deep}. {LEGEND} exclusive: novel "
        f"targets found per user when the host excludes its own lists, the first {deep} of ALS × trend and of "
        f"popularity.\n\n" + methods_table(report.methods, report.depths),
        "## The channel ÷ every other method\n\nPaired by user, 95 % bootstrap intervals over users.\n\n"
        + ratios_table(report.channel, others, compared, report.bootstrap_samples),
        "## What each source is worth\n\nPer user; popularity is given the source's places, and the rest of the answer "
        "stays.\n\n" + _sources(report.sources),
        *([f"## Over seeds\n\nMean ± standard deviation.\n\n{seeds}"] if seeds else []),
        "## Chosen on validation\n\n" + chosen_table(report.chosen),
        *([_cold(report.cold, report.depths)] if report.cold else []),
        "## The answers\n\n" + _answers(report),
        "## Calibration of the score\n\n" + _calibration(report.reliability),
    ]
    return "\n\n".join(sections) + "\n"


def _sources(sources: Sequence[SourceWorth]) -> str:
    rows = [
        (
            one.name, f"{one.places:.1f}", f"{one.hits:.3f}", f"{one.popularity_hits:.3f}",
            f"{one.difference.value:+.3f} ({one.difference.low:+.3f} to {one.difference.high:+.3f})",
            f"{one.only_it:.4f}",
            ", ".join(f"{state} {count:,}" for state, count in sorted(one.answers.items())),
        )
        for one in sources
    ]  # fmt: skip
    header = ("source", "places", "hits", "popularity's hits there", "difference", "only it found", "answers")
    return table(header, rows)


def _cold(cold: ColdUsers, depths: tuple[int, int]) -> str:
    found = " / ".join(number(cold.recall[k]) for k in depths)
    return (
        f"## Users without a click before the cut\n\n{cold.users:,} asked, fill {cold.fill:.0%}, "
        f"recall @{depths[0]} / @{depths[1]} {found}."
    )


def _answers(report: ChannelReport) -> str:
    answers = report.answers
    rows = [
        ("fill", f"{answers.fill:.1%}"),
        ("candidates that break STRICT", f"{answers.violations:,}"),
        ("top-level categories per answer", f"{answers.categories:.1f}"),
        (f"catalogue coverage @{report.depths[1]}", f"{answers.coverage:.1%}"),
        ("degraded answers", f"{answers.degraded:,}"),
        *(
            (f"{name}, ms p50 / p99", f"{times.p50:.1f} / {times.p99:.1f}")
            for name, times in answers.milliseconds.items()
        ),
    ]
    reasons = "".join(f"\n* degraded: {reason} ({count:,})" for reason, count in answers.degraded_reasons.items())
    return table(("", ""), rows) + reasons


def _calibration(measured: Mapping[str, Reliability]) -> str:
    rows = [
        (
            name, number(one.mean_predicted), number(one.base_rate), number(one.expected_calibration_error),
            f"{one.brier:.6f}", f"{one.brier_of_base_rate:.6f}",
        )
        for name, one in measured.items()
    ]  # fmt: skip
    header = ("source", "mean score", "hit rate", "ECE", "Brier", "Brier of the base rate")
    if not rows:
        return "No answer held a candidate."
    bins = [(f"{b.count:,}", number(b.predicted), number(b.observed)) for b in measured["all"].bins]
    return table(header, rows) + "\n\n" + table(("candidates", "mean score", "hit rate"), bins)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))  # type: ignore[call-overload]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value
