"""What an evaluation of the channel found, as data, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from serendipity.layout import write_atomically
from serendipity.offline.calibration import Reliability
from serendipity.offline.evaluate.novel_category_keys import KEYS
from serendipity.offline.evaluate.significance import Ratio

JSON_REPORT = "channel.json"
MARKDOWN_REPORT = "channel.md"


@dataclass(frozen=True)
class Accuracy:
    """Means over the users who have such a target. recall, ndcg: K → value; found: targets within the largest K."""

    users: int
    targets: int
    found: int
    recall: Mapping[int, float]
    ndcg: Mapping[int, float]


@dataclass(frozen=True)
class SourceContribution:
    """What one source gave to the STRICT answers.

    requested, found: candidates asked of it and found before filters; returned: candidates it leads; hits: novel
    targets among them; also_found: novel targets returned that it found too, whoever leads them; unique_hits: those
    no other source found. hit_rate: hits / returned. states: SourceState → answers.
    """

    requested: int
    found: int
    returned: int
    hits: int
    also_found: int
    unique_hits: int
    hit_rate: float
    states: Mapping[str, int]


@dataclass(frozen=True)
class FilterEffect:
    """What one filter did to the STRICT answers. targets_forbidden: of all targets, how many its rule alone forbids."""

    kept: int
    removed: int
    targets_forbidden: int | None


@dataclass(frozen=True)
class Percentiles:
    """Times in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Comparison:
    """The channel against one baseline: accuracy of the baseline, and ratios channel / baseline of recall by K."""

    all: Accuracy
    novel: Accuracy
    all_ratio: Mapping[int, Ratio]
    novel_ratio: Mapping[int, Ratio]


@dataclass(frozen=True)
class ChannelReport:
    """What one replay of the channel showed.

    fill: mean share of the candidates asked for that came; full_answers: share of answers that came in full;
    novelty_rate: share of returned candidates that are novel (ENR); violations: those that are not, under STRICT;
    coverage: K → share of the catalogue; categories_per_answer: distinct ones, mean. all is judged on answers without a
    novelty policy, the others on STRICT answers; reliability: of all users asked, cold ones included, by leading
    source, and of cold users alone; latency: by stage, "caller" is what the caller waited; novel_category_keys: key of
    the list that the group source answered from → answers, under STRICT, and the same of cold users.
    """

    dataset: str
    snapshots: tuple[str, ...]
    calibrations: tuple[str, ...]
    cut: int
    until: int
    users: int
    fill: float
    full_answers: float
    novelty_rate: float
    violations: int
    mean_unexpectedness: float
    categories_per_answer: float
    degraded_answers: int
    degraded_reasons: Mapping[str, int]
    coverage: Mapping[int, float]
    all: Accuracy
    novel: Accuracy
    rolling_novel: Accuracy
    cold: Accuracy
    cold_users: int
    cold_fill: float
    sources: Mapping[str, SourceContribution]
    filters: Mapping[str, FilterEffect]
    reliability: Mapping[str, Reliability]
    latency: Mapping[str, Percentiles]
    baselines: Mapping[str, Comparison] = field(default_factory=dict)
    novel_category_keys: Mapping[str, int] = field(default_factory=dict)
    cold_novel_category_keys: Mapping[str, int] = field(default_factory=dict)


def write_report(report: ChannelReport, directory: Path) -> None:
    """Write channel.json and channel.md below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / JSON_REPORT, to_json(report).encode())
    write_atomically(directory / MARKDOWN_REPORT, to_markdown(report).encode())


def to_json(report: ChannelReport) -> str:
    """Lay the report out as JSON; what is not a number (NaN) becomes null."""
    return json.dumps(_plain(asdict(report)), indent=2, sort_keys=True, allow_nan=False) + "\n"


def to_markdown(report: ChannelReport) -> str:
    """Lay the report out as Markdown tables."""
    sections = [
        _heading(report),
        _accuracy(report),
        *([_comparisons(report)] if report.baselines else []),
        _sources(report),
        *([_keys(report)] if report.novel_category_keys else []),
        _filters(report),
        _calibration(report),
        _latency(report),
    ]
    return "\n\n".join(sections) + "\n"


def _heading(report: ChannelReport) -> str:
    span = f"{_date(report.cut)} to {_date(report.until)}"
    rows = [
        ("users with targets", f"{report.users:,}"),
        ("fill", f"{report.fill:.1%}"),
        ("answers in full", f"{report.full_answers:.1%}"),
        ("novelty rate (ENR) of returned candidates", f"{report.novelty_rate:.4f}"),
        ("candidates that break STRICT", f"{report.violations:,}"),
        ("mean unexpectedness", f"{report.mean_unexpectedness:.3f}"),
        ("top-level categories per answer", f"{report.categories_per_answer:.1f}"),
        *((f"catalogue coverage @{k}", f"{share:.1%}") for k, share in report.coverage.items()),
        ("degraded answers", f"{report.degraded_answers:,}"),
    ]
    reasons = [f"* degraded: {reason} ({count:,})" for reason, count in report.degraded_reasons.items()]
    text = (
        f"# The channel on {report.dataset}\n\nEvents of {span}, snapshot {', '.join(report.snapshots)}, "
        f"calibration {', '.join(report.calibrations)}.\n\n{_table(('', ''), rows)}"
    )
    return text + ("\n\n" + "\n".join(reasons) if reasons else "")


def _accuracy(report: ChannelReport) -> str:
    depths = sorted(report.novel.recall)
    groups = {
        "all targets (no novelty policy)": report.all,
        "novel targets (STRICT)": report.novel,
        "novel at the click (STRICT)": report.rolling_novel,
        f"cold users (STRICT; {report.cold_users:,} asked, fill {report.cold_fill:.0%})": report.cold,
    }
    rows = [
        (
            name,
            f"{group.users:,}",
            f"{group.targets:,}",
            *(_number(group.recall[k]) for k in depths),
            *(_number(group.ndcg[k]) for k in depths),
        )
        for name, group in groups.items()
    ]
    header = ("", "users", "targets", *(f"recall@{k}" for k in depths), *(f"NDCG@{k}" for k in depths))
    return "## Accuracy, mean over users\n\n" + _table(header, rows)


def _comparisons(report: ChannelReport) -> str:
    depths = sorted(report.novel.recall)
    rows = []
    for name, compared in report.baselines.items():
        for label, accuracy, ratios in (
            ("all", compared.all, compared.all_ratio),
            ("novel", compared.novel, compared.novel_ratio),
        ):
            cells = [cell for k in depths for cell in (_number(accuracy.recall[k]), _ratio(ratios.get(k)))]
            rows.append((name, label, *cells))
    header = ("baseline", "targets", *(cell for k in depths for cell in (f"recall@{k}", f"channel / baseline @{k}")))
    return (
        "## Against baselines\n\nRatios of mean recall with their paired-bootstrap interval over users.\n\n"
        + _table(header, rows)
    )


def _sources(report: ChannelReport) -> str:
    rows = [
        (
            name,
            f"{source.requested:,}",
            f"{source.found:,}",
            f"{source.returned:,}",
            f"{source.hits:,}",
            f"{source.also_found:,}",
            f"{source.unique_hits:,}",
            f"{source.hit_rate:.4f}",
            ", ".join(f"{state} {count:,}" for state, count in sorted(source.states.items())),
        )
        for name, source in report.sources.items()
    ]
    header = ("source", "requested", "found", "returned", "hits", "also found", "only it found", "hit rate", "answers")
    return "## What each source gave (STRICT, novel targets)\n\n" + _table(header, rows)


def _keys(report: ChannelReport) -> str:
    rows = []
    for label, counts in (("users", report.novel_category_keys), ("cold users", report.cold_novel_category_keys)):
        total = sum(counts.values())
        rows.append((label, f"{total:,}", *(f"{counts.get(key, 0) / total:.1%}" if total else "–" for key in KEYS)))
    return "## Which list the group source answered from (STRICT)\n\n" + _table(("", "answers", *KEYS), rows)


def _filters(report: ChannelReport) -> str:
    rows = [
        (
            name,
            f"{effect.kept:,}",
            f"{effect.removed:,}",
            "–" if effect.targets_forbidden is None else f"{effect.targets_forbidden:,}",
        )
        for name, effect in report.filters.items()
    ]
    return "## What each filter removed (STRICT)\n\n" + _table(
        ("filter", "kept", "removed", "targets its rule forbids"), rows
    )


def _calibration(report: ChannelReport) -> str:
    parts = ["## Calibration of the score"]
    rows = [
        (
            name,
            _number(measured.mean_predicted),
            _number(measured.base_rate),
            _number(measured.expected_calibration_error),
            f"{measured.brier:.6f}",
            f"{measured.brier_of_base_rate:.6f}",
        )
        for name, measured in report.reliability.items()
    ]
    parts.append(_table(("source", "mean score", "hit rate", "ECE", "Brier", "Brier of the base rate"), rows))
    if "all" in report.reliability:
        bins = [(f"{b.count:,}", _number(b.predicted), _number(b.observed)) for b in report.reliability["all"].bins]
        parts.append(_table(("candidates", "mean score", "hit rate"), bins))
    return "\n\n".join(parts)


def _latency(report: ChannelReport) -> str:
    rows = [(name, f"{times.p50:.2f}", f"{times.p99:.2f}") for name, times in report.latency.items()]
    return "## Latency of the replay, ms\n\n" + _table(("stage", "p50", "p99"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"


def _ratio(ratio: Ratio | None) -> str:
    return "–" if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value
