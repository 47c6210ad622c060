"""What every training with trl reports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from serendipity.offline.tuning import sft
from serendipity.offline.tuning.base_model import TINY, BaseModel
from serendipity.offline.tuning.config import TuningConfig
from serendipity.offline.tuning.tokens import IGNORED, TokenExample
from tests.fixtures.tiny_language_model import make_tiny_language_model


@pytest.mark.parametrize(("examples", "steps"), [(1, 1), (6, 3), (30, 15)])
def test_a_training_of_few_steps_has_a_loss_too(examples: int, steps: int, tmp_path: Path) -> None:
    directory = make_tiny_language_model(tmp_path / "base")
    base = BaseModel(
        TINY,
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
        "compact",
    )
    rows = [TokenExample([5, 6 + row], [IGNORED, 6 + row]) for row in range(examples)]
    _, training = sft.tune(base, rows, tmp_path / "work", TuningConfig(batch_size=2, logging_steps=10, epochs=1))
    assert training.steps == steps
    assert math.isfinite(training.loss)
