"""What leads from category to category, and what users are told by it: a graph of the catalogue, not of any user.

A language model is asked about categories one at a time, as if each were all that somebody buys: what it knows is about
goods, and there are as many questions as categories, however many users there are. Texts and the logs link the same
categories, as many to each, so that the three can be compared.

A user's score of a category is Σ evidence of the user for s × weight of the link s → category, over the categories s
that were asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.interests.judging import Evaluation, K, Said, judge_interests, log_popularity, ranked
from serendipity.features import LongHistory
from serendipity.interests.reasoner import Interest, UserContext
from serendipity.novelty import NO_CATEGORY, Clicks
from serendipity.offline.logs.histories import before

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Tried for links beside popularity."""


@dataclass(frozen=True)
class CategoryLinks:
    """Links between categories. weights: [C + 1, C + 1] by category number, from row to column, 0 for none."""

    name: str
    weights: NDArray[np.float64]


def most_clicked(evaluation: Evaluation, most: int) -> list[int]:
    """Numbers of the categories with most clicks before the cut, most first."""
    histories = evaluation.histories
    known = histories.categories[histories.times < evaluation.cut]
    clicks = np.bincount(known[known != NO_CATEGORY], minlength=len(evaluation.taxonomy.categories) + 1)
    best = np.argsort(-clicks, kind="stable")[:most].tolist()
    return [category for category in best if clicks[category]]


def context_of(category: int, now: int) -> UserContext:
    """Describe somebody of whom one click in one category is known, and nothing else."""
    clicks = Clicks(np.zeros(1, np.int64), np.array([category], np.int32), np.array([now - 1], np.int64))
    return UserContext("", clicks, LongHistory.empty(), now)


def said_links(
    name: str, evaluation: Evaluation, asked: Sequence[int], answers: Sequence[Sequence[Interest]]
) -> CategoryLinks:
    """Take what a model named for each category that it was asked about; of several nodes of one category the best."""
    links = _none(evaluation)
    for category, interests in zip(asked, answers, strict=True):
        for interest in interests:
            to = evaluation.taxonomy.nodes[interest.node_id].categories[0]
            links[category, to] = max(links[category, to], interest.weight)
    return CategoryLinks(name, links)


def nearest_links(
    name: str, evaluation: Evaluation, asked: Sequence[int], similarities: NDArray[np.float64]
) -> CategoryLinks:
    """Link each category to the K most similar others. similarities: [C + 1, C + 1]."""
    links = _none(evaluation)
    for category in asked:
        others = similarities[category].copy()
        others[[NO_CATEGORY, category]] = 0
        best = np.argsort(-others, kind="stable")[:K]
        links[category, best] = np.maximum(others[best], 0)
    return CategoryLinks(name, links)


def text_similarities(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of the categories' names. vectors: [C, D] of length 1, by number − 1. Returns [C + 1, C + 1]."""
    return np.pad(vectors @ vectors.T, ((1, 0), (1, 0))).astype(np.float64)


def click_similarities(evaluation: Evaluation) -> NDArray[np.float64]:
    """Cosines of the categories by who clicked them before the cut, [C + 1, C + 1]."""
    histories = evaluation.histories
    known = histories.times < evaluation.cut
    clicked = np.zeros((len(histories), len(evaluation.taxonomy.categories) + 1))
    clicked[histories.users[known], histories.categories[known]] = 1
    lengths = np.maximum(np.sqrt(clicked.sum(axis=0)), 1)
    similarities: NDArray[np.float64] = (clicked.T @ clicked) / np.outer(lengths, lengths)
    return similarities


def follow(evaluation: Evaluation, links: CategoryLinks) -> Said:
    """Answer every user with the novel categories that links lead to from what the user clicked."""
    return ranked(evaluation, links.name, evaluation.users, evaluation.evidence @ links.weights)


def beside_popularity(evaluation: Evaluation, links: CategoryLinks, start: int) -> tuple[Said, float]:
    """Answer by log(1 + users lately) + weight · log(1 + what links say); the weight chosen on [start, the cut)."""

    def said(of: Evaluation, weight: float) -> Said:
        scores = log_popularity(of) + weight * np.log1p(of.evidence @ links.weights)
        return ranked(of, f"popular unseen + {links.name}", of.users, scores)

    histories = before(evaluation.histories, evaluation.cut)
    validation = Evaluation.of(histories, evaluation.taxonomy, start, evaluation.cut)
    hits = [judge_interests(validation, said(validation, weight)).hit.mean() for weight in WEIGHTS]
    weight = WEIGHTS[int(np.argmax(hits))]
    return said(evaluation, weight), weight


def _none(evaluation: Evaluation) -> NDArray[np.float64]:
    size = len(evaluation.taxonomy.categories) + 1
    return np.zeros((size, size))
