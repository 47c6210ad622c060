"""Google-v1 and Google-v2: LLMs that propose categories from the latest ones alone, once tuned and then left alone.

Google-v1 (Wang et al., User Feedback Alignment, arXiv 2504.05522): a Novelty LLM, tuned once on the categories users
turned to next, is sampled several times at a high temperature; an alignment model, tuned once on feedback, ranks the
proposals (best of n). Lists are made ahead for every C_s, so a list depends on it alone. There is neither a group nor
any update.

Google-v2 (Wang et al., Serendipitous Recommendation with Multimodal LLM, arXiv 2506.08283): a Novelty LLM alone, which
writes a chain of thought before it answers. The published chains come from a large model and from videos; ours are
made of clicks: the latest category that is nearest to the target, the demand behind both (a cluster of categories
clicked by the same users, named by its most clicked), the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.category_llms import (
    PerList,
    Recent,
    code,
    first_occurrences,
    seeded,
    tuned_novelty,
    tuned_relevance,
    without_groups,
)
from benchmarks.coea.code_digest import code_of
from benchmarks.coea.demands import Demands
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting
from benchmarks.coea.settings import llms_of
from serendipity.groups.decoding import CategoryDecoder
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import TINY
from serendipity.offline.tuning.sft import tune
from serendipity.offline.tuning.tokens import IGNORED, TokenExample

STEP = " >"
"""Between the steps of a chain of thought."""


@dataclass(frozen=True)
class GoogleV1:
    """The row Google-v1. proposable: categories that are sampled from at most, the likeliest (top-k sampling)."""

    llms: CoevolutionConfig = field(default_factory=CoevolutionConfig)
    proposable: int = 30
    name: str = "Google-v1"
    family: Family = "exploration"
    settings: tuple[Setting, ...] = tuple(
        {"samples": samples, "temperature": temperature}
        for samples in (5, 10, 20, 40, 80)
        for temperature in (1.0, 2.0)
    )
    """samples: n of best of n. temperature: of the Novelty LLM."""

    @property
    def configuration(self) -> Mapping[str, object]:
        """The LLMs', and the code that they follow from."""
        llms = self.llms.model_dump(mode="json", exclude={"threads"})
        return {**llms, "proposable": self.proposable, "code": code()}

    def fit(self, split: CategorySplit, seed: int) -> FittedGoogleV1:
        """Tune both LLMs once."""
        config = seeded(self.llms, seed)
        novelty, relevance = tuned_novelty(split, config), tuned_relevance(split, config)
        return FittedGoogleV1(novelty, relevance, without_groups(split, config), self.proposable, seed)


class FittedGoogleV1:
    """Two tuned LLMs, and what they answered so far."""

    def __init__(
        self, novelty: NoveltyLlm, relevance: RelevanceLlm, renderer: Renderer, proposable: int, seed: int
    ) -> None:
        self._novelty = novelty
        self._relevance = relevance
        self._renderer = renderer
        self._proposable = proposable
        self._seed = seed
        self._probable = PerList(self._log_probabilities)
        self._aligned = PerList(self._alignments)

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Score what was proposed by its alignment; what was not is not on the list."""
        distinct = list(dict.fromkeys(episodes.recent))
        probable, aligned = self._probable(distinct), self._aligned(distinct)
        lists = {}
        for recent, likely, alignments in zip(distinct, probable, aligned, strict=True):
            proposed = self._sample(recent, likely, int(setting["samples"]), setting["temperature"])
            lists[recent] = np.where(proposed, alignments, -np.inf).astype(np.float32)
        return np.stack([lists[recent] for recent in episodes.recent])

    def _sample(
        self, recent: Recent, likely: NDArray[np.float32], samples: int, temperature: float
    ) -> NDArray[np.bool_]:
        # Of each list its own draw: it is the same whoever else is asked for.
        rng = np.random.default_rng([self._seed, len(recent), *recent])
        open_to = np.flatnonzero(np.isfinite(likely))
        found = np.zeros(len(likely), np.bool_)
        if len(open_to):
            weights = np.exp((likely[open_to] - likely[open_to].max()).astype(np.float64) / temperature)
            found[open_to[rng.choice(len(open_to), samples, p=weights / weights.sum())]] = True
        return found

    def _log_probabilities(self, lists: Sequence[Recent]) -> NDArray[np.float32]:
        """[n, C], −inf for C_s and for all but the likeliest `proposable`."""
        found = self._novelty.log_probabilities([self._renderer.novelty(0, recent) for recent in lists])
        for row, recent in enumerate(lists):
            found[row, [number - 1 for number in recent]] = -np.inf
        bound = np.sort(found, axis=1)[:, -min(self._proposable, found.shape[1])]
        return np.where(found >= bound[:, None], found, -np.inf).astype(np.float32)

    def _alignments(self, lists: Sequence[Recent]) -> NDArray[np.float32]:
        """[n, C], −inf for what cannot be proposed."""
        rows, columns = np.nonzero(np.isfinite(self._probable(lists)))
        prompts = [
            self._renderer.relevance(0, lists[row], column + 1)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
        found = np.full((len(lists), len(self._renderer.categories)), -np.inf, np.float32)
        if prompts:
            found[rows, columns] = self._relevance.score(prompts)
        return found


@dataclass(frozen=True)
class GoogleV2:
    """The row Google-v2. demands: clusters of categories; none: the square root of their number."""

    llm: CoevolutionConfig = field(default_factory=CoevolutionConfig)
    demands: int | None = None
    name: str = "Google-v2"
    family: Family = "exploration"
    settings: tuple[Setting, ...] = ({"chains": 1}, {"chains": 2}, {"chains": 4}, {"chains": 8})
    """Likeliest chains of thought whose answers are averaged, weighted by their probability."""

    @property
    def configuration(self) -> Mapping[str, object]:
        """The LLM's, and the code that it follows from."""
        llm = self.llm.model_dump(mode="json", exclude={"threads"})
        return {**llm, "demands": self.demands, "code": [*code(), code_of(Demands.__module__)]}

    def fit(self, split: CategorySplit, seed: int) -> FittedGoogleV2:
        """Tune the LLM to write chain and answer."""
        config = seeded(self.llm, seed)
        llm = NoveltyLlm.open(config, split.catalogue.categories, [])
        renderer = without_groups(split, config)
        demands = Demands.of(split, self.demands)
        step = list(llm.base.tokenizer(STEP, add_special_tokens=False)["input_ids"])
        examples = []
        rows = [row for row in first_occurrences(split, config) if row.recent]
        prompts = llm.prompt_tokens([renderer.novelty(0, row.recent, trigger=False) for row in rows])
        for row, prompt in zip(rows, prompts, strict=True):
            nearest, demand = demands.chain(row.recent, row.target)
            written = [*llm.answers[nearest - 1], *step, *llm.answers[demand - 1], *step, *llm.answers[row.target - 1]]
            completion = [*written, llm.base.tokenizer.eos_token_id]
            examples.append(TokenExample([*prompt, *completion], [*[IGNORED] * len(prompt), *completion]))
        with TemporaryDirectory() as checkpoints:
            base, _ = tune(llm.base, examples, Path(checkpoints), config.novelty_tuning)
        tuned = NoveltyLlm(base, llm.categories, llm.threads)
        return FittedGoogleV2(tuned, renderer, step, demands.named)


class FittedGoogleV2:
    """A tuned LLM. step: tokens between steps; demands: numbers of the categories that name one."""

    def __init__(self, llm: NoveltyLlm, renderer: Renderer, step: list[int], demands: Sequence[int]) -> None:
        self._llm = llm
        self._renderer = renderer
        self._step = step
        self._demands = demands
        self._answered: dict[int, PerList] = {}

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Give log Σ p(chain) p(category | chain) over the likeliest chains."""
        chains = int(setting["chains"])
        answered = self._answered.setdefault(chains, PerList(lambda lists: self._log_probabilities(lists, chains)))
        return answered(episodes.recent)

    def _log_probabilities(self, lists: Sequence[Recent], chains: int) -> NDArray[np.float32]:
        prompts = self._llm.prompt_tokens([self._renderer.novelty(0, recent) for recent in lists])
        with limited_threads(self._llm.threads):
            decoder = CategoryDecoder(self._llm.base.model.eval(), self._llm.trie)
            # A user without history has no latest category: any may be the nearest.
            everything = range(1, len(self._llm.categories) + 1)
            first = self._extended(decoder, prompts, [recent or everything for recent in lists], chains)
            second = self._extended(
                decoder, [tokens for row in first for tokens, _ in row], [self._demands] * sum(map(len, first)), chains
            )
            thought: list[list[tuple[list[int], float]]] = []
            place = 0
            for row in first:
                joined = [
                    (tokens, before + after)
                    for (_, before), following in zip(row, second[place : place + len(row)], strict=True)
                    for tokens, after in following
                ]
                place += len(row)
                thought.append(sorted(joined, key=lambda chain: -chain[1])[:chains])
            answers = decoder.log_probabilities([tokens for row in thought for tokens, _ in row])
        found = np.empty((len(lists), len(self._llm.categories)), np.float32)
        place = 0
        for at, row in enumerate(thought):
            weights = np.array([value for _, value in row])
            found[at] = np.logaddexp.reduce(answers[place : place + len(row)] + weights[:, None], axis=0)
            place += len(row)
        return found

    def _extended(
        self,
        decoder: CategoryDecoder,
        prompts: Sequence[list[int]],
        allowed: Sequence[Sequence[int]],
        most: int,
    ) -> list[list[tuple[list[int], float]]]:
        """Go on with every prompt by its likeliest allowed categories: (tokens, log-probability), best first."""
        values = decoder.log_probabilities(prompts)
        extended = []
        for prompt, row, numbers in zip(prompts, values, allowed, strict=True):
            chosen = sorted(numbers, key=lambda number: -row[number - 1])[:most]
            extended.append(
                [([*prompt, *self._llm.answers[number - 1], *self._step], float(row[number - 1])) for number in chosen]
            )
        return extended


def methods(base: str = TINY) -> tuple[Method, ...]:
    """Both rows. base: of their LLMs."""
    llms = llms_of(base)
    return (GoogleV1(llms), GoogleV2(llms))
