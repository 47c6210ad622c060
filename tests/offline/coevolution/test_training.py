"""The two LLMs learn what there is to learn, resume after a kill, and come back from their directories."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from serendipity.groups.lists import alignment
from serendipity.groups.model import llm_fingerprint
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.examples import NoveltyExample, RelevanceExample, Renderer
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.pco_config import PcoConfig
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import (
    choose_threshold,
    fit_platt,
    score_pairs,
    tune_novelty,
    tune_relevance,
)
from serendipity.offline.tuning import training
from serendipity.offline.tuning.base_model import BaseModelError
from serendipity.offline.tuning.config import LoraConfig, TinyLmConfig, TuningConfig
from tests.fixtures.tiny_language_model import make_tiny_language_model

NAMES = ["Film", "Film-Noir", "Café", "鍋料理", "Drama & Crime", "Rice"]
PROFILES = ["everyone: mostly Film", "night owls: Film-Noir and Café"]
RENDERER = Renderer(PROFILES, NAMES, "compact")
SMALL = CoevolutionConfig(
    tiny=TinyLmConfig(
        hidden_size=16, num_heads=2, intermediate_size=32, merges=60, max_positions=256, initializer_range=0.25
    ),
    novelty=TuningConfig(batch_size=16, epochs=8, learning_rate=1e-2, checkpoint_steps=5),
    relevance=TuningConfig(batch_size=16, epochs=8, learning_rate=1e-2, checkpoint_steps=5),
)
# What is novel follows from the latest category: the next number.
EXAMPLES = [NoveltyExample(0, t, t % 2, (1 + t % 5,), 2 + t % 5) for t in range(120)]
# Of two categories the one of the higher number is clicked.
PAIRS = [
    RelevanceExample(0, t, t % 2, (1,), high, lower, False)
    for t in range(40)
    for high, lower in ((6, (2, 5)), (5, (3,)), (4, (2, 3)))
]


@pytest.fixture(scope="module")
def novelty(tmp_path_factory: pytest.TempPathFactory) -> NoveltyLlm:
    llm = NoveltyLlm.open(SMALL, NAMES, PROFILES)
    return tune_novelty(llm, EXAMPLES, RENDERER, tmp_path_factory.mktemp("novelty"), SMALL.novelty_tuning)


def test_every_name_but_those_the_decoder_would_change_is_one_token() -> None:
    llm = NoveltyLlm.open(SMALL, NAMES, PROFILES)
    assert [len(tokens) for tokens in llm.answers] == [1, 1, len(llm.answers[2]), 1, 1, 1]
    prompt = RENDERER.novelty(1, [2, 4])
    assert llm.base.tokenizer.convert_ids_to_tokens(llm.prompt_tokens([prompt])[0])[-4:] == [
        "Film-Noir", "; ", "鍋料理", "\nnovel:",
    ]  # fmt: skip


def test_the_novelty_llm_learns_which_category_follows(novelty: NoveltyLlm) -> None:
    found = novelty.rank([RENDERER.novelty(1, [c]) for c in range(1, 6)], 1)
    assert [row[0][0] for row in found] == NAMES[1:]
    np.testing.assert_allclose(np.exp(novelty.log_probabilities([RENDERER.novelty(0, [1])])).sum(), 1, atol=1e-5)


def test_excluded_categories_never_come_out(novelty: NoveltyLlm) -> None:
    (found,) = novelty.rank([RENDERER.novelty(1, [1])], 10, [["Film-Noir", "Film", "no such category"]])
    assert {name for name, _ in found} == set(NAMES[2:])


def test_the_relevance_llm_lowers_its_loss_and_tells_clicked_from_unclicked(tmp_path: Path) -> None:
    llm = RelevanceLlm.open(SMALL, NAMES, PROFILES)
    before = np.subtract(*score_pairs(llm, PAIRS, RENDERER))
    tuned = tune_relevance(llm, PAIRS, RENDERER, tmp_path, SMALL.relevance_tuning)
    after = np.subtract(*score_pairs(tuned, PAIRS, RENDERER))
    assert (after > 0).all()
    assert np.log1p(np.exp(-after)).mean() < np.log1p(np.exp(-before)).mean() / 2


def test_directories_give_the_models_back(novelty: NoveltyLlm, tmp_path: Path) -> None:
    novelty.save(tmp_path / "novelty")
    read = NoveltyLlm.read(tmp_path / "novelty")
    prompts = [RENDERER.novelty(1, [3]), RENDERER.novelty(0, [])]
    np.testing.assert_allclose(read.log_probabilities(prompts), novelty.log_probabilities(prompts), atol=1e-5)
    assert read.categories == NAMES
    assert len(llm_fingerprint(tmp_path / "novelty")) == 16
    relevance = RelevanceLlm.open(SMALL, NAMES, PROFILES)
    relevance.save(tmp_path / "relevance")
    asked = [RENDERER.relevance(1, [3], 4)]
    np.testing.assert_allclose(
        RelevanceLlm.read(tmp_path / "relevance").score(asked), relevance.score(asked), atol=1e-5
    )
    (tmp_path / "novelty" / "categories.json").write_text(json.dumps({"no": "list"}))
    with pytest.raises(BaseModelError, match=r"categories.json: found no list"):
        NoveltyLlm.read(tmp_path / "novelty")


def test_both_trainings_resume_after_a_kill_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(training.Steps):
        def on_step_end(self, args: object, state: object, control: object, **more: object) -> None:
            if getattr(state, "global_step", 0) == 8:
                raise KeyboardInterrupt

    short = SMALL.novelty_tuning.model_copy(update={"epochs": 2.0})

    def run_novelty(directory: Path) -> dict[str, torch.Tensor]:
        llm = NoveltyLlm.open(SMALL, NAMES, PROFILES)
        return dict(tune_novelty(llm, EXAMPLES, RENDERER, directory, short).base.model.state_dict())

    def run_relevance(directory: Path) -> dict[str, torch.Tensor]:
        llm = RelevanceLlm.open(SMALL, NAMES, PROFILES)
        return dict(tune_relevance(llm, PAIRS, RENDERER, directory, short).base.model.state_dict())

    for name, run in (("novelty", run_novelty), ("relevance", run_relevance)):
        whole = run(tmp_path / f"{name}-whole")
        with monkeypatch.context() as patched:
            patched.setattr(training, "Steps", Dies)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / f"{name}-killed")
        resumed = run(tmp_path / f"{name}-killed")
        for key, weight in whole.items():
            torch.testing.assert_close(resumed[key], weight)


def test_a_cycle_tunes_other_bases_as_published_and_what_is_set_as_it_is() -> None:
    tiny, large = CoevolutionConfig().relevance_update, CoevolutionConfig(base="/models/large").relevance_update
    assert (tiny.batch_size, tiny.learning_rate, tiny.warmup_share) == (64, 3e-4, 0)
    assert (large.method, large.batch_size, large.accumulation, large.learning_rate) == ("lora", 2, 2, 1e-4)
    own = TuningConfig(learning_rate=1e-5)
    assert CoevolutionConfig(base="/models/large", pco=PcoConfig(relevance=own)).relevance_update == own


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_base_of_the_chat_style_is_tuned_by_adapters(tmp_path: Path) -> None:
    directory = make_tiny_language_model(tmp_path / "base", chat=True)
    lora = TuningConfig(method="lora", lora=LoraConfig(rank=8), batch_size=2, accumulation=2, learning_rate=1e-3)
    config = SMALL.model_copy(update={"base": str(directory), "novelty": lora, "relevance": lora})
    assert config.style == "chat"
    renderer = replace(RENDERER, style="chat")
    llm = NoveltyLlm.open(config, NAMES, PROFILES)
    assert not llm.trie.is_flat
    tuned = tune_novelty(llm, EXAMPLES[:8], renderer, tmp_path, config.novelty_tuning)
    (found,) = tuned.rank([renderer.novelty(1, [1])], 6)
    assert {name for name, _ in found} == set(NAMES)
    assert math.isclose(sum(math.exp(value) for _, value in found), 1, abs_tol=1e-4)
    relevance = tune_relevance(
        RelevanceLlm.open(config, NAMES, PROFILES), PAIRS[:8], renderer, tmp_path, config.relevance_tuning
    )
    assert np.isfinite(relevance.score([renderer.relevance(1, [1], 2)])).all()


def test_alignment_is_the_probability_of_a_click() -> None:
    rng = np.random.default_rng(0)
    clicked, unclicked = rng.normal(1, 1, 4_000).astype(np.float32), rng.normal(-1, 1, 1_000).astype(np.float32)
    scale, offset = fit_platt(clicked, unclicked)
    # Of two unit normals 2 apart the log-odds are 2 f, whatever the numbers of either.
    assert scale == pytest.approx(2, abs=0.15)
    assert offset == pytest.approx(0, abs=0.1)


def test_separable_and_reversed_scores_stay_in_order() -> None:
    high, low = np.array([2, 3, 4], np.float32), np.array([-3, -2], np.float32)
    scale, _ = fit_platt(high, low)
    assert math.isfinite(scale)
    assert scale > 0
    assert fit_platt(low, high)[0] > 0
    with pytest.raises(ValueError, match="expected some of either kind"):
        fit_platt(high, np.empty(0, np.float32))


def test_the_threshold_is_the_largest_that_keeps_the_share_of_clicked() -> None:
    clicked = np.arange(10, dtype=np.float32)
    threshold = choose_threshold(clicked, 0.5, -1.0, 0.9)
    assert threshold == alignment(1.0, 0.5, -1.0)
    assert np.mean([alignment(float(f), 0.5, -1.0) >= threshold for f in clicked]) == 0.9
    assert choose_threshold(clicked, 0.5, -1.0, 1.0) == alignment(0.0, 0.5, -1.0)
