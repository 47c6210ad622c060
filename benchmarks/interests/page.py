"""The judging of interests as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.interests.judging import POPULAR_DAYS, POPULAR_OR_OWN, POPULAR_UNSEEN, K, Row
from serendipity.layout import write_atomically
from serendipity.offline.evaluate.methods_report import number, table
from serendipity.offline.interests.grounding_threshold import ThresholdReport

JSON_REPORT = "interests.json"
MARKDOWN_REPORT = "interests.md"


@dataclass(frozen=True)
class Conditions:
    """How it was run.

    heading: command, date, machine and time; cut, until: Unix seconds; own_weight: of popularity with own clicks,
    chosen on validation.
    """

    dataset: str
    heading: str
    cut: int
    until: int
    users: int
    own_weight: float


def write_interests_report(rows: Sequence[Row], threshold: ThresholdReport, conditions: Conditions, out: Path) -> None:
    """Write interests.json and interests.md to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "conditions": asdict(conditions),
        "grounding": asdict(threshold),
        "rows": [asdict(row) for row in rows],
    }
    write_atomically(out / JSON_REPORT, json.dumps(content, indent=2, ensure_ascii=False).encode())
    write_atomically(out / MARKDOWN_REPORT, markdown(rows, threshold, conditions).encode())


def markdown(rows: Sequence[Row], threshold: ThresholdReport, conditions: Conditions) -> str:
    """Lay the judging out as a page."""
    asked = [
        (
            row.method, f"{cost.users:,}", f"{cost.calls:,}", f"{cost.prompt_tokens:,}",
            f"{cost.completion_tokens:,}", f"{row.seconds:,.0f}",
        )
        for row in rows
        if (cost := row.cost) is not None
    ]  # fmt: skip
    sections = [
        f"# Latent interests on {conditions.dataset}\n\n{conditions.heading}",
        f"Interests as of {_moment(conditions.cut)}, judged by what users do until {_moment(conditions.until)}; "
        f"{conditions.users:,} users clicked before and after. K = {K}; short lists count as missed places.",
        f"- future-hit@{K}: share of the {K} places whose category the user clicks in the judged period; ± standard "
        "deviation over seeds; differences with their paired 95 % bootstrap interval over the same users.\n"
        f"- own-hit@{K}: future-hit@{K} less what is expected of others with as many clicks lately, to whom the same "
        "categories are novel. A list that is the same for everybody gets 0, however popular. A method passes that "
        f"is above {POPULAR_UNSEEN} in it for sure: its lists are the users' own.\n"
        "- parse rate, grounded, kept: of the unconstrained answers of a language model; kept: grounded, novel and not "
        "repeated.\n"
        f"- grounding: exact name, alias, then cosine ≥ {threshold.threshold:.3f} (precision "
        f"{threshold.precision:.2f}, recall {threshold.recall:.2f} on validation names).\n"
        f"- {POPULAR_UNSEEN}: novel categories by users in the {POPULAR_DAYS} days before. {POPULAR_OR_OWN}: by "
        f"log(1 + those) + {conditions.own_weight:g} · log(1 + the user's own clicks ever), chosen on validation.",
        _figures(rows),
        _comparison(rows),
        *([_cost(asked)] if asked else []),
    ]
    return "\n\n".join(sections) + "\n"


def _figures(rows: Sequence[Row]) -> str:
    header = (
        "interests", "users", "length", "parse rate", "grounded", "kept", f"future-hit@{K}", f"own-hit@{K}",
        f"minus {POPULAR_UNSEEN}", "passes",
    )  # fmt: skip
    lines = [
        (
            row.method, f"{row.users:,}", f"{row.length:.1f}", _percent(row.parse_rate), _percent(row.grounded_share),
            _percent(row.kept_share),
            number(row.hit) + (f" ± {row.hit_deviation:.4f}" if len(row.seeds) > 1 else ""),
            f"{row.own:+.4f}", f"{row.gain.value:+.4f} ({row.gain.low:+.4f} to {row.gain.high:+.4f})",
            "yes" if row.passes else "no",
        )
        for row in rows
    ]  # fmt: skip
    return table(header, lines)


def _comparison(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.against))
    differences = [(row, [row.against.get(name) for name in names]) for row in rows]
    lines = [
        (row.method, *(f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})" if one else "" for one in found))
        for row, found in differences
    ]
    return table((f"future-hit@{K} minus that of", *names), lines)


def _cost(asked: Sequence[Sequence[str]]) -> str:
    header = ("cost, all in all", "asked about", "calls", "tokens read", "tokens written", "seconds")
    note = "Seconds are those of this run: answers that were in the cache took none."
    return f"{table(header, asked)}\n\n{note}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _moment(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
