"""What every training with trl reports, where it stops, and what it resumes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState

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
def test_a_training_of_few_steps_logs_a_loss_too(
    directory: Path, number: int, steps: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TuningConfig(batch_size=2, logging_steps=10, epochs=1)
    caplog.set_level("INFO", "serendipity")
    sft.tune(base(directory), examples(number), tmp_path, config)
    assert f"step {steps}: loss " in caplog.text or f"step {steps // 10 * 10}: loss " in caplog.text


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


@pytest.mark.parametrize("damaged", [None, "trainer_state.json", "model.safetensors", "optimizer.pt"])
def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(
    directory: Path,
    damaged: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = TuningConfig(batch_size=2, epochs=2, checkpoint_steps=3, learning_rate=1e-2)
    whole = sft.tune(base(directory), examples(8), tmp_path / "whole", config)
    write = TrainerState.save_to_json

    def killed(state: TrainerState, path: str) -> None:
        if state.global_step == 6:
            raise KeyboardInterrupt
        write(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(TrainerState, "save_to_json", killed)
        with pytest.raises(KeyboardInterrupt):
            sft.tune(base(directory), examples(8), tmp_path / "killed", config)
    (unfinished,) = (tmp_path / "killed").glob("*/checkpoint-6")
    if damaged:
        (good,) = (tmp_path / "killed").glob("*/checkpoint-3")
        (unfinished / "trainer_state.json").write_bytes((good / "trainer_state.json").read_bytes())
        content = (unfinished / damaged).read_bytes()
        (unfinished / damaged).write_bytes(content[: len(content) // 2])

    resumed = sft.tune(base(directory), examples(8), tmp_path / "killed", config)
    assert f"checkpoint-6: incomplete ({damaged or 'trainer_state.json: missing'}" in caplog.text
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
