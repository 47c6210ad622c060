"""The judging of interests as JSON and as Markdown."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from serendipity.layout import write_atomically
from serendipity.offline.evaluate.interest_judge import NAME, SENSITIVITY, Judge
from serendipity.offline.evaluate.interests import POPULAR_DAYS, POPULAR_OR_OWN, POPULAR_UNSEEN, K, Row, Sampled
from serendipity.offline.evaluate.significance import Difference
from serendipity.offline.interests.grounding_threshold import ThresholdReport

JSON_REPORT = "interests.json"
MARKDOWN_REPORT = "interests.md"


@dataclass(frozen=True)
class Conditions:
    """How it was run.

    now: Unix seconds; seconds: it took; own_weight: of popularity with own clicks, chosen on validation; left_out:
    methods and seeds there was no time for.
    """

    dataset: str
    command: str
    now: float
    seconds: float
    cut: int
    until: int
    users: int
    own_weight: float
    left_out: Sequence[str] = ()


def write_interests_report(
    rows: Sequence[Row],
    samples: Sequence[Sampled],
    judge: Judge,
    threshold: ThresholdReport,
    conditions: Conditions,
    out: Path,
) -> None:
    """Write interests.json and interests.md to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "conditions": asdict(conditions),
        "judge": {"name": NAME, "auc": judge.auc, "random_plausible": judge.random_plausible,
                  "coefficients": judge.coefficients.tolist(), "threshold": judge.threshold},
        "grounding": asdict(threshold),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    write_atomically(out / JSON_REPORT, json.dumps(content, indent=2, ensure_ascii=False).encode())
    write_atomically(out / MARKDOWN_REPORT, markdown(rows, samples, judge, threshold, conditions).encode())


def markdown(
    rows: Sequence[Row],
    samples: Sequence[Sampled],
    judge: Judge,
    threshold: ThresholdReport,
    conditions: Conditions,
) -> str:
    """Lay the judging out as a page."""
    date = datetime.fromtimestamp(conditions.now, UTC).date().isoformat()
    lines = [
        f"# Latent interests on {conditions.dataset}",
        "",
        f"`{conditions.command}`, {date}, {platform.machine()}, {os.cpu_count()} cores, {conditions.seconds:.0f} s.",
        "",
        f"Interests as of {_moment(conditions.cut)}, judged by what users do until {_moment(conditions.until)}; "
        f"{conditions.users:,} users clicked before and after. K = {K}; short lists count as missed places.",
        "",
        f"- score: 2 = plausible and first-level category unseen in the latest 200 clicks, 1 = one of the two, "
        f"0 = neither. Judge: {NAME}; it passes {SENSITIVITY:.0%} of the categories that users entered in the "
        f"validation period and {judge.random_plausible:.0%} of random novel ones (AUC {judge.auc:.2f}).",
        f"- future-hit@{K}: share of the {K} places whose category the user clicks in the judged period; ± standard "
        f"deviation over seeds; differences with their paired 95 % bootstrap interval over the same users.",
        "- parse rate, grounded, kept: of the unconstrained answers of a language model; kept: grounded, novel and not "
        "repeated.",
        f"- grounding: exact name, alias, then cosine ≥ {threshold.threshold:.3f} (precision "
        f"{threshold.precision:.2f}, recall {threshold.recall:.2f} on validation names).",
        f"- {POPULAR_UNSEEN}: novel categories by users in the {POPULAR_DAYS} days before. {POPULAR_OR_OWN}: by "
        f"log(1 + those) + {conditions.own_weight:g} · log(1 + the user's own clicks ever), chosen on validation.",
        "",
        *_table(rows),
        "",
        *_comparison(rows),
        "",
        *_cost(rows),
    ]
    if conditions.left_out:
        lines += ["", f"Not reached in time: {', '.join(conditions.left_out)}."]
    if samples:
        lines += ["", "## A sample, for checking by eye", "", *_samples(samples)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| interests | users | length | parse rate | grounded | kept | score 2 | score 1 | score 0 | categories | "
        f"cosine in list | future-hit@{K} | any-hit@{K} |",
        "|---|" + "---:|" * 12,
    ]
    for row in rows:
        cells = [
            f"{row.users:,}", f"{row.length:.1f}", _percent(row.parse_rate), _percent(row.grounded_share),
            _percent(row.kept_share), *(_percent(score) for score in reversed(row.scores)), f"{row.distinct:.1f}",
            _number(row.cosine), f"{row.hit:.4f}" + (f" ± {row.hit_deviation:.4f}" if len(row.seeds) > 1 else ""),
            _percent(row.any_hit),
        ]  # fmt: skip
        lines.append(f"| {row.method} | " + " | ".join(cells) + " |")
    return lines


def _comparison(rows: Sequence[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row.against))
    lines = [
        f"| future-hit@{K} minus that of | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for row in rows:
        cells = [_interval(row.against[name]) if name in row.against else "" for name in names]
        lines.append(f"| {row.method} | " + " | ".join(cells) + " |")
    return lines


def _cost(rows: Sequence[Row]) -> list[str]:
    lines = ["| cost per user | calls | tokens written | seconds |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row.method} | {row.calls_per_user:.1f} | {row.tokens_per_user:.0f} | {row.seconds_per_user:.2f} |"
        for row in rows
        if row.calls_per_user is not None and row.tokens_per_user is not None
    ]
    return lines if len(lines) > 2 else []


def _samples(samples: Sequence[Sampled]) -> list[str]:
    lines = ["| interests | user | seed | demand | interest | category | score | later clicked |", "|---|" + "---|" * 7]
    lines += [
        f"| {one.method} | {_cell(one.user_id)} | {_cell(one.path.seed)} | {_cell(one.path.core_demand)} | "
        f"{_cell(one.path.latent_interest)} | {_cell(one.category)} | {one.score} | {'yes' if one.hit else ''} |"
        for one in samples
    ]
    return lines


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split()) or "–"


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{share:.1%}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _interval(difference: Difference) -> str:
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def _moment(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
