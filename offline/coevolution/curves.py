"""How good and how novel the two LLMs' answers are from cycle to cycle (arXiv 2508.00450, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from serendipity.groups.lists import alignment
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.pco_config import PanelConfig
from serendipity.offline.coevolution.preferences import Told, candidates_at
from serendipity.offline.coevolution.records import InteractionRecords, Moment
from serendipity.offline.coevolution.relevance import RelevanceLlm


@dataclass(frozen=True)
class Panel:
    """Moments of users that nothing is trained on. categories: what each then clicked, outside its latest ones."""

    moments: Sequence[Moment]
    categories: Sequence[int]

    @classmethod
    def of(cls, records: InteractionRecords, config: PanelConfig, seed: int) -> Panel:
        """Draw moments uniformly from records, those whose click lies outside the latest categories."""
        generator = np.random.default_rng([seed, 4])
        moments: list[Moment] = []
        categories: list[int] = []
        for click in generator.permutation(records.clicks).tolist():
            if len(moments) == config.moments:
                break
            moment, category = records.moment(click), int(records.histories.categories[click])
            if category not in moment.recent:
                moments.append(moment)
                categories.append(category)
        return cls(moments, categories)

    @cached_property
    def told(self) -> list[Told]:
        """What the LLMs are told at each moment."""
        return [(moment.group, moment.recent) for moment in self.moments]


@dataclass(frozen=True)
class Judge:
    """The Relevance LLM that a run began with, and its normalisation: a score that both LLMs move tells nothing.

    Where adapters are tuned they are merged into the very model the run began with, since no second copy of a large one
    is held: the judge then moves with it.
    """

    relevance: RelevanceLlm
    scale: float
    offset: float


@dataclass(frozen=True)
class PanelMeasures:
    """What a panel shows, K of PanelConfig.top. Of the Novelty LLM's K most probable proposals: alignment, mean by the
    judge; outside, share outside the user's long history; coverage, share of the catalogue's categories that are
    proposed to anyone; entropy, mean of the distribution over the catalogue, in nats. Of the lists, all candidates by
    the present Relevance LLM: hits_1 and hits, share whose next category is first, or among the first K; list_outside,
    as outside."""

    alignment: float
    outside: float
    coverage: float
    entropy: float
    hits_1: float
    hits: float
    list_outside: float


def measure(
    panel: Panel,
    novelty: NoveltyLlm,
    relevance: RelevanceLlm,
    judge: Judge,
    renderer: Renderer,
    num_candidates: int,
    top: int,
) -> PanelMeasures:
    """Measure a panel. Raises ValueError when it is empty."""
    if not panel.moments:
        raise ValueError("panel: found no moment of a validation user, expected some; the logs are too short")
    judged = candidates_at(panel.told, novelty, judge.relevance, renderer, num_candidates)
    present = judged
    if relevance is not judge.relevance:
        present = candidates_at(panel.told, novelty, relevance, renderer, num_candidates)
    proposed = [[candidate.category for candidate in judged[told][:top]] for told in panel.told]
    listed = [
        [candidate.category for candidate in sorted(present[told], key=lambda found: -found.score)]
        for told in panel.told
    ]
    aligned = [
        alignment(candidate.score, judge.scale, judge.offset) for told in panel.told for candidate in judged[told][:top]
    ]
    logs = novelty.log_probabilities([renderer.novelty(*told) for told in dict.fromkeys(panel.told)])
    entropies = -np.where(np.isfinite(logs), np.exp(logs) * logs, 0.0).sum(axis=1)
    weights = dict(zip(dict.fromkeys(panel.told), entropies.tolist(), strict=True))
    pairs = list(zip(listed, panel.categories, strict=True))
    return PanelMeasures(
        alignment=float(np.mean(aligned)),
        outside=_outside(proposed, panel.moments),
        coverage=len({category for row in proposed for category in row}) / len(renderer.categories),
        entropy=float(np.mean([weights[told] for told in panel.told])),
        hits_1=float(np.mean([category in row[:1] for row, category in pairs])),
        hits=float(np.mean([category in row[:top] for row, category in pairs])),
        list_outside=_outside([row[:top] for row in listed], panel.moments),
    )


def _outside(rows: Sequence[Sequence[int]], moments: Sequence[Moment]) -> float:
    found = [category not in moment.long for row, moment in zip(rows, moments, strict=True) for category in row]
    return float(np.mean(found)) if found else 0.0
