"""How well interests foretell the categories that users newly enter, against popularity among the unseen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.reasoner import MAX_INTERESTS, Reasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.histories import Histories

_DAY = 86_400


@dataclass(frozen=True)
class EntryReport:
    """Averages over the users who newly entered at least one category.

    hit: share with at least one entered category among the k found; recall: found share of the entered categories;
    precision: entered share of k; click_recall: share of the clicks in newly entered categories that fall into found
    ones; num_users: those users; k.
    """

    hit: float
    recall: float
    precision: float
    click_recall: float
    num_users: int
    k: int


def evaluate_reasoner(
    reasoner: Reasoner, taxonomy: Taxonomy, histories: Histories, start: int, end: int, k: int = MAX_INTERESTS
) -> EntryReport:
    """Reason as of `start` and compare with the categories newly entered in [start, end).

    An interest stands for its node's first top-level category. The reasoner must be fitted on what came before.
    """
    found = np.zeros((len(histories), k), np.int64)
    for row, interests in enumerate(reasoner.reason(contexts_at(histories, start), k)):
        categories = [taxonomy.nodes[interest.node_id].categories[0] for interest in interests]
        found[row, : len(categories)] = categories
    return evaluate_categories(found, histories, len(taxonomy.categories), start, end)


def evaluate_popular_unseen(
    histories: Histories, num_categories: int, start: int, end: int, k: int = MAX_INTERESTS, days: float = 28.0
) -> EntryReport:
    """Answer every user with the novel categories that most users clicked in the `days` before `start`."""
    recent = (histories.times < start) & (histories.times >= start - round(days * _DAY))
    pairs = np.unique(np.stack([histories.users[recent], histories.categories[recent]]), axis=1)
    popularity = np.bincount(pairs[1], minlength=num_categories + 1).astype(np.float64)
    scores = np.where(_novel(histories, num_categories, start), popularity, -1.0)
    found = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found[np.take_along_axis(scores, found, 1) < 0] = NO_CATEGORY
    return evaluate_categories(found, histories, num_categories, start, end)


def evaluate_categories(
    found: NDArray[np.int64], histories: Histories, num_categories: int, start: int, end: int
) -> EntryReport:
    """Compare category numbers, [U, k] best first and 0 = none, with those newly entered in [start, end)."""
    inside = (histories.times >= start) & (histories.times < end)
    clicks = np.zeros((len(histories), num_categories + 1))
    np.add.at(clicks, (histories.users[inside], histories.categories[inside]), 1)
    clicks *= _novel(histories, num_categories, start)
    entered = clicks > 0
    judged = entered.any(axis=1)
    hits = np.take_along_axis(entered, found, 1)[judged]
    caught = np.take_along_axis(clicks, found, 1)[judged]
    if not judged.any():
        return EntryReport(0.0, 0.0, 0.0, 0.0, 0, found.shape[1])
    return EntryReport(
        hit=float(hits.any(1).mean()),
        recall=float((hits.sum(1) / entered[judged].sum(1)).mean()),
        precision=float(hits.mean()),
        click_recall=float((caught.sum(1) / clicks[judged].sum(1)).mean()),
        num_users=int(judged.sum()),
        k=found.shape[1],
    )


def _novel(histories: Histories, num_categories: int, time: int) -> NDArray[np.bool_]:
    novel = np.ones((len(histories), num_categories + 1), np.bool_)
    for user in range(len(histories)):
        novel[user, histories.clicks_before(user, time).categories] = False
    novel[:, NO_CATEGORY] = False
    return novel
