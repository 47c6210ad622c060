"""The judge of latent interests: plausible for this user? new to this user?

Dewu has people score samples 0, 1 or 2. Here the judge is a rule that anybody can run again:

    novelty        the interest's top-level category is not among the user's latest 200 clicks
    plausibility   P(a user like this one turns to the category) is at least that of nine in ten of the categories that
                   users did newly enter in the validation period. P is a logistic regression, fitted on that period,
                   of two figures: how usual the category is among users who share the recent categories (mean over
                   them of P(c | s)), and how near its name is to theirs (mean of the three highest cosines)
    score          2: both, 1: one of them, 0: neither

The judge is lenient, as a person would be: `random_plausible` says which share of random novel categories it lets pass,
and `auc` how well it tells entered categories from those. It knows nothing of the period that is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.logs.histories import Histories

NAME = "entry judge (co-occurrence and name similarity)"

SENSITIVITY = 0.9
"""Share of the newly entered categories of the validation period that the judge calls plausible."""

_PRIOR = 5.0
"""Users' worth of the overall share mixed into every P(c | s)."""

_FIT_USERS = 5_000
_NEAREST = 3


@dataclass(frozen=True)
class Judge:
    """A fitted judge, as of a moment.

    histories: all clicks; time: Unix seconds, only what came before is known; vectors: [C + 1, D] float32 of norm 1 of
    the category names, row 0 zero; coefficients: intercept, usualness, nearness; threshold: least log-odds;
    random_plausible, auc: on the validation period.
    """

    histories: Histories
    time: int
    vectors: NDArray[np.float32]
    usual: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    threshold: float
    random_plausible: float
    auc: float

    @classmethod
    def fit(
        cls, histories: Histories, vectors: NDArray[np.float32], start: int, end: int, rng: np.random.Generator
    ) -> Judge:
        """Fit on the categories newly entered in [start, end), and judge as of `end`.

        Raises ValueError when nobody entered any category in the period.
        """
        num_categories = len(vectors) - 1
        active = np.unique(histories.users[(histories.times >= start) & (histories.times < end)]).astype(np.int64)
        users = np.sort(rng.permutation(active)[:_FIT_USERS])
        recent = recent_clicks(histories, users, start, num_categories)
        clicked = clicked_between(histories, users, start, end, num_categories)
        novel = is_novel(recent)
        entered, others = np.argwhere(clicked & novel), np.argwhere(novel & ~clicked)
        if not len(entered) or not len(others):
            raise ValueError(f"interest judge: nobody entered a category in [{start}, {end}); expected a longer period")
        figures = _figures(recent, _usual(histories, start, num_categories), vectors)
        random = others[rng.permutation(len(others))[: len(entered)]]
        pairs = np.concatenate([entered, random])
        inputs = figures[:, pairs[:, 0], pairs[:, 1]].T
        labels = np.arange(len(pairs)) < len(entered)
        model = LogisticRegression().fit(inputs, labels)
        coefficients = np.concatenate([model.intercept_, model.coef_[0]])
        odds = coefficients[0] + inputs @ coefficients[1:]
        threshold = float(np.quantile(odds[labels], 1 - SENSITIVITY))
        return cls(
            histories=histories,
            time=end,
            vectors=vectors,
            usual=_usual(histories, end, num_categories),
            coefficients=coefficients,
            threshold=threshold,
            random_plausible=float((odds[~labels] >= threshold).mean()),
            auc=float(roc_auc_score(labels, odds)),
        )

    def plausible(self, users: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which categories are plausible for users (numbers): [n, C + 1]; category 0 never is."""
        recent = recent_clicks(self.histories, users, self.time, len(self.vectors) - 1)
        figures = _figures(recent, self.usual, self.vectors)
        odds = self.coefficients[0] + np.tensordot(self.coefficients[1:], figures, 1)
        found: NDArray[np.bool_] = odds >= self.threshold
        found[:, NO_CATEGORY] = False
        return found


def recent_clicks(
    histories: Histories, users: NDArray[np.int64], time: int, num_categories: int
) -> NDArray[np.float32]:
    """Count the latest 200 clicks before a moment by category: [n, C + 1]; column 0 is empty."""
    counts = np.zeros((len(users), num_categories + 1), np.float32)
    for row, user in enumerate(users.tolist()):
        counts[row] = np.bincount(histories.clicks_before(user, time).categories, minlength=num_categories + 1)
    counts[:, NO_CATEGORY] = 0
    return counts


def is_novel(recent: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the categories that are not among the latest 200 clicks: [n, C + 1]."""
    novel: NDArray[np.bool_] = recent == 0
    novel[:, NO_CATEGORY] = False
    return novel


def clicked_between(
    histories: Histories, users: NDArray[np.int64], start: int, end: int, num_categories: int
) -> NDArray[np.bool_]:
    """Mark the categories clicked in [start, end): [n, C + 1]; column 0 is empty."""
    rows = np.full(len(histories), -1)
    rows[users] = np.arange(len(users))
    inside = (histories.times >= start) & (histories.times < end) & (rows[histories.users] >= 0)
    clicked = np.zeros((len(users), num_categories + 1), np.bool_)
    clicked[rows[histories.users[inside]], histories.categories[inside]] = True
    clicked[:, NO_CATEGORY] = False
    return clicked


def _usual(histories: Histories, time: int, num_categories: int) -> NDArray[np.float64]:
    """P(c | s) over users' distinct categories before a moment, smoothed to P(c): [C + 1, C + 1]."""
    before = histories.times < time
    pairs = np.unique(np.stack([histories.users[before], histories.categories[before]]), axis=1)
    has = np.zeros((len(histories), num_categories + 1), np.float32)
    has[pairs[0], pairs[1]] = 1
    has[:, NO_CATEGORY] = 0
    counts = has.sum(axis=0, dtype=np.float64)
    share = counts / max(float((has.any(axis=1)).sum()), 1.0)
    usual: NDArray[np.float64] = (has.T @ has + _PRIOR * share[None, :]) / (counts[:, None] + _PRIOR)
    return usual


def _figures(
    recent: NDArray[np.float32], usual: NDArray[np.float64], vectors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Usualness (log-odds) and nearness of every category to every user, [2, n, C + 1]."""
    known = (recent > 0).astype(np.float64)
    counts = np.maximum(known.sum(axis=1, keepdims=True), 1)
    # Without clicks: how usual the category is at all.
    everyone = np.broadcast_to(usual[NO_CATEGORY], known.shape)
    share = np.where(known.any(axis=1, keepdims=True), known @ usual / counts, everyone)
    usualness = np.log(np.clip(share, 1e-6, 1 - 1e-6) / (1 - np.clip(share, 1e-6, 1 - 1e-6)))
    similarity = vectors @ vectors.T
    nearness = np.zeros(known.shape)
    for row in range(len(known)):
        own = similarity[known[row] > 0]
        if len(own):
            nearest = min(_NEAREST, len(own))
            nearness[row] = np.partition(own, len(own) - nearest, axis=0)[-nearest:].mean(axis=0)
    return np.stack([usualness, nearness])
