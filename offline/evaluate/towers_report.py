"""An evaluation of the towers as JSON and as Markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from serendipity.layout import write_atomically
from serendipity.offline.evaluate.significance import Ratio
from serendipity.offline.evaluate.towers import AGAINST, KS, Accuracy, Run, TowersEvaluation

JSON_REPORT = "towers.json"
MARKDOWN_REPORT = "towers.md"


def write_towers_report(
    evaluation: TowersEvaluation,
    out: Path,
    *,
    dataset: str,
    command: str,
    configuration: str,
    now: float,
    seconds: float,
) -> None:
    """Write towers.json and towers.md to `out`. now: Unix seconds; seconds: what it took; configuration: as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "dataset": dataset,
        "command": command,
        "date": datetime.fromtimestamp(now, UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(seconds),
        "cut": evaluation.cut,
        "until": evaluation.until,
    }
    content = {
        **about,
        "configuration": json.loads(configuration),
        "users": dict(zip(("all", "novel"), evaluation.users, strict=True)),
        "targets": dict(zip(("all", "novel"), evaluation.targets, strict=True)),
        "candidates": evaluation.candidates,
        "runs": [_run(run) for run in evaluation.runs],
        "ratios": _ratios(evaluation),
    }
    write_atomically(out / JSON_REPORT, json.dumps(content, indent=2, ensure_ascii=False).encode())
    write_atomically(out / MARKDOWN_REPORT, markdown(evaluation, about).encode())


def markdown(evaluation: TowersEvaluation, about: dict[str, object]) -> str:
    """Lay the evaluation out as a page: means over seeds, ± their standard deviation where there are several."""
    users, targets = evaluation.users, evaluation.targets
    lines = [
        f"# Towers on {about['dataset']}",
        "",
        f"`{about['command']}`, {about['date']}, {about['hardware']}, {about['seconds']} s.",
        "",
        f"{users[0]:,} users with {targets[0]:,} targets, {users[1]:,} with {targets[1]:,} novel ones; "
        f"{evaluation.candidates:,} candidates. Protocol: `offline/evaluate/held_out.py`.",
        "",
        *_table(evaluation, "recall", "Recall"),
        "",
        *_table(evaluation, "ndcg", "NDCG"),
        "",
        f"Recall over that of {AGAINST}, with the 95 % interval of the paired bootstrap over users:",
        "",
        "| | " + " | ".join(f"{kind} @{k}" for kind in ("all", "novel") for k in KS) + " |",
        "|---|" + "---|" * (2 * len(KS)),
    ]
    for method in _methods(evaluation):
        ratios = [evaluation.ratio(method, k, novel=novel) for novel in (False, True) for k in KS]
        lines.append(f"| {method} | " + " | ".join(map(_interval, ratios)) + " |")
    tuned = [run for run in evaluation.runs if run.validation is not None]
    if tuned:
        names = list(tuned[0].validation or {})
        lines += [
            "",
            "On the validation period, where the number of epochs is chosen:",
            "",
            "| | seed | epochs | " + " | ".join(names) + " |",
            "|---|---|---|" + "---|" * len(names),
        ]
        for run in tuned:
            figures = " | ".join(f"{(run.validation or {})[name]:.4f}" for name in names)
            lines.append(f"| {run.method} | {run.seed} | {run.epochs} | {figures} |")
    return "\n".join(lines) + "\n"


def _table(evaluation: TowersEvaluation, metric: str, title: str) -> list[str]:
    columns = [f"{kind} {title}@{k}" for kind in ("all", "novel") for k in KS]
    covered = [f"{kind} coverage@{max(KS)}" for kind in ("all", "novel")] if metric == "recall" else []
    lines = ["| | " + " | ".join(columns + covered) + " |", "|---|" + "---|" * len(columns + covered)]
    for method in _methods(evaluation):
        runs = evaluation.of(method)
        figures = [
            _mean([float(getattr(accuracy, metric)[k].mean()) for accuracy in accuracies])
            for accuracies in ([run.every for run in runs], [run.novel for run in runs])
            for k in KS
        ]
        if covered:
            figures += [_mean([run.every.coverage for run in runs]), _mean([run.novel.coverage for run in runs])]
        lines.append(f"| {method} | " + " | ".join(figures) + " |")
    return lines


def _methods(evaluation: TowersEvaluation) -> list[str]:
    return list(dict.fromkeys(run.method for run in evaluation.runs))


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _interval(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _run(run: Run) -> dict[str, object]:
    def means(accuracy: Accuracy) -> dict[str, float]:
        figures = {f"recall@{k}": float(values.mean()) for k, values in accuracy.recall.items()}
        figures |= {f"ndcg@{k}": float(values.mean()) for k, values in accuracy.ndcg.items()}
        return figures | {f"coverage@{max(KS)}": accuracy.coverage}

    return {
        "method": run.method,
        "seed": run.seed,
        "epochs": run.epochs,
        "validation": dict(run.validation) if run.validation else None,
        "all": means(run.every),
        "novel": means(run.novel),
    }


def _ratios(evaluation: TowersEvaluation) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for method in _methods(evaluation):
        found[method] = {}
        for name, novel in (("all", False), ("novel", True)):
            for k in KS:
                ratio = evaluation.ratio(method, k, novel=novel)
                found[method][f"{name}@{k}"] = [ratio.value, ratio.low, ratio.high]
    return found
