"""What supervised fine-tuning leaves out of its computation changes nothing of what it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

from serendipity.offline.tuning import sft
from serendipity.offline.tuning.base_model import TINY, BaseModel
from serendipity.offline.tuning.config import TuningConfig
from serendipity.offline.tuning.tokens import IGNORED, TokenExample
from tests.fixtures.tiny_language_model import make_tiny_language_model


def _examples() -> list[TokenExample]:
    """Completions of different lengths, at different places, and one of which the middle is not learned."""
    generator = np.random.default_rng(4)
    examples = []
    for _ in range(24):
        prompt, answer = int(generator.integers(3, 12)), int(generator.integers(1, 5))
        tokens = generator.integers(2, 250, prompt + answer).tolist()
        examples.append(TokenExample(tokens, [IGNORED] * prompt + tokens[prompt:]))
    examples.append(TokenExample([5, 6, 7, 8, 9], [IGNORED, 6, IGNORED, IGNORED, 9]))
    return examples


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(("base", "accumulation"), [(TINY, 1), ("large", 2)])
def test_it_learns_what_the_whole_computation_learns(
    base: str, accumulation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_tiny_language_model(tmp_path / "base")
    config = TuningConfig(
        batch_size=5,
        epochs=2,
        learning_rate=1e-2,
        accumulation=accumulation,
        logging_steps=1,
    )

    def tuned(name: str) -> list[torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
        start = BaseModel(base, model, AutoTokenizer.from_pretrained(directory), "compact")
        result = sft.tune(start, _examples(), tmp_path / name, config)
        return [weight.detach() for weight in result.model.parameters()]

    ours = tuned("ours")
    monkeypatch.setattr(sft._Trainer, "compute_loss", SFTTrainer.compute_loss)
    theirs = tuned("theirs")
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
