"""What interests are judged on: logs of a build that held its latest clicks out, and a tuned grounder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.interests.judging import Evaluation, choose_own_weight
from serendipity.interests.facts import FactsRule
from serendipity.interests.grounding import Grounder
from serendipity.interests.prompt import PromptStyle
from serendipity.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.interests.text import comparable
from serendipity.offline.encoder import RememberingEncoder, TextEncoder
from serendipity.offline.evaluate.held_out_build import held_out_of
from serendipity.offline.interests.debate import DebateConfig
from serendipity.offline.interests.grounding_threshold import ThresholdReport, tune_threshold
from serendipity.offline.interests.hops import Json, Prompting
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.interests.user_facts import EVERYTHING
from serendipity.offline.interests.vocabulary import grounding_nodes
from serendipity.offline.language_models.language_model import LanguageModel
from serendipity.offline.logs.histories import split_times
from serendipity.v1 import records_pb2

TAXONOMY = TaxonomyReasoner.name

VALIDATION_START = 0.8
"""Share of the clicks before the validation period, which ends where what is judged begins."""


@dataclass(frozen=True)
class Bench:
    """Everything that methods are compared with.

    reasoner: fitted on what came before the cut; start: of the validation period, Unix seconds, which ends at the cut;
    own_weight: of the control, chosen on it; category_vectors: [C, D] of the categories' names, by number − 1.
    """

    evaluation: Evaluation
    reasoner: TaxonomyReasoner
    start: int
    own_weight: float
    category_vectors: NDArray[np.float32]
    grounder: Grounder
    threshold: ThresholdReport
    titles: Sequence[str]

    def line_reasoner(self, model: LanguageModel, prompting: Prompting, debate: DebateConfig, seed: int) -> LlmReasoner:
        """Ask a model in lines, in one hop or in two. seed: of the sampling."""
        return self._reasoner(model, prompting, debate.model_copy(update={"seed": seed}), EVERYTHING)

    def json_reasoner(self, model: LanguageModel, spec: records_pb2.InterestGptSpec, seed: int) -> LlmReasoner:
        """Ask an InterestGPT as it was trained to be asked, unconstrained and greedily."""
        rule: FactsRule = spec.facts if spec.HasField("facts") else EVERYTHING
        debate = DebateConfig(seed=seed, max_new_tokens=spec.max_new_tokens)
        return self._reasoner(model, Json(cast(PromptStyle, spec.prompt_style)), debate, rule)

    def _reasoner(
        self,
        model: LanguageModel,
        prompting: Prompting,
        debate: DebateConfig,
        rule: FactsRule,
    ) -> LlmReasoner:
        categories = self.evaluation.taxonomy.categories
        return LlmReasoner(model, self.grounder, categories, self.titles, prompting, debate=debate, facts=rule)


def make_bench(build: Path, encoder: TextEncoder) -> Bench:
    """Read a build directory and prepare. Raises LogsError when the build held nothing out."""
    histories, catalogue, cut, until = held_out_of(build)
    taxonomy = Taxonomy.from_catalogue(catalogue)
    vectors = encoder.encode(taxonomy.texts, build / ".cache" / "text_vectors.npz")
    encode = RememberingEncoder(encoder).encode
    start = split_times(histories, (VALIDATION_START,))[0]
    threshold = tune_threshold(taxonomy, catalogue, vectors, encode)
    evaluation = Evaluation.of(histories, taxonomy, cut, until)
    return Bench(
        evaluation=evaluation,
        reasoner=fit_reasoner(taxonomy, histories, cut),
        start=start,
        own_weight=choose_own_weight(evaluation, start),
        category_vectors=encode([comparable(name) for name in taxonomy.categories]),
        grounder=Grounder(grounding_nodes(taxonomy.nodes), taxonomy.categories, vectors, encode, threshold.threshold),
        threshold=threshold,
        titles=catalogue.titles,
    )
