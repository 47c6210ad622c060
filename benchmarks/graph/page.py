"""The page: quality of every row on the test clicks, by how much users clicked, and what it was chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph.cfkg import CFKGConfig
from benchmarks.graph.ranking import CUTOFFS
from benchmarks.graph.rows import CIKG, FOLDED, LIGHTGCN, Settings, SpectralConfig
from benchmarks.graph.runs import Run, Trial
from serendipity.offline.evaluate.significance import bootstrap_ratio
from serendipity.offline.graph.interest_graph import InterestGraph

_GROUPS = 4

Metric = tuple[str, int]
METRICS: tuple[Metric, ...] = tuple((name, k) for name in ("Recall", "NDCG") for k in CUTOFFS)
_JUDGED: tuple[Metric, ...] = (("NDCG", 50), ("Recall", 100))
"""The two that the paper claims gains of."""

Runs = Mapping[str, Sequence[Run]]
"""Row → its runs, a seed each."""


def page(
    title: str,
    facts: Mapping[str, str],
    graph: InterestGraph,
    runs: Runs,
    ablations: Runs,
    trials: Mapping[str, Sequence[Trial]],
    sections: Sequence[str] = (),
) -> str:
    """Write the page in Markdown. sections: lines of further ones, put last."""
    lines = [f"# {title}", "", *(f"- {name}: {text}" for name, text in facts.items()), ""]
    lines += ["## Rows", "", *_table(runs), ""]
    for other in (LIGHTGCN, FOLDED):
        if CIKG in runs and other in runs:
            lines += [f"## {CIKG} against {other}", "", *_gains(runs[CIKG], runs[other], graph), ""]
    lines += ["## By clicks in train", "", *_groups(runs, graph), ""]
    if ablations:
        lines += ["## Parts left out or added, and random interest edges", "", *_ablations(ablations), ""]
    lines += ["## Chosen on validation", "", *_validation(runs)]
    for name, tried in trials.items():
        if len(tried) > 1:
            lines += ["", f"Trials of {name}, seed 0:", "", *_tried(tried)]
    lines += ["", *sections] if sections else []
    return "\n".join(lines).rstrip() + "\n"


def _per_user(runs: Sequence[Run], metric: Metric) -> NDArray[np.float64]:
    """Mean over seeds of each user's value: [n]."""
    name, k = metric
    found = [run.ranking.recall[k] if name == "Recall" else run.ranking.ndcg[k] for run in runs]
    mean: NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def _name(metric: Metric) -> str:
    return f"{metric[0][0]}@{metric[1]}"


def _header(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]


def _table(runs: Runs) -> list[str]:
    lines = _header("row", "seeds", *(_name(metric) for metric in METRICS))
    for name, of_row in runs.items():
        cells = []
        for metric in METRICS:
            means = [float(_per_user([run], metric).mean()) for run in of_row]
            spread = f" ± {np.std(means, ddof=1):.4f}" if len(means) > 1 else ""
            cells.append(f"{np.mean(means):.4f}{spread}")
        seeds = ", ".join(str(run.seed) for run in of_row) if of_row[0].trial else "–"
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} |")
    return [*lines, "", "R is Recall, N is NDCG; ± is the standard deviation over seeds."]


def _gains(ours: Sequence[Run], theirs: Sequence[Run], graph: InterestGraph) -> list[str]:
    lines = _header("users", *(_name(metric) for metric in METRICS))
    for label, members in (("all", np.ones(len(ours[0].ranking.users), bool)), *_members(ours[0], graph)):
        cells = []
        for metric in METRICS:
            one, other = (_per_user(runs, metric)[members] for runs in (ours, theirs))
            found = bootstrap_ratio(one, other, np.random.default_rng(0))
            cells.append(f"{found.value - 1:+.2%} [{found.low - 1:+.2%}, {found.high - 1:+.2%}]")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "Relative gain with its 95 % interval: users are resampled in pairs, each with the mean over seeds. "
        "The paper's own gains are +1.67 % to +9.31 % in NDCG@50 and Recall@100.",
    ]


def _members(run: Run, graph: InterestGraph) -> list[tuple[str, NDArray[np.bool_]]]:
    """Part the users of a run by their clicks in train, as evenly as whole numbers allow, the sparsest first."""
    counts = np.bincount(graph.clicks[0], minlength=graph.num_users)[run.ranking.users]
    bounds = np.unique(np.quantile(counts, np.arange(1, _GROUPS) / _GROUPS, method="lower"))
    edges = [0, *(int(bound) for bound in bounds), int(counts.max())]
    parts = []
    for low, high in pairwise(edges):
        members = (counts > low) & (counts <= high)
        if members.any():
            least = int(counts[members].min())
            parts.append((f"{least}–{high} clicks" if least < high else f"{high} clicks", members))
    return parts


def _groups(runs: Runs, graph: InterestGraph) -> list[str]:
    parts = _members(next(iter(runs.values()))[0], graph)
    names = [f"{label} ({members.sum():,})" for label, members in parts]
    lines = _header("row", *(f"{_name(metric)}: {name}" for metric in _JUDGED for name in names))
    for name, of_row in runs.items():
        cells = [f"{_per_user(of_row, metric)[members].mean():.4f}" for metric in _JUDGED for _, members in parts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "In brackets: users."]


def _ablations(ablations: Runs) -> list[str]:
    whole = ablations[CIKG]
    lines = _header("row", *(_name(metric) for metric in METRICS), "NDCG@50 against CIKG")
    for name, of_row in ablations.items():
        values = [f"{_per_user(of_row, metric).mean():.4f}" for metric in METRICS]
        gain = "–"
        if of_row is not whole:
            metric = ("NDCG", 50)
            found = bootstrap_ratio(_per_user(of_row, metric), _per_user(whole, metric), np.random.default_rng(0))
            gain = f"{found.value - 1:+.2%} [{found.low - 1:+.2%}, {found.high - 1:+.2%}]"
        lines.append(f"| {name} | {' | '.join(values)} | {gain} |")
    return [*lines, "", "Seed 0; every row has the settings and the epochs of the first but for what its name says."]


def _validation(runs: Runs) -> list[str]:
    lines = _header("row", "settings", "NDCG@50 on validation", "epochs")
    for name, of_row in runs.items():
        tried = [run.trial for run in of_row if run.trial]
        if tried:
            scores = ", ".join(f"{trial.score:.4f}" for trial in tried)
            epochs = ", ".join(map(_epochs, tried))
            lines.append(f"| {name} | {_settings(tried[0].settings)} | {scores} | {epochs} |")
    return [*lines, "", "A value per seed. Epochs: the best of all that were run; the best are run on all of train."]


def _tried(trials: Sequence[Trial]) -> list[str]:
    lines = _header("settings", "NDCG@50 on validation", "epochs")
    ordered = sorted(trials, key=lambda trial: -trial.score)
    return lines + [f"| {_settings(trial.settings)} | {trial.score:.4f} | {_epochs(trial)} |" for trial in ordered]


def _epochs(trial: Trial) -> str:
    return f"{trial.best_epoch} of {trial.epochs}" if trial.epochs else "–"


def _settings(settings: Settings) -> str:
    if isinstance(settings, SpectralConfig):
        return f"{settings.dim} singular vectors, p = {settings.power:g}"
    if isinstance(settings, CFKGConfig):
        return f"learning rate {settings.learning_rate:g}, decay {settings.decay:g}, batch {settings.batch_clicks:,}"
    parts = [
        f"L = {settings.layers}",
        f"learning rate {settings.trainer.learning_rate:g}",
        f"λ₂ = {settings.l2:g}",
        f"batch {settings.trainer.batch_clicks:,}",
        "users' own embeddings" if settings.user_embeddings else "users folded in",
    ]
    if settings.layers and settings.knowledge_weight != 1:
        parts.append(f"knowledge weighs {settings.knowledge_weight:g}")
    if settings.contrast.weight:
        parts.append(f"contrast {settings.contrast.weight:g}, τ = {settings.contrast.temperature:g}")
    if settings.reconstruction.weight:
        parts.append(f"UIR {settings.reconstruction.weight:g}")
    if settings.transe.enabled:
        parts.append("TransE")
    return ", ".join(parts)
