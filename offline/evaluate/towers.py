"""Towers against the controls on held-out time, by the protocol of `held_out`.

Figures come from the last 10 % of the clicks, every method fitted on the first 90 %; choices (epochs, and whatever is
tuned) are made on the last clicks of those 90 % (`label_window` of them), as in a build. The towers are judged by the
user's row alone (U2I).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.offline.encoder import TextEncoder
from serendipity.offline.evaluate.control_choice import ALS_TREND, Period, choose_controls, validation_starts
from serendipity.offline.evaluate.held_out import HeldOut, Score
from serendipity.offline.evaluate.metrics import coverage_at, hits, ndcg_at, recall_at
from serendipity.offline.evaluate.significance import Ratio, bootstrap_ratio
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.towers.builder import Prepared, encode_titles, fit_towers, prepare, read_interests
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.dual_tower import DualTower, item_content
from serendipity.offline.towers.rows import Moment
from serendipity.offline.towers.threads import limited_threads

KS = (20, 100)
AGAINST = ALS_TREND
"""Control that ratios are taken against."""

_TRAINING_SHARE = 0.9


@dataclass(frozen=True)
class Accuracy:
    """One method on one list of targets: all of them, or the novel ones.

    recall, ndcg: K → [n] value of every user with targets; coverage: share of the candidates in some user's first
    max(KS).
    """

    recall: Mapping[int, NDArray[np.float64]]
    ndcg: Mapping[int, NDArray[np.float64]]
    coverage: float


@dataclass(frozen=True)
class Run:
    """One method with one seed on the test period; validation: recall of the towers where epochs were chosen."""

    method: str
    seed: int
    every: Accuracy
    novel: Accuracy
    epochs: int | None = None
    validation: Mapping[str, float] | None = None


@dataclass(frozen=True)
class TowersEvaluation:
    """What was measured. cut, until: the test period, Unix seconds; users, targets: with any, and with novel ones."""

    cut: int
    until: int
    candidates: int
    users: tuple[int, int]
    targets: tuple[int, int]
    runs: tuple[Run, ...]

    def of(self, method: str) -> list[Run]:
        """The runs of a method, one per seed."""
        return [run for run in self.runs if run.method == method]

    def ratio(self, method: str, k: int, *, novel: bool) -> Ratio:
        """Recall@k of a method over that of AGAINST, both averaged over seeds, bootstrapped over users."""
        rng = np.random.default_rng(0)
        means = []
        for name in (method, AGAINST):
            parts = [run.novel if novel else run.every for run in self.of(name)]
            means.append(np.mean([part.recall[k] for part in parts], axis=0))
        return bootstrap_ratio(means[0], means[1], rng)


def variants_of(config: TowersConfig) -> dict[str, TowersConfig]:
    """The ablations reported: λ as configured, λ = 0, and the item tower with the interest's text the other way."""
    weight = config.loss.contrastive_weight
    without = config.loss.model_copy(update={"contrastive_weight": 0.0})
    swapped = "without" if config.item_interest else "with"
    return {
        f"user tower, λ = {weight:g}": config,
        "user tower, λ = 0": config.model_copy(update={"loss": without}),
        f"user tower, λ = {weight:g}, {swapped} item-side interest": config.model_copy(
            update={"item_interest": not config.item_interest}
        ),
    }


def evaluate_towers(
    logs: Path,
    interests: Path,
    variants: Mapping[str, TowersConfig],
    seeds: Sequence[int],
    work: Path,
    encoder: TextEncoder | None = None,
    progress: Progress | None = None,
) -> TowersEvaluation:
    """Measure the controls and every variant with every seed on the last 10 % of the clicks.

    logs, interests: directories of their builders over all clicks; nothing later than a cut is read from them before
    it. variants: name in the report → configuration; those with equal rows and factors share them. work: where
    checkpoints go, a folder per run. Controls are run with every seed that changes them.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    (cut,) = split_times(histories, (_TRAINING_SHARE,))
    until = int(histories.times.max()) + 1
    period = Period.of(histories, catalogue, validation_starts(histories, cut)[0], cut, until)
    held_out = period.held_out
    runs = [
        Run(one.control.name, seed, *_accuracies(held_out, one.control.fit(period, one.parameters, seed)))
        for one in choose_controls(histories, catalogue, cut)
        for seed in (seeds if one.control.seeded else seeds[:1])
    ]
    nodes, interests_at = read_interests(interests, histories, catalogue)
    shared: dict[str, Prepared] = {}
    for variant, (name, config) in enumerate(variants.items()):
        with limited_threads(config.trainer.threads):
            key = config.rows.model_dump_json() + config.factors.model_dump_json()
            if key not in shared:
                shared[key] = prepare(histories, catalogue, nodes, interests_at, config, cut, progress)
            prepared = shared[key]
            moment = prepared.builder.moment(prepared.now.items.factors, held_out.targets.users)
            titles = encode_titles(catalogue, encoder, work / "titles.npz") if config.title_text else None
            content = item_content(catalogue, nodes, titles, interest=config.item_interest)
            for seed in seeds:
                seeded = config.model_copy(update={"seed": seed})
                trained = fit_towers(prepared, content, nodes, seeded, work / f"{variant}-{seed}", progress)
                accuracies = _accuracies(held_out, _score(trained.towers, moment, held_out, nodes.vectors))
                runs.append(Run(name, seed, *accuracies, trained.fit.best_epoch, trained.validation))
    return TowersEvaluation(
        cut=cut,
        until=until,
        candidates=len(held_out.candidates),
        users=(len(held_out.targets), len(held_out.novel)),
        targets=(len(held_out.targets.rows), len(held_out.novel.rows)),
        runs=tuple(runs),
    )


def _accuracies(held_out: HeldOut, score: Score) -> tuple[Accuracy, Accuracy]:
    found = []
    for novel, targets in ((False, held_out.targets), (True, held_out.novel)):
        top = held_out.top_k(score, targets.users, max(KS), novel=novel)
        hit = hits(top, targets)
        found.append(
            Accuracy(
                recall={k: recall_at(hit, targets, k) for k in KS},
                ndcg={k: ndcg_at(hit, targets, k) for k in KS},
                coverage=coverage_at(top, len(held_out.candidates), max(KS)),
            )
        )
    return found[0], found[1]


def _score(towers: DualTower, moment: Moment, held_out: HeldOut, node_vectors: NDArray[np.float32]) -> Score:
    """U2I: the user's row alone against every candidate."""
    users = towers.user_vectors(moment, np.arange(len(moment)), node_vectors)[:, 0]
    items = towers.item_vectors(moment.items)[held_out.candidates].T
    return lambda some: users[np.searchsorted(moment.users, some)] @ items
