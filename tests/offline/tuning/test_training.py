"""What every training with trl reports, and where it stops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from serendipity.offline.finite import DivergedError
from serendipity.offline.tuning import sft
from serendipity.offline.tuning.base_model import TINY, BaseModel
from serendipity.offline.tuning.config import TuningConfig
from serendipity.offline.tuning.tokens import IGNORED, TokenExample
from tests.fixtures.tiny_language_model import make_tiny_language_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_language_model(tmp_path_factory.mktemp("base"))


def base(directory: Path) -> BaseModel:
    return BaseModel(
        TINY,
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
        "compact",
    )


def examples(number: int) -> list[TokenExample]:
    return [TokenExample([5, 6 + row], [IGNORED, 6 + row]) for row in range(number)]


@pytest.mark.parametrize(("number", "steps"), [(1, 1), (6, 3), (30, 15)])
def test_a_training_of_few_steps_has_a_loss_too(directory: Path, number: int, steps: int, tmp_path: Path) -> None:
    config = TuningConfig(batch_size=2, logging_steps=10, epochs=1)
    _, training = sft.tune(base(directory), examples(number), tmp_path, config)
    assert training.steps == steps
    assert math.isfinite(training.loss)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        pytest.param(8, r"^fine-tuning, step 2: found loss nan, expected finite numbers; lower the l", id="loss"),
        pytest.param(2, r"^fine-tuning, step 1, model\.\S+: found weight (nan|-?inf), expected fin", id="weights"),
    ],
)
def test_a_training_that_diverges_stops_and_gives_nothing(
    directory: Path, number: int, message: str, tmp_path: Path
) -> None:
    config = TuningConfig(batch_size=2, learning_rate=1e39, warmup_share=0)
    with pytest.raises(DivergedError, match=message):
        sft.tune(base(directory), examples(number), tmp_path, config)
