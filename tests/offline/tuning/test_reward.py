"""The loss of preferences, read over a tree of tokens, is what reading every text alone gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from serendipity.offline.coevolution.whole_tokens import make_tokenizer
from serendipity.offline.finite import DivergedError
from serendipity.offline.tuning import training
from serendipity.offline.tuning.base_model import BaseModel, open_base
from serendipity.offline.tuning.config import LoraConfig, TinyLmConfig, TuningConfig
from serendipity.offline.tuning.reward import preference_loss, tune_reward
from serendipity.offline.tuning.tokens import PreferredTokens

TINY = TinyLmConfig(
    hidden_size=16, num_heads=2, intermediate_size=32, merges=10, max_positions=256, initializer_range=0.25
)
EXAMPLES = [
    PreferredTokens([5, 6, 7, 8], [[5, 6, 7, 9], [5, 6, 10]]),
    PreferredTokens([5, 6], [[5, 6, 7], [11], [5, 12, 13]]),
    PreferredTokens([9, 9, 9], [[9, 9, 8]]),
]


def reward_base() -> BaseModel:
    return open_base("tiny", "compact", TINY, 3, lambda: make_tokenizer(["Tea", "Rice"], ["all"], TINY), "reward")


def read_alone(base: BaseModel) -> float:
    losses = []
    with torch.no_grad():
        for row in EXAMPLES:
            chosen, *rejected = [
                float(base.model(input_ids=torch.tensor([text])).logits[0, 0]) for text in (row.chosen, *row.rejected)
            ]
            losses.append(sum(math.log1p(math.exp(other - chosen)) for other in rejected) / len(rejected))
    return sum(losses) / len(losses)


def test_the_loss_averages_pairs_then_examples() -> None:
    scores = torch.tensor([0.0, 2.0, 1.0, -1.0, 3.0])
    loss = preference_loss(scores, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([False, True, False, True, False]))
    expected = ((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2 + math.log1p(math.exp(4))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_shared_beginnings_change_nothing(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = reward_base()
    expected = read_alone(base)
    config = TuningConfig(
        method=method, lora=LoraConfig(dropout=0.0), batch_size=3, learning_rate=1e-6, logging_steps=1, max_tokens=64
    )
    losses = []
    monkeypatch.setattr(training.Steps, "on_log", lambda *_, logs, **__: losses.append(logs.get("loss")))
    tune_reward(base, EXAMPLES, tmp_path, config)
    assert losses[0] == pytest.approx(expected, rel=1e-4)


def test_longer_examples_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TuningConfig(batch_size=3, max_tokens=64)
    long = PreferredTokens([5], [[5] * 65])
    tune_reward(reward_base(), [*EXAMPLES, long], tmp_path, config)
    assert "max_tokens: 1 examples of more than 64 tokens are left out" in caplog.text
    with pytest.raises(ValueError, match="max_tokens: found 64 and 1 longer examples"):
        tune_reward(reward_base(), [long], tmp_path, config)


def test_a_training_that_diverges_stops(tmp_path: Path) -> None:
    config = TuningConfig(batch_size=1, learning_rate=1e39, warmup_share=0, max_tokens=64)
    with pytest.raises(DivergedError, match=r"^reward modelling, step 2: found loss nan, expected finite numbers"):
        tune_reward(reward_base(), EXAMPLES, tmp_path, config)
