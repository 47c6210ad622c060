"""An evaluation of the towers as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from serendipity.layout import write_atomically
from serendipity.offline.evaluate.control_choice import ALS_TREND
from serendipity.offline.evaluate.methods_report import (
    LEGEND,
    chosen_table,
    method_data,
    methods_table,
    ratios_table,
    seeds_table,
    table,
)
from serendipity.offline.evaluate.towers import DEPTHS, TowersEvaluation

JSON_REPORT = "towers.json"
MARKDOWN_REPORT = "towers.md"

_COMPARED = tuple((measure, k) for measure in ("recall", "serendipity") for k in DEPTHS)
_SAMPLES = 2_000


def write_towers_report(
    evaluation: TowersEvaluation, out: Path, *, dataset: str, heading: str, configuration: Mapping[str, object]
) -> None:
    """Write towers.json and towers.md to `out`. heading: how it was run; configuration: of the towers."""
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "dataset": dataset,
        "heading": heading,
        "configuration": configuration,
        "cut": evaluation.cut,
        "until": evaluation.until,
        "users": evaluation.users,
        "targets": evaluation.targets,
        "candidates": evaluation.candidates,
        "chosen": {one.control.name: {**one.parameters, "validation": one.validation} for one in evaluation.chosen},
        "methods": [method_data(method) for method in evaluation.methods],
        "trainings": [asdict(training) for training in evaluation.trainings],
    }
    write_atomically(out / JSON_REPORT, json.dumps(content, indent=2, ensure_ascii=False).encode())
    write_atomically(out / MARKDOWN_REPORT, markdown(evaluation, dataset, heading).encode())


def markdown(evaluation: TowersEvaluation, dataset: str, heading: str) -> str:
    """Lay the evaluation out as a page."""
    methods = evaluation.methods
    against = next(method for method in methods if method.name == ALS_TREND)
    seeds = seeds_table(methods, _COMPARED)
    names = list(evaluation.trainings[0].validation) if evaluation.trainings else []
    trainings = [
        (str(one.seed), str(one.epochs), *(f"{one.validation[name]:.4f}" for name in names))
        for one in evaluation.trainings
    ]
    sections = [
        f"# Towers on {dataset}\n\n{heading}",
        f"{evaluation.users:,} users with {evaluation.targets:,} novel targets; {evaluation.candidates:,} candidates. "
        f"@{DEPTHS[0]} / @{DEPTHS[1]}. {LEGEND}",
        methods_table(methods, DEPTHS),
        f"{ALS_TREND} ÷ every other method, paired by user, 95 % bootstrap intervals over users:",
        ratios_table(against, [method for method in methods if method is not against], _COMPARED, _SAMPLES),
        *(["Over seeds, mean ± standard deviation:", seeds] if seeds else []),
        "Chosen on validation:",
        chosen_table(evaluation.chosen),
        "The towers there, where the number of epochs is chosen:",
        table(("seed", "epochs", *names), trainings),
    ]
    return "\n\n".join(sections) + "\n"
