"""Logs and interests → trained, exported towers.

The towers are trained twice. First on the cuts whose labels end where the last `label_window` of the clicks begins;
the epochs to train follow from the recall on those clicks (early stopping). Then again, from the start, on cuts whose
labels end at `until`, for that number of epochs and on the same learning rates: the newest clicks are the most like
those to come, and are not left out of what is served.

    user_tower.pt2 user_tower.onnx item_vectors.npy tower.json      serendipity.offline.towers.export
    fit/                                                            the same of the first training, as of the cut its
                                                                    labels end at: it has seen no later click, and
                                                                    shows on later ones what scores are worth
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.features import FeatureAssembler
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.interests.node_table import known_nodes
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories, before, profile_fields, split_times
from serendipity.offline.towers.config import CUT_STEP, TowersConfig
from serendipity.offline.towers.dual_tower import DualTower, item_content
from serendipity.offline.towers.export import export_towers
from serendipity.offline.towers.factors import item_factors
from serendipity.offline.towers.interests import InterestNodes, InterestsAt, ReasonedInterests
from serendipity.offline.towers.item_tower import ItemContent
from serendipity.offline.towers.rows import Moment, RowsBuilder, TrainingRows
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.towers.trainer import train
from serendipity.offline.towers.validation import Validation

_EXAMPLES = 8
"""Users the exports are compared on."""

_MAX_LONG_CATEGORIES = 400
"""C: categories of long-term interest that the user tower is fed at most."""

_VALIDATION_USERS = 1_000
"""Users the score of an epoch is taken over, drawn once."""

FIT = "fit"


@dataclass(frozen=True)
class TowersReport:
    """What training came to.

    fingerprint: of the exported user tower; epochs: trained in the end; validation: recall on the validation period
    (all@20, novel@100 …) of the towers of the first training.
    """

    fingerprint: str
    epochs: int
    validation: dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """Everything trained on: rows of both trainings, the validation, and the moments that are served from.

    cut: where the labels of the first training end; now: where those of the second do; both with a few users.
    """

    catalogue: Catalogue
    builder: RowsBuilder
    fit: tuple[TrainingRows, ...]
    refit: tuple[TrainingRows, ...]
    validation: Validation
    cut: Moment
    now: Moment


@dataclass(frozen=True)
class Trained:
    """Towers of both trainings, the second as served, how long they were trained, and recall of the first on the
    validation period."""

    first: DualTower
    towers: DualTower
    epochs: int
    validation: dict[str, float]


def build_towers(
    logs: Path,
    interests: Path,
    out: Path,
    config: TowersConfig,
    until: int | None = None,
    progress: Progress | None = None,
) -> TowersReport:
    """Train on everything strictly before `until` (by default, all there is) and write the towers to `out`.

    logs, interests: directories of their builders.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    until = LogsSummary.read(logs_directory(logs)).events_until if until is None else until
    nodes, interests_at = read_interests(interests, histories, catalogue)
    with limited_threads(config.trainer.threads):
        prepared = prepare(histories, catalogue, nodes, interests_at, config, until, progress)
        content = item_content(catalogue, nodes, interest=config.item_interest)
        trained = fit_towers(prepared, content, nodes, config, progress)
        assembler = prepared.builder.assembler
        export_towers(trained.first, assembler, prepared.cut, nodes.vectors, nodes.encoder, out / FIT)
        spec = export_towers(trained.towers, assembler, prepared.now, nodes.vectors, nodes.encoder, out)
    return TowersReport(spec.fingerprint, trained.epochs, trained.validation)


def read_interests(interests: Path, histories: Histories, catalogue: Catalogue) -> tuple[InterestNodes, InterestsAt]:
    """Read what the interests builder wrote: nodes with their vectors, and a reasoner over the same taxonomy."""
    taxonomy = Taxonomy.from_catalogue(catalogue, known_nodes(interests))
    vectors: NDArray[np.float32] = np.load(interests / "interest_vectors.npy")
    if len(vectors) != len(taxonomy):
        raise LogsError(
            f"{interests / 'interest_vectors.npy'}: found {len(vectors)} rows, expected {len(taxonomy)}, one per node "
            "of the catalogue's taxonomy: rebuild the interests from these logs"
        )
    # Towers learn from interests in the catalogue's nodes: a reasoner's node holds the very items of its parent.
    ranges = [node.ranges if node.of_catalogue else () for node in taxonomy.nodes]
    encoder = InterestsSummary.read(interests).encoder
    nodes = InterestNodes.from_ranges(vectors, ranges, len(catalogue), encoder)
    return nodes, ReasonedInterests(histories, taxonomy)


def feature_assembler(
    histories: Histories, catalogue: Catalogue, interest_dim: int, config: TowersConfig
) -> FeatureAssembler:
    """Size the assembler to the data: every profile value that occurs, and no more category columns than categories."""
    return FeatureAssembler(
        history_length=config.rows.history_length,
        max_long_categories=min(_MAX_LONG_CATEGORIES, len(catalogue.categories)),
        max_interests=config.rows.max_interests,
        interest_dim=interest_dim,
        profile_fields=profile_fields(histories),
    )


def prepare(
    histories: Histories,
    catalogue: Catalogue,
    nodes: InterestNodes,
    interests_at: InterestsAt,
    config: TowersConfig,
    until: int,
    progress: Progress | None = None,
) -> Prepared:
    """Make the rows of both trainings, from clicks strictly before `until` alone."""
    histories = before(histories, until)
    assembler = feature_assembler(histories, catalogue, nodes.vectors.shape[1], config)
    builder = RowsBuilder(histories, catalogue, assembler, nodes, interests_at)
    window = config.rows.label_window
    shifts = [window + cut * CUT_STEP for cut in range(config.rows.num_cuts)]
    ends = [(1.0 - shift, min(1.0 - shift + window, 1.0)) for shift in shifts]
    fit = _spans(histories, [(start - window, end - window) for start, end in ends], until)
    refit = _spans(histories, ends, until)
    validation_cut = split_times(histories, [1.0 - window])[0]
    moments = sorted({start for start, _ in fit + refit} | {validation_cut, until})
    task = progress.add_task("tower rows", total=2 * len(moments)) if progress else None

    def advance() -> None:
        if progress and task is not None:
            progress.advance(task)

    factors = {}
    for found in item_factors(histories, len(catalogue), moments, config.factors, config.seed):
        factors[found.time] = found
        advance()
    rows = {}
    for span in sorted(set(fit + refit)):
        if found_rows := builder.rows(factors[span[0]], span[1]):
            rows[span] = found_rows
        advance()
    of_fit, of_refit = (tuple(rows[span] for span in spans if span in rows) for spans in (fit, refit))
    if not of_fit or not of_refit:
        raise LogsError(
            "towers: found no item that a user with earlier clicks clicked for the first time in the latest "
            f"{2 * window:.0%} of the clicks, expected some: longer logs, or a larger towers.rows.label_window"
        )
    held_out = HeldOut.between(histories, catalogue, validation_cut, until)
    at_cut = builder.moment(factors[validation_cut])
    rng = np.random.default_rng(config.seed)
    validation = Validation.of(held_out, at_cut, nodes.vectors, _VALIDATION_USERS, rng)
    examples = at_cut.users[:_EXAMPLES]
    return Prepared(
        catalogue=catalogue,
        builder=builder,
        fit=of_fit,
        refit=of_refit,
        validation=validation,
        cut=builder.moment(factors[validation_cut], examples),
        now=builder.moment(factors[until], examples),
    )


def fit_towers(
    prepared: Prepared,
    content: ItemContent,
    nodes: InterestNodes,
    config: TowersConfig,
    progress: Progress | None = None,
) -> Trained:
    """Train with early stopping, then again on the newest rows for as many epochs."""

    def fresh() -> DualTower:
        statistics = prepared.now.items.statistics.shape[1]
        return DualTower(prepared.catalogue, prepared.builder.assembler, content, statistics, config)

    def run(towers: DualTower, rows: tuple[TrainingRows, ...], epochs: int | None) -> int:
        return train(
            towers,
            rows,
            prepared.catalogue.item_categories,
            nodes,
            config,
            validate=prepared.validation.score if epochs is None else None,
            epochs=epochs,
            progress=progress,
        )

    first = fresh()
    epochs = run(first, prepared.fit, None)
    recall = prepared.validation.recall(first)
    towers = fresh()
    run(towers, prepared.refit, epochs)
    return Trained(first, towers, epochs, recall)


def _spans(histories: Histories, shares: list[tuple[float, float]], until: int) -> list[tuple[int, int]]:
    """Turn shares of the clicks into moments; spans without room (small logs) are left out."""
    found = []
    for start, end in shares:
        if start <= 0:
            continue
        last = until if end >= 1.0 else split_times(histories, [end])[0]
        first = split_times(histories, [start])[0]
        if histories.times.min() < first < last:
            found.append((first, last))
    return sorted(set(found))
