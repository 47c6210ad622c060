"""Runs of rows: settings and epochs chosen on validation, one training on all of train, one look at the test clicks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.coea.code_digest import code_of
from benchmarks.graph.author_files import AuthorData
from benchmarks.graph.cfkg import CFKGConfig, fit_cfkg
from benchmarks.graph.host_data import HostData
from benchmarks.graph.ranking import CUTOFFS, Ranking, rank
from benchmarks.graph.rows import Row, Settings, SpectralConfig
from benchmarks.graph.validation import validation_of
from serendipity.layout import write_atomically
from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.graph.spectral import spectral_vectors
from serendipity.offline.graph.trainer import Look, Training, Validate, fit
from serendipity.offline.graph.vectors import GraphVectors

_FOLLOWED = (
    "benchmarks.graph.cfkg",
    "benchmarks.graph.ranking",
    "benchmarks.graph.validation",
    *(
        f"serendipity.offline.graph.{name}"
        for name in (
            "interest_graph", "losses", "masking", "model", "objective", "propagation", "sampling", "trainer",
            "vectors",
        )
    ),
)  # fmt: skip
"""The modules whose code results follow from, besides data and settings."""
_SPECTRAL = spectral_vectors.__module__

Tell = Callable[[str], None]
"""Where a line of progress goes."""


@dataclass(frozen=True)
class Trial:
    """Settings on validation: the best NDCG@50, at which epoch, of how many."""

    settings: Settings
    score: float
    best_epoch: int
    epochs: int


@dataclass(frozen=True)
class Run:
    """A row on the test clicks. trial: what its epochs were chosen by; None for an ablation and without training."""

    row: str
    seed: int
    trial: Trial | None
    ranking: Ranking


class Laboratory:
    """Does what is not done yet: every result is kept below `work`, by what it follows from."""

    def __init__(self, data: AuthorData, work: Path, tell: Tell) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._data, self._work, self._tell = data, work, tell
        self._code = " ".join(code_of(module) for module in _FOLLOWED)
        self.trials: dict[str, list[Trial]] = {}

    def choose(self, row: Row) -> Settings | None:
        """Try a row's settings on seed 0's validation clicks and take the best."""
        tried = [self._trial(row, self._data.graph, settings, 0) for settings in row.trials]
        self.trials[row.name] = tried
        return max(tried, key=lambda trial: trial.score).settings if tried else None

    def run(self, row: Row, settings: Settings | None, seed: int) -> Run:
        """Train a row on all of train, for as many epochs as this seed's validation clicks say, and test it."""
        seen = row.sees(self._data.graph, seed)
        if settings is None:
            return Run(row.name, seed, None, self._rank(popularity(seen)))
        trial = self._trial(row, self._data.graph, settings, seed)
        return Run(row.name, seed, trial, self._test(row.name, seen, settings, seed, trial.best_epoch))

    def ablate(self, row: Row, settings: Settings, seed: int, epochs: int) -> Run:
        """Train a row that is like another on all of train, for as many epochs as the other, and test it."""
        seen = row.sees(self._data.graph, seed)
        return Run(row.name, seed, None, self._test(row.name, seen, settings, seed, epochs))

    def _test(self, name: str, seen: InterestGraph, settings: Settings, seed: int, epochs: int) -> Ranking:
        seeded = settings.model_copy(update={"seed": seed})
        path = self._work / f"test-{self._key(seen, seeded)}-{epochs}.npz"
        if not path.is_file():
            self._tell(f"{name}, seed {seed}: {epochs} epochs on all of train")
            _write(path, self._rank(_train(seen, seeded, epochs=epochs).vectors))
        return _read(path)

    def _trial(self, row: Row, graph: InterestGraph, settings: Settings, seed: int) -> Trial:
        seeded = settings.model_copy(update={"seed": seed})
        seen = row.sees(graph, seed)
        path = self._work / f"trial-{self._key(seen, seeded)}.json"
        if path.is_file():
            return Trial(settings, **json.loads(path.read_text()))
        kept, validate = validation_of(seen, seed)
        if isinstance(self._data, HostData) and seen.holds.shape[1]:
            kept = replace(kept, holds=self._data.holds_of(kept.clicks))
        found = _train(kept, seeded, validate=validate)
        numbers = {
            "score": found.best_score,
            "best_epoch": found.best_epoch,
            "epochs": found.looks[-1].epoch,
        }
        write_atomically(path, json.dumps(numbers).encode())
        trial = Trial(settings, **numbers)  # type: ignore[arg-type]
        self._tell(f"{row.name}, seed {seed}: NDCG@50 {trial.score:.4f} on validation at epoch {trial.best_epoch}")
        return trial

    def _rank(self, vectors: GraphVectors) -> Ranking:
        graph = self._data.graph
        return rank(vectors.scores, graph.num_items, graph.clicks, self._data.test)

    def _key(self, graph: InterestGraph, settings: Settings) -> str:
        code = self._code + (f" {code_of(_SPECTRAL)}" if isinstance(settings, SpectralConfig) else "")
        digest = hashlib.sha256(f"{code} {type(settings).__name__} {settings.model_dump_json()}".encode())
        for edges in (graph.clicks, graph.holds, graph.knowledge, self._data.test):
            digest.update(np.ascontiguousarray(edges).tobytes())
        return digest.hexdigest()[:16]


def popularity(graph: InterestGraph) -> GraphVectors:
    """Score every item by its clicks, for all users alike."""
    counts = np.bincount(graph.clicks[1], minlength=graph.num_items).astype(np.float32)[:, None]
    return GraphVectors(counts, counts, counts[:0], np.ones((graph.num_users, 1), np.float32))


def _train(
    graph: InterestGraph,
    settings: Settings,
    *,
    validate: Validate | None = None,
    epochs: int | None = None,
) -> Training:
    if isinstance(settings, CFKGConfig):
        return fit_cfkg(graph, settings, validate=validate, epochs=epochs)
    if isinstance(settings, SpectralConfig):
        vectors = spectral_vectors(graph, settings.dim, settings.power, settings.seed)
        score = validate(vectors) if validate else None
        return Training(vectors, 0, score, (Look(0, {}, score),))
    return fit(graph, settings, validate=validate, epochs=epochs)


def _write(path: Path, ranking: Ranking) -> None:
    columns = {f"recall{k}": ranking.recall[k] for k in CUTOFFS} | {f"ndcg{k}": ranking.ndcg[k] for k in CUTOFFS}
    beside = path.with_name(f".{path.name}")
    with beside.open("wb") as file:
        np.savez(file, users=ranking.users, **columns)
    beside.replace(path)


def _read(path: Path) -> Ranking:
    with np.load(path) as columns:
        return Ranking(
            columns["users"],
            {k: columns[f"recall{k}"] for k in CUTOFFS},
            {k: columns[f"ndcg{k}"] for k in CUTOFFS},
        )
