"""Other uses of a build's graph than to recall items, each against what does the same without it, on later clicks.

Everything is made of the clicks that the build's `validation` parts were made of, and judged on those that came later.
None of the three is part of a build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph.later import DIM, Later, table
from benchmarks.graph.tower_reader import tower_section
from serendipity.novelty import clicked_categories
from serendipity.offline.evaluate.control_choice import validation_start
from serendipity.offline.graph.builder import GraphSummary
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.interest_graph import InterestGraph, View
from serendipity.offline.graph.trainer import fit
from serendipity.offline.graph.vectors import GraphVectors
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.towers.builder import read_interests
from serendipity.offline.towers.config import TowersConfig

_CATEGORIES = 10
_RECENT = 28 * 86_400
_PRIOR = 4.0
"""Users' worth of the overall share mixed into that of a category's holders."""

_USERS = 1_000
_SHARES = (0.1, 0.3)
_DRAWS = 3
"""Random choices of the edges that are dropped, averaged for every user."""

_EPOCHS = 12
_UIR = GraphConfig.model_validate(
    {
        "dim": DIM,
        "reconstruction": {"weight": 1e-3, "ramp_epochs": _EPOCHS},
        "trainer": {"batch_clicks": 262_144, "check_every": _EPOCHS},
    }
)
"""Large steps, since one costs seconds on a core whatever its clicks."""


def reader_sections(build: Path, tell: Callable[[str], None]) -> list[str]:
    """Compare on a finished build's logs and write the sections.

    Raises BuilderError where the build lacks a part.
    """
    histories, catalogue = Histories.read(build / "logs"), Catalogue.read(build / "logs")
    cut = LogsSummary.read(build / "validation" / "logs").events_until
    until = LogsSummary.read(build / "logs").events_until
    choice = GraphSummary.read(build / "validation" / "graph").choice
    later = Later.of(histories, catalogue, cut, until, choice)
    tell("readers: categories")
    sections = category_section(later)
    tell("readers: interest edges")
    sections += noise_section(later)
    nodes, interests_at = read_interests(build / "interests", histories, catalogue)
    return sections + tower_section(later, nodes, interests_at, TowersConfig(), tell)


def category_section(later: Later) -> list[str]:
    """Rank categories by user × mean item vector, against popularity and what others turned to."""
    number, cut = len(later.catalogue.categories), later.held_out.cut
    ever = _clicked(later.histories, number, 0, cut)
    turned = _clicked(later.histories, number, cut, later.held_out.until)
    scores = category_scores(later)
    lines = ["## Reader: which category next", ""]
    for kind, closed in (("novel", later.held_out.clicked[:, 1:]), ("never clicked", ever)):
        wanted = turned & ~closed & ever.any(axis=1)[:, None]
        found = {name: _recall(each, ~closed, wanted) for name, each in scores.items()}
        title = f"{kind} ({int(wanted.any(axis=1).sum()):,} users)"
        lines += table(f"recall@{_CATEGORIES} of categories: {title}", found, ("popularity", "co-occurrence"))
    return [
        *lines,
        "Popularity: users of the last 28 days. Co-occurrence: P(turns to c | had c′), over as long a time before the "
        "cut as is judged after it, averaged over the categories c′ of the user's latest 200 clicks, 4 users' worth of "
        "P(turns to c) mixed in. Graph: user vector × mean vector of the category's items. Products: negative scores "
        "count as 0.",
        "",
    ]


def category_scores(later: Later) -> dict[str, NDArray[np.float64]]:
    """Score all categories for all users in every way: [U, categories] each."""
    histories, cut = later.histories, later.held_out.cut
    number = len(later.catalogue.categories)
    start = validation_start(histories, cut)
    known = np.stack(
        [clicked_categories(histories.clicks_before(user, start), number)[1:] for user in range(len(histories))]
    )
    turned = (_clicked(histories, number, start, cut) & ~known).astype(np.float64)
    had, lacked = known.astype(np.float64), (~known).astype(np.float64)
    overall = turned.sum(axis=0) / np.maximum(lacked.sum(axis=0), 1)
    chance = (had.T @ turned + _PRIOR * overall) / (had.T @ lacked + _PRIOR)
    recent = later.held_out.clicked[:, 1:].astype(np.float64)
    together = recent @ chance / np.maximum(recent.sum(axis=1, keepdims=True), 1)
    users = _clicked(histories, number, cut - _RECENT, cut).sum(axis=0, dtype=np.float64)
    popular = np.broadcast_to(users, together.shape)
    vectors = later.vectors(later.graph)
    rows = later.held_out.candidates
    groups = later.catalogue.item_categories[rows]
    sums = np.zeros((number + 1, DIM))
    np.add.at(sums, groups, vectors.item_vectors[rows])
    means = sums / np.maximum(np.bincount(groups, minlength=number + 1), 1)[:, None]
    graph = vectors.user_vectors @ means[1:].T
    return {
        "popularity": popular,
        "co-occurrence": together,
        "popularity × co-occurrence": popular * together,
        "graph": graph,
        "graph × popularity": np.maximum(graph, 0) * popular,
        "graph × co-occurrence": np.maximum(graph, 0) * together,
    }


def _clicked(histories: Histories, number: int, start: int, end: int) -> NDArray[np.bool_]:
    """Mark the categories that users clicked in [start, end): [U, categories]."""
    found = np.zeros((len(histories), number + 1), np.bool_)
    within = (histories.times >= start) & (histories.times < end)
    found[histories.users[within], histories.categories[within]] = True
    return found[:, 1:]


def _recall(
    scores: NDArray[np.float64], candidates: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    some = wanted.any(axis=1)
    ranked = np.argsort(-np.where(candidates, scores, -np.inf)[some], axis=1, kind="stable")[:, :_CATEGORIES]
    hits = np.take_along_axis(wanted[some], ranked, axis=1).sum(axis=1)
    recall: NDArray[np.float64] = hits / wanted[some].sum(axis=1)
    return recall


def noise_section(later: Later) -> list[str]:
    """Drop the interest edges that a training with UIR is least confident of, against random ones."""
    graph = later.graph
    training = fit(graph.without_knowledge(), _UIR, epochs=_EPOCHS)
    confidence = edge_confidence(training.vectors, graph)
    novel = later.held_out.novel
    targets = novel.of_users(np.random.default_rng(0).permutation(novel.users)[:_USERS])

    def recall(order: NDArray[np.int64], share: float) -> NDArray[np.float64]:
        kept = np.sort(order[round(share * len(order)) :])
        vectors = later.vectors(replace(graph, holds=graph.holds[:, kept]))
        items = vectors.item_vectors[later.held_out.candidates].T
        ranked = later.held_out.top_k(lambda some: vectors.user_vectors[some] @ items, targets.users, 100, novel=True)
        return targets.recall(ranked, 100)

    order = np.argsort(confidence, kind="stable")
    whole = recall(order, 0)
    lines = ["## Reader: which interest edges are noise", ""]
    for share in _SHARES:
        drawn = [recall(np.random.default_rng(seed).permutation(order), share) for seed in range(_DRAWS)]
        found = {
            "all edges": whole,
            "random dropped": np.mean(drawn, axis=0),
            "least confident dropped": recall(order, share),
        }
        lines += table(f"novel recall@100, {share:.0%} of {len(order):,} edges", found, ("all edges", "random dropped"))
    lines += table("novel recall@100", {"all edges": whole, "no interest edges": recall(order, 1)}, ("all edges",))
    return [
        *lines,
        f"Confidence of an edge: cosine of the user's vector without the interest's part, and that part, after "
        f"{_EPOCHS} epochs on clicks and interests with UIR of weight {_UIR.reconstruction.weight:g}. What is "
        f"judged are the vectors that builds make (closed form) of what is left, on {len(targets):,} users; random: "
        f"mean of {_DRAWS} draws.",
        "",
    ]


def edge_confidence(vectors: GraphVectors, graph: InterestGraph) -> NDArray[np.float64]:
    """Give the cosine of what a user's other neighbours add up to and the interest's part, of each edge held: [E]."""
    users, interests = graph.holds
    number = graph.without_knowledge().degrees(View.WHOLE)[: graph.num_users]
    parts = vectors.interest_parts[interests].astype(np.float64)
    others = vectors.user_vectors[users] * np.sqrt(number[users])[:, None] - parts
    norms = np.linalg.norm(parts, axis=1) * np.linalg.norm(others, axis=1)
    confidence: NDArray[np.float64] = (parts * others).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return confidence
