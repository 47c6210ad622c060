"""A build as one HTML page: what each step came to and took, what sources add, how far scores can be believed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from serendipity.layout import write_atomically
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.merge.builder import REPORT, read_merge
from serendipity.offline.progress import describe
from serendipity.offline.steps import Outcome
from serendipity.v1 import channel_pb2, records_pb2

PAGE = "report.html"

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: left; vertical-align: top }
th { border-bottom: 1px solid } td.n { text-align: right; white-space: nowrap }
.bar { background: #4a7ab5; height: .8em; min-width: 1px } svg { border: 1px solid #bbb }
"""
_SIDE = 300
"""Pixels of the plot's side."""


def write_report(out: Path, title: str, outcomes: Sequence[Outcome]) -> Path:
    """Write the page of a build whose steps are whole; returns its path."""
    logs = LogsSummary.read(out / "logs")
    merge, _ = read_merge(out / "merge")
    measured = json.loads((out / "merge" / REPORT).read_text(encoding="utf-8"))
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<h2>Steps</h2>",
        _steps(outcomes),
        "<h2>Logs</h2>",
        _table(("table", "rows"), logs.counts.items()),
        _table(("refused", "rows"), logs.rejected.items()) if logs.rejected else "<p>No row was refused.</p>",
        *(f"<p>{escape(warning)}</p>" for warning in logs.warnings),
        "<h2>Novel recall on the replayed clicks</h2>",
        _recalls(measured),
        "<h2>What sources add to the collaborative one</h2>",
        _sources(merge),
        "<h2>How far scores can be believed</h2>",
        _reliability(measured["reliability"]),
    ]
    page = f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    write_atomically(out / PAGE, (page + "\n".join(parts)).encode())
    return out / PAGE


def _steps(outcomes: Sequence[Outcome]) -> str:
    longest = max((outcome.seconds for outcome in outcomes), default=0.0) or 1.0
    rows = (
        f"<tr><td>{escape(outcome.step)}<td class=n>{outcome.seconds:,.1f} s"
        f'<td style="width:12em"><div class=bar style="width:{100 * outcome.seconds / longest:.0f}%"></div>'
        f"<td>{escape(describe(outcome.numbers))}"
        for outcome in outcomes
    )
    return f"<table><tr><th>step<th>took<th><th>key numbers{''.join(rows)}</table>"


def _recalls(measured: dict[str, Any]) -> str:
    rows = [(name, *measured[name]) for name in ("fused", "merged") if measured[name]]
    return _table(("", "@20", "@100"), rows) if rows else "<p>Nobody had a novel target.</p>"


def _sources(merge: records_pb2.MergeSpec) -> str:
    rows = [
        (
            channel_pb2.Source.Name(one.source).removeprefix("SOURCE_").lower(),
            one.hits,
            one.popularity_hits,
            f"{one.low:+.4f} to {one.high:+.4f}",
            "for every request" if one.earned else "to explore",
        )
        for one in merge.sources
    ]
    header = ("source", "hits of its own a user", "popularity's in the same places", "difference, 95 %", "searched")
    return _table(header, rows) if rows else "<p>Too little was found to tell.</p>"


def _reliability(measured: dict[str, Any] | None) -> str:
    """Lay out and plot, by bins of equally many candidates, what was promised and what came true."""
    if measured is None:
        return "<p>There is no merge model: ranks of the sources are fused.</p>"
    bins = measured["bins"]
    most = max(max(one["predicted"], one["observed"]) for one in bins) or 1.0
    points = " ".join(
        f"{_SIDE * one['predicted'] / most:.1f},{_SIDE * (1 - one['observed'] / most):.1f}" for one in bins
    )
    plot = (
        f'<svg width="{_SIDE}" height="{_SIDE}" role="img"><title>came true against promised, 0 to {most:.3g}</title>'
        f'<line x1="0" y1="{_SIDE}" x2="{_SIDE}" y2="0" stroke="#bbb"/>'
        f'<polyline points="{points}" fill="none" stroke="#4a7ab5" stroke-width="2"/></svg>'
    )
    rows = [(one["count"], one["predicted"], one["observed"]) for one in bins]
    return plot + _table(("candidates", "promised", "came true"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    titles = "".join(f"<th>{escape(title)}" for title in header)
    return f"<table><tr>{titles}{''.join(map(_row, rows))}</table>"


def _row(cells: Sequence[object]) -> str:
    return "<tr>" + "".join(
        f"<td>{escape(cell)}" if isinstance(cell, str) else f"<td class=n>{cell:,.4g}"
        if isinstance(cell, float) else f"<td class=n>{cell:,}" for cell in cells
    )  # fmt: skip
