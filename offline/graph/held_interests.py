"""Which interests users hold: clusters of what the catalogue says of items, taken from what each user clicked.

CIKG (arXiv 2412.13544) asks a language model per user for at most five interests and clusters the answers. Here the
catalogue is clustered instead and a user's clicks are looked up in it, so that the cost grows with the catalogue:
TF-IDF of titles, category paths and tags, reduced and clustered by k-means. Clusters cross categories, and each is
named by the terms that set it apart. An interest is held for what was clicked; what a user may come to want is found
elsewhere (serendipity.offline.interests) and never mixed with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from serendipity.interests.text import clean_text
from serendipity.offline.configuration import Configuration
from serendipity.offline.graph.served_graph import MAX_HELD, NONE_HELD
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_WORD = r"[^\W\d_]{3,}"
"""Words without digits, and no units: what comes by the pound would be an interest of its own."""

_REDUCED = 64
_ITERATIONS = 20
_TERMS = 3
"""Terms of a name."""

_SHARES = np.linspace(0.05, 0.6, 12)
"""Shares λ of users' later clicks that held interests may explain, the rest being popularity."""

# The stubs in the wheel miss what its Python layer adds.
_faiss: Any = faiss


class HeldConfig(Configuration):
    """How held interests are inferred. Of the numbers to choose from, those that explain later clicks best are
    taken."""

    num_clusters: Annotated[tuple[int, ...], Field(min_length=1)] = (32, 64, 128, 256, 512)
    """κ: clusters of the catalogue; with more than half as many as there are distinct texts none are made."""
    most_held: Annotated[tuple[int, ...], Field(min_length=1)] = (3, MAX_HELD)
    """Interests that a user holds at most."""
    min_items: Annotated[int, Field(ge=1)] = 2
    """Distinct items of an interest that a user must have clicked to hold it."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the clicks, the latest, that the numbers are chosen on."""
    seed: int = 0
    """Of reduction and clustering."""


@dataclass(frozen=True)
class HeldInterests:
    """Interests and who holds them.

    names: of the κ interests; items: [n] int32, interest of each item row, NONE_HELD for items of whom nothing is said;
    held: [U, MAX_HELD] int32, interests of each user, strongest first, NONE_HELD where there are fewer; most_held: how
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


def infer_held_interests(histories: Histories, catalogue: Catalogue, config: HeldConfig) -> HeldInterests:
    """Cluster the catalogue, choose the numbers on the latest clicks, and tell what each user holds by all clicks.

    The choice: interests are held by the clicks before a moment, and those numbers are taken under which the items that
    users then click for the first time are likeliest, item i of interest c having p(i) · (1 − λ + λ · [c held] / (h ·
    p(c))) where h interests are held, p is the popularity before the moment, and λ is what suits the numbers best.
    Narrow interests gain by p(c), and lose where they do not hold. Without later clicks the first numbers are taken.
    """
    texts = _Texts.of(catalogue, config.seed)
    pairs = _Pairs.of(histories, len(catalogue))
    moment = _moment(histories, config.validation)
    before, later = pairs.before(moment), pairs.after(moment)
    gains: dict[tuple[int, int], float] = {}
    clusters: dict[int, NDArray[np.int32]] = {}
    for k in dict.fromkeys(min(k, max(1, len(texts) // 2)) for k in config.num_clusters):
        clusters[k] = texts.clusters(k, config.seed)
        for most in config.most_held:
            held = _held(before, clusters[k], k, most, config.min_items)
            gains[k, most] = _gain(held, before, later, clusters[k], k)
    k, most = max(gains, key=lambda choice: gains[choice])
    held = _held(pairs, clusters[k], k, most, config.min_items)
    return HeldInterests(texts.names(clusters[k], k), clusters[k], held, most, gains)


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


@dataclass(frozen=True)
class _Texts:
    """What is said of the items. of_row: [n] int64, text of each item; terms: [t, terms] TF-IDF of the distinct texts;
    reduced: [t, d] float32 of norm 1; words: the terms; weights: [t] float64, items of each text."""

    of_row: NDArray[np.int64]
    terms: sparse.csr_matrix
    reduced: NDArray[np.float32]
    words: NDArray[Any]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, catalogue: Catalogue, seed: int) -> _Texts:
        numbers: dict[str, int] = {}
        said = zip(catalogue.titles, catalogue.paths, catalogue.tags, strict=True)
        of_row = np.array([numbers.setdefault(_text(title, *path, *tags), len(numbers)) for title, path, tags in said])
        vectorizer = TfidfVectorizer(
            token_pattern=_WORD, ngram_range=(1, 2), max_df=0.8, sublinear_tf=True, dtype=np.float32
        )
        weights = np.bincount(of_row).astype(np.float64)
        try:
            terms = vectorizer.fit_transform(numbers)
        except ValueError:  # nothing but stop words, or nothing at all
            nothing = sparse.csr_matrix((len(numbers), 0), dtype=np.float32)
            return cls(of_row, nothing, np.zeros((len(numbers), 1), np.float32), np.empty(0, object), weights)
        width = min(_REDUCED, min(terms.shape) - 1)
        reduced = TruncatedSVD(width, random_state=seed).fit_transform(terms) if width > 0 else terms.toarray()
        norms = np.linalg.norm(reduced, axis=1, keepdims=True)
        reduced = (reduced / np.maximum(norms, 1e-9)).astype(np.float32)
        return cls(of_row, sparse.csr_matrix(terms), reduced, vectorizer.get_feature_names_out(), weights)

    def clusters(self, k: int, seed: int) -> NDArray[np.int32]:
        """Cluster the texts, and give each item the cluster of its text: [n]."""
        means = _faiss.Kmeans(
            self.reduced.shape[1], k, niter=_ITERATIONS, seed=seed, spherical=True, min_points_per_centroid=1
        )
        means.train(np.ascontiguousarray(self.reduced))
        labels = means.index.search(self.reduced, 1)[1][:, 0].astype(np.int32)
        # Of a text without a word nothing is known.
        labels[np.diff(self.terms.indptr) == 0] = NONE_HELD
        of_items: NDArray[np.int32] = labels[self.of_row]
        return of_items

    def names(self, of_items: NDArray[np.int32], k: int) -> tuple[str, ...]:
        """Name each cluster by the terms of the highest mean TF-IDF over its items."""
        labels = np.full(len(self), NONE_HELD, np.int32)
        labels[self.of_row] = of_items
        known = np.flatnonzero(labels != NONE_HELD)
        shares = sparse.csr_matrix((self.weights[known], (labels[known], known)), shape=(k, len(self)))
        means = shares @ self.terms
        return tuple(_name(list(_told(means[cluster], self.words)), cluster) for cluster in range(k))


def _text(*parts: str) -> str:
    return " ".join(parts).lower()


def _told(means: sparse.csr_matrix, words: NDArray[Any]) -> Iterator[str]:
    """Give the terms of one cluster, most telling first, none of which is a part of another."""
    told: list[str] = []
    for place in means.indices[np.argsort(-means.data, kind="stable")]:
        term = str(words[place])
        if not any(set(term.split()) & set(other.split()) for other in told):
            told.append(term)
            yield term
        if len(told) == _TERMS:
            return


def _name(terms: Sequence[str], cluster: int) -> str:
    return clean_text(", ".join(terms)) or f"cluster {cluster}"


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
    keys, counts = np.unique(pairs.users[known] * k + labels[known], return_counts=True)
    users, interests = np.divmod(keys, k)
    of_user, of_interest = np.bincount(pairs.users[known]), np.bincount(labels[known], minlength=k)
    strength = counts * np.log(counts * max(len(labels[known]), 1) / (of_user[users] * of_interest[interests]))
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
    judged = (np.bincount(before.users, minlength=before.num_users)[later.users] > 0) & (labels != NONE_HELD)
    if not judged.any():
        return 0.0
    users, labels = later.users[judged], labels[judged]
    clicked = of_items[before.rows]
    popularity = np.bincount(clicked[clicked != NONE_HELD], minlength=k) + 1.0
    popularity /= popularity.sum()
    number = (held != NONE_HELD).sum(axis=1)[users]
    is_held = (held[users] == labels[:, None]).any(axis=1)
    lift = np.where(is_held, 1 / (np.maximum(number, 1) * popularity[labels]), 0.0)
    # Whoever holds nothing is left to popularity.
    explained = np.where(number > 0, lift - 1, 0.0)
    return max(float(np.log1p(share * explained).mean()) for share in _SHARES)
