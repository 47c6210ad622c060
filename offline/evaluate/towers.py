"""Towers against the controls on held-out time, by the measures and the protocol of the channel's evaluation.

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
from serendipity.offline.evaluate.control_choice import (
    DEFAULT_GRID,
    Chosen,
    Grid,
    Period,
    choose_controls,
    validation_starts,
)
from serendipity.offline.evaluate.held_out import HeldOut, Score
from serendipity.offline.evaluate.measures import Judge
from serendipity.offline.evaluate.methods import MethodResult, RankedLists, measure_methods
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.towers.builder import encode_titles, fit_towers, prepare, read_interests
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.dual_tower import DualTower, item_content
from serendipity.offline.towers.rows import Moment
from serendipity.offline.towers.threads import limited_threads

DEPTHS = (20, 100)
TOWERS = "user tower"

_TRAINING_SHARE = 0.9


@dataclass(frozen=True)
class Training:
    """One training. validation: recall where its number of epochs was chosen."""

    seed: int
    epochs: int
    validation: Mapping[str, float]


@dataclass(frozen=True)
class TowersEvaluation:
    """What was measured. cut, until: the test period, Unix seconds; users, targets: with novel ones."""

    cut: int
    until: int
    candidates: int
    users: int
    targets: int
    chosen: tuple[Chosen, ...]
    methods: tuple[MethodResult, ...]
    trainings: tuple[Training, ...]


def evaluate_towers(
    logs: Path,
    interests: Path,
    config: TowersConfig,
    seeds: Sequence[int],
    work: Path,
    encoder: TextEncoder | None = None,
    progress: Progress | None = None,
    grid: Grid = DEFAULT_GRID,
) -> TowersEvaluation:
    """Measure the controls and the towers with every seed on the last 10 % of the clicks.

    logs, interests: directories of their builders over all clicks; nothing later than a cut is read from them before
    it. work: where checkpoints go, a folder per run. grid: what is tried for the controls.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    (cut,) = split_times(histories, (_TRAINING_SHARE,))
    until = int(histories.times.max()) + 1
    chosen = choose_controls(histories, catalogue, cut, grid)
    period = Period.of(histories, catalogue, validation_starts(histories, cut)[0], cut, until, grid)
    held_out = period.held_out
    users = held_out.novel.users

    def ranked(score: Score) -> NDArray[np.int64]:
        return held_out.top_k(score, users, max(DEPTHS), novel=True)

    lists = [
        RankedLists(one.control.name, "control", seed, ranked(one.control.fit(period, one.parameters, seed or 0)))
        for one in chosen
        for seed in (seeds if one.control.seeded else (None,))
    ]
    nodes, interests_at = read_interests(interests, histories, catalogue)
    trainings = []
    with limited_threads(config.trainer.threads):
        prepared = prepare(histories, catalogue, nodes, interests_at, config, cut, progress)
        moment = prepared.builder.moment(prepared.now.items.factors, users)
        titles = encode_titles(catalogue, encoder, work / "titles.npz") if config.title_text else None
        content = item_content(catalogue, nodes, titles, interest=config.item_interest)
        for seed in seeds:
            seeded = config.model_copy(update={"seed": seed})
            trained = fit_towers(prepared, content, nodes, seeded, work / str(seed), progress)
            score = _score(trained.towers, moment, held_out, nodes.vectors)
            lists.append(RankedLists(TOWERS, "source", seed, ranked(score)))
            trainings.append(Training(seed, trained.fit.best_epoch, trained.validation))
    nobody = np.empty((len(users), 0), np.int64)
    return TowersEvaluation(
        cut=cut,
        until=until,
        candidates=len(held_out.candidates),
        users=len(users),
        targets=len(held_out.novel.rows),
        chosen=chosen,
        methods=measure_methods(lists, Judge.of(held_out, period.statistics, users, nobody), DEPTHS),
        trainings=tuple(trainings),
    )


def _score(towers: DualTower, moment: Moment, held_out: HeldOut, node_vectors: NDArray[np.float32]) -> Score:
    """U2I: the user's row alone against every candidate."""
    users = towers.user_vectors(moment, np.arange(len(moment)), node_vectors)[:, 0]
    items = towers.item_vectors(moment.items)[held_out.candidates].T
    return lambda some: users[np.searchsorted(moment.users, some)] @ items
