"""SmolLM2 goes through a step of either training and answers catalogue categories."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.smollm2 import default_cache_dir, smollm2_path
from serendipity.offline.coevolution.config import PUBLISHED_TUNING, CoevolutionConfig
from serendipity.offline.coevolution.examples import NoveltyExample, RelevanceExample, Renderer
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import tune_novelty, tune_relevance

NAMES = ["Film", "Film-Noir", "Documentary", "Children's"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def test_smollm2_is_tuned_for_one_step_and_answers_categories(tmp_path: Path) -> None:
    one_step = PUBLISHED_TUNING.model_copy(update={"accumulation": 1, "max_examples": 2})
    config = CoevolutionConfig(base=str(smollm2_path(default_cache_dir())), novelty=one_step, relevance=one_step)
    renderer = Renderer(["everyone"], NAMES, config.style)
    novelty = tune_novelty(
        NoveltyLlm.open(config, NAMES, renderer.profiles),
        [NoveltyExample(0, t, 0, (1,), 3) for t in range(2)],
        renderer,
        tmp_path,
        config.novelty_tuning,
    )
    prompt = renderer.novelty(0, [1, 3])
    (found,) = novelty.rank([prompt], 10, [["Film"]])
    assert {name for name, _ in found} == set(NAMES) - {"Film"}
    values = novelty.log_probabilities([prompt])[0]
    assert math.isclose(np.exp(values).sum(), 1, abs_tol=1e-4)
    np.testing.assert_allclose([value for _, value in found], np.sort(values[1:])[::-1], atol=1e-3)
    del novelty
    relevance = tune_relevance(
        RelevanceLlm.open(config, NAMES, renderer.profiles),
        [RelevanceExample(0, t, 0, (1,), 3, (4,), False) for t in range(2)],
        renderer,
        tmp_path,
        config.relevance_tuning,
    )
    scores = relevance.score([renderer.relevance(0, [1], category) for category in (3, 4)])
    assert np.isfinite(scores).all()
