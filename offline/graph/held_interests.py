"""Which interests users hold: clusters of what is said of items, taken from what each user clicked.

CIKG (arXiv 2412.13544) asks a language model per user for at most five interests and clusters the answers. Here what is
said of the catalogue is clustered instead and a user's clicks are looked up in it, so that the cost grows with the
catalogue. An item is described by title, category path and tags, and a cluster named by the terms that set it apart; or
a language model names the interests that lead to its category, and a cluster is named by what is said most. Either is
TF-IDF, reduced and clustered by k-means, and clusters cross categories. An interest is held for what was clicked; what
a user may come to want is found elsewhere (serendipity.offline.interests) and never mixed with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from serendipity.offline.configuration import Configuration
from serendipity.offline.graph.category_interests import CategoryInterests
from serendipity.offline.graph.clustered_texts import ClusteredTexts
from serendipity.offline.graph.served_graph import MAX_HELD, NONE_HELD
from serendipity.offline.language_models.config import LanguageModelConfig
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_SHARES = np.linspace(0.05, 0.6, 12)
"""Shares λ of users' later clicks that held interests may explain, the rest being popularity."""


class HeldConfig(Configuration):
    """How held interests are inferred. Of the numbers to choose from, those that explain later clicks best are
    taken."""

    language_model: LanguageModelConfig | None = None
    """Names the interests that lead to each category; none: items are described by what the catalogue says alone."""
    num_clusters: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (32, 64, 128, 256, 512)
    """κ: clusters of what is said; with more than half as many as there are distinct texts none are made."""
    most_held: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_HELD)], ...], Field(min_length=1)] = (3, MAX_HELD)
    """Interests that a user holds at most."""
    min_items: Annotated[int, Field(ge=1)] = 2
    """Distinct items of an interest that a user must have clicked to hold it."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the clicks, the latest, that the numbers are chosen on."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of reduction and clustering."""


@dataclass(frozen=True)
class HeldInterests:
    """Interests and who holds them.

    names: of the κ interests; items: [n, m] int32, interests of each item row, NONE_HELD where there are fewer; held:
    [U, MAX_HELD] int32, interests of each user, strongest first, NONE_HELD where there are fewer; most_held: how
    many that is at most; gains: (κ, most held) → mean gain of the choice in nats a click.
    """

    names: tuple[str, ...]
    items: NDArray[np.int32]
    held: NDArray[np.int32]
    most_held: int
    gains: dict[tuple[int, int], float]

    @property
    def edges(self) -> NDArray[np.int64]:
        """[2, E] user and interest."""
        users, places = np.nonzero(self.held != NONE_HELD)
        edges: NDArray[np.int64] = np.stack([users, self.held[users, places]]).astype(np.int64)
        return edges


def infer_held_interests(
    histories: Histories, catalogue: Catalogue, config: HeldConfig, named: CategoryInterests | None = None
) -> HeldInterests:
    """Cluster what is said, choose the numbers on the latest clicks, and tell what each user holds by all clicks.

    named: by the language model; None: what is said is what the catalogue says. Raises LanguageModelError.

    The choice: interests are held by the clicks before a moment, and those numbers are taken under which the items that
    users then click for the first time are likeliest, item i having p(i) · (1 − λ + λ · Σ_c [c held] / (h · p(c))) over
    its interests c, where h interests are held, p is the popularity before the moment, and λ is what suits the numbers
    best. Narrow interests gain by p(c), and lose where they do not hold. Without later clicks the first numbers are
    taken.
    """
    said = _described(catalogue) if named is None else named.of_items(histories, catalogue)
    texts = ClusteredTexts.of(said, config.seed)
    pairs = _Pairs.of(histories, len(catalogue))
    moment = _moment(histories, config.validation)
    before, later = pairs.before(moment), pairs.after(moment)
    gains: dict[tuple[int, int], float] = {}
    clusters: dict[int, NDArray[np.int32]] = {}
    for k in dict.fromkeys(min(k, max(1, len(texts) // 2)) for k in config.num_clusters):
        clusters[k] = texts.clusters(k, config.seed)
        of_items = texts.item_clusters(clusters[k])
        for most in config.most_held:
            held = _held(before, of_items, k, most, config.min_items)
            gains[k, most] = _gain(held, before, later, of_items, k)
    k, most = max(gains, key=lambda choice: gains[choice])
    of_items = texts.item_clusters(clusters[k])
    names = (texts.terms_of if named is None else texts.most_said)(clusters[k], k)
    return HeldInterests(names, of_items, _held(pairs, of_items, k, most, config.min_items), most, gains)


@dataclass(frozen=True)
class _Pairs:
    """Distinct (user, item) pairs. users, rows: [p] int64; times: [p] int64, first click of each."""

    users: NDArray[np.int64]
    rows: NDArray[np.int64]
    times: NDArray[np.int64]
    num_users: int
    num_items: int

    @classmethod
    def of(cls, histories: Histories, num_items: int) -> _Pairs:
        known = histories.items > 0
        keys = histories.users[known].astype(np.int64) * num_items + histories.items[known] - 1
        # A user's clicks ascend in time, so the first of equal keys is the earliest.
        unique, first = np.unique(keys, return_index=True)
        return cls(unique // num_items, unique % num_items, histories.times[known][first], len(histories), num_items)

    def before(self, moment: int) -> _Pairs:
        return self._where(self.times < moment)

    def after(self, moment: int) -> _Pairs:
        return self._where(self.times >= moment)

    def _where(self, kept: NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.users[kept], self.rows[kept], self.times[kept], self.num_users, self.num_items)


def _described(catalogue: Catalogue) -> list[tuple[str]]:
    said = zip(catalogue.titles, catalogue.paths, catalogue.tags, strict=True)
    return [(" ".join((title, *path, *tags)).lower(),) for title, path, tags in said]


def _moment(histories: Histories, share: float) -> int:
    times = np.sort(histories.times)
    return int(times[int((1 - share) * len(times))]) if len(times) else 0


def _held(pairs: _Pairs, of_items: NDArray[np.int32], k: int, most: int, min_items: int) -> NDArray[np.int32]:
    """Tell what each user holds: [U, MAX_HELD].

    Strength of interest c: n_uc · log(n_uc · N / (n_u · n_c)), how much more of it was clicked than anybody would (the
    user's share in the log-likelihood ratio). Clusters of one edge, or of more than a fifth of the users, are noise
    (CIKG's rules) and held by nobody.
    """
    labels = of_items[pairs.rows]
    known = labels != NONE_HELD
    owners, labels = np.broadcast_to(pairs.users[:, None], known.shape)[known], labels[known]
    keys, counts = np.unique(owners * k + labels, return_counts=True)
    users, interests = np.divmod(keys, k)
    of_user, of_interest = np.bincount(owners), np.bincount(labels, minlength=k)
    strength = counts * np.log(counts * max(len(labels), 1) / (of_user[users] * of_interest[interests]))
    strong = (strength > 0) & (counts >= min_items)
    users, interests, strength = users[strong], interests[strong], strength[strong]
    order = np.lexsort((interests, -strength, users))
    users, interests = users[order], interests[order]
    first = np.searchsorted(users, users)
    places = np.arange(len(users)) - first
    kept = places < most
    users, interests, places = users[kept], interests[kept], places[kept]
    edges = np.bincount(interests, minlength=k)
    noisy = (edges <= 1) | (edges > pairs.num_users / 5)
    held = np.full((pairs.num_users, MAX_HELD), NONE_HELD, np.int32)
    held[users, places] = np.where(noisy[interests], NONE_HELD, interests)
    # What is left moves up.
    order = np.argsort(held == NONE_HELD, axis=1, kind="stable")
    moved: NDArray[np.int32] = np.take_along_axis(held, order, axis=1)
    return moved


def _gain(held: NDArray[np.int32], before: _Pairs, later: _Pairs, of_items: NDArray[np.int32], k: int) -> float:
    """Mean log-likelihood of later clicks over that by popularity, in nats; 0 without any."""
    labels = of_items[later.rows]
    known = labels != NONE_HELD
    judged = (np.bincount(before.users, minlength=before.num_users)[later.users] > 0) & known.any(axis=1)
    if not judged.any():
        return 0.0
    users, labels, known = later.users[judged], labels[judged], known[judged]
    clicked = of_items[before.rows]
    told = clicked != NONE_HELD
    popularity = (np.bincount(clicked[told], minlength=k) + 1.0) / (told.any(axis=1).sum() + k)
    number = (held != NONE_HELD).sum(axis=1)[users]
    is_held = known & (held[users][:, None, :] == labels[:, :, None]).any(axis=2)
    lift = (is_held / (np.maximum(number, 1)[:, None] * popularity[labels])).sum(axis=1)
    # Whoever holds nothing is left to popularity.
    explained = np.where(number > 0, lift - 1, 0.0)
    return max(float(np.log1p(share * explained).mean()) for share in _SHARES)
