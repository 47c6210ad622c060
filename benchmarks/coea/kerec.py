"""LLM-KERec: a graph of complementary categories that an LLM built (Zhao et al., CIKM 2024, arXiv 2402.13750).

An LLM judges pairs of categories, chosen among all by how often users click both; the pairs it is surest of are the
edges. A user's latest categories are expanded along the edges, whose weights are learned from clicks, and what is
reached is joined with a relevance model of the user: score = f(u, c) + w · log(ε + Σ_{a ∈ C_s} e(a, c)), where e(a, c)
is the share of a's users who click c, 0 without an edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.category_llms import code, seeded, tuned_novelty, without_groups
from benchmarks.coea.category_ranker import FittedRanker, RankerConfig, fit_ranker
from benchmarks.coea.code_digest import code_of
from benchmarks.coea.complements import Judgements, judge
from benchmarks.coea.demands import click_lift
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting, category_counts
from benchmarks.smollm2 import SMOLLM2, base_of, default_cache_dir
from serendipity.layout import hash_of, sha256
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.tuning.base_model import TINY, load_model

_EPSILON = 1e-3
"""Share that is added to every category, so that one without an edge is unlikely and not impossible."""


def _cache() -> Path:
    return default_cache_dir().parent / "complements"


@dataclass(frozen=True)
class LlmKerec:
    """The row LLM-KERec.

    llm: the judge; its base answers as it is, except the tiny model, which knows nothing: it is tuned on first
    occurrences, and judges by how likely one category makes the other. max_pairs: pairs judged at most, those with the
    largest co-click lift. kept: share of the judged pairs that become edges. cache: directory of judgements.
    """

    llm: CoevolutionConfig = field(default_factory=lambda: CoevolutionConfig(base=SMOLLM2))
    ranker: RankerConfig = field(default_factory=RankerConfig)
    max_pairs: int = 300
    kept: float = 0.5
    cache: Path = field(default_factory=_cache)
    name: str = "LLM-KERec"
    family: Family = "exploration"
    settings: tuple[Setting, ...] = tuple({"strength": strength} for strength in (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0))
    """w: how much the expansion counts beside the relevance."""

    @property
    def configuration(self) -> Mapping[str, object]:
        """Judge, ranker and graph, and the code that they follow from."""
        return {
            **self.llm.model_dump(mode="json", exclude={"threads"}),
            "ranker": self.ranker.model_dump(),
            "max_pairs": self.max_pairs,
            "kept": self.kept,
            "code": [*code(), *(code_of(part.__module__) for part in (FittedRanker, Judgements, click_lift))],
        }

    def fit(self, split: CategorySplit, seed: int) -> FittedKerec:
        """Train the relevance model, have the pairs judged and weigh the edges."""
        clicked = category_counts(split.training, split.num_categories) > 0
        pairs = candidate_pairs(clicked, self.max_pairs)
        odds = self._judged(split, pairs, seed)
        edges = np.zeros((split.num_categories, split.num_categories))
        for place in np.argsort(-odds, kind="stable")[: round(self.kept * len(pairs))].tolist():
            one, other = pairs[place]
            edges[one, other] = edges[other, one] = 1.0
        counts = clicked.astype(np.float64)
        following = counts.T @ counts / np.maximum(counts.sum(axis=0), 1.0)[:, None]
        return FittedKerec(fit_ranker(split, self.ranker, seed), edges * following)

    def _judged(self, split: CategorySplit, pairs: list[tuple[int, int]], seed: int) -> NDArray[np.float32]:
        """Judge every pair either way round, and take the mean: [n]."""
        directed = [*pairs, *((other, one) for one, other in pairs)]
        if not pairs:
            return np.empty(0, np.float32)
        if self.llm.base == TINY:
            config = seeded(self.llm, seed)
            llm, renderer = tuned_novelty(split, config), without_groups(split, config)
            each = [renderer.novelty(0, (number,)) for number in range(1, split.num_categories + 1)]
            likely = llm.log_probabilities(each)
            odds = likely[tuple(np.array(directed).T)]
        else:
            odds = self._asked([(split.catalogue.categories[a], split.catalogue.categories[b]) for a, b in directed])
        found: NDArray[np.float32] = odds.reshape(2, -1).mean(axis=0)
        return found

    def _asked(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        base = self.llm.base
        directory = Path(base_of(base))
        weights = [sha256(file).encode() for file in sorted(directory.glob("*.safetensors"))]
        judgements = Judgements(self.cache, hash_of(weights) + self.llm.style)
        odds = judgements.read(pairs)
        if odds is None:
            odds = judge(load_model(directory, base, self.llm.style), pairs, self.llm.threads)
            judgements.write(pairs, odds)
        return odds


@dataclass(frozen=True)
class FittedKerec:
    """edges: [C, C], weight of an edge from row to column, 0 for none."""

    ranker: FittedRanker
    edges: NDArray[np.float64]

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Join relevance with what the latest categories expand to."""
        told = np.zeros(episodes.candidates.shape)
        for row, recent in enumerate(episodes.recent):
            told[row, [number - 1 for number in recent]] = 1.0
        expansion = np.log(_EPSILON + told @ self.edges)
        joined: NDArray[np.float32] = (
            self.ranker.scores(episodes).astype(np.float64) + setting["strength"] * expansion
        ).astype(np.float32)
        return joined


def candidate_pairs(clicked: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """List the pairs of categories that some user clicked both of, by falling lift: columns (a, b), a < b.

    clicked: [U, C] bool. Ties: the smaller columns first.
    """
    one, other = np.triu_indices(clicked.shape[1], 1)
    lift = click_lift(clicked)[one, other]
    order = np.argsort(-lift, kind="stable")[:most]
    return [(int(one[place]), int(other[place])) for place in order if lift[place] > 0]


def methods() -> tuple[Method, ...]:
    """The one row, judged by SmolLM2."""
    return (LlmKerec(),)
