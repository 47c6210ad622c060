"""What the rules and the dashboard ask Prometheus, and what the processes of a service answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that it adds, or that every histogram has."""


def rules() -> list[dict[str, Any]]:
    """The alerts, as they are written."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards, by their files' names."""
    return {path.name: json.loads(path.read_text()) for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}


def queries() -> Iterator[tuple[str, str]]:
    """Every query with the name of what asks it. Grafana's own variable is a time like any other."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def metrics_of(query: str) -> dict[str, set[str]]:
    """The metrics that a query reads, each with the labels that it selects or groups by. Raises ValueError."""
    found: dict[str, set[str]] = defaultdict(set)

    def visit(part: promql_parser.Expr, grouped: set[str]) -> None:
        if isinstance(part, promql_parser.AggregateExpr):
            grouped = grouped | set(part.modifier.labels if part.modifier else ())
        if isinstance(part, promql_parser.VectorSelector):
            found[part.name] |= grouped | {matcher.name for matcher in part.matchers.matchers}
        for inner in ("expr", "lhs", "rhs", "vector_selector"):
            if (one := getattr(part, inner, None)) is not None:
                visit(one, grouped)
        for argument in getattr(part, "args", ()):
            visit(argument, grouped)

    visit(promql_parser.parse(query), set())
    return dict(found)


def labels_of(*registries: CollectorRegistry) -> dict[str, set[str]]:
    """The labels of every metric that the registries' processes have, by the names of its time series."""
    labels: dict[str, set[str]] = {}
    for registry in registries:
        for collector in list(registry._collector_to_names):
            for family in collector.collect():
                names = family.name, *(f"{family.name}_{suffix}" for suffix in ("total", "bucket", "sum", "count"))
                # A collector of the library knows them before it has a sample; one of ours gives families that do.
                of = collector if isinstance(collector, MetricWrapperBase) else family
                known = set(getattr(of, "_labelnames", ()))
                labels |= dict.fromkeys(names, known)
    return labels
