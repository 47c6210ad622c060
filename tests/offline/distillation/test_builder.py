import contextlib
import shutil
from pathlib import Path

import pytest
import torch

from serendipity.interests.answer import AnswerError, read_answer
from serendipity.interests.model import read_spec
from serendipity.offline.distillation.builder import build_interest_gpt, build_training_data, open_base
from serendipity.offline.distillation.config import DistillationConfig, SftConfig
from serendipity.offline.distillation.dataset import read_examples
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.likelihoods import LEAST_WEIGHT
from serendipity.offline.distillation.sft import tune
from serendipity.offline.language_models.language_model import Prompt, Sampling
from serendipity.offline.language_models.local import LocalModel
from serendipity.offline.tuning import training
from serendipity.offline.tuning.base_model import BaseModel, BaseModelError, load_model
from serendipity.offline.tuning.config import LoraConfig, TinyLmConfig
from serendipity.v1 import records_pb2
from tests.offline.distillation.conftest import Shop
from tests.offline.distillation.test_dataset import SMALL

CONFIG = DistillationConfig(
    dataset=SMALL.model_copy(update={"num_examples": 100, "num_interests": 2}),
    tiny=TinyLmConfig(hidden_size=32, num_heads=2, intermediate_size=64, merges=30, max_positions=512),
    sft=SftConfig(epochs=12, batch_size=8, max_tokens=512, learning_rate=1e-2, checkpoint_steps=20, threads=1),
)


@pytest.fixture(scope="module")
def trained(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, records_pb2.InterestGptSpec]:
    out = tmp_path_factory.mktemp("interest-gpt")
    return out, build_interest_gpt(shop.logs, shop.interests, out, CONFIG, encoder=shop.encoder)


def test_a_model_directory_says_how_its_model_is_asked(
    shop: Shop, trained: tuple[Path, records_pb2.InterestGptSpec]
) -> None:
    out, spec = trained
    assert read_spec(out) == spec
    assert spec.model_name == f"interest_gpt_{spec.fingerprint}"
    assert spec.taxonomy_hash == shop.vocabulary.taxonomy_hash
    assert (spec.prompt_style, spec.num_interests, spec.writes) == ("compact", 2, False)
    assert spec.num_candidates == CONFIG.num_candidates
    assert spec.likelihood_weight == pytest.approx(max(spec.report.best_weight, LEAST_WEIGHT))
    assert spec.report.users > 0
    assert spec.max_prompt_tokens + spec.max_new_tokens <= 512


def test_tuning_teaches_a_random_model_to_answer_readably(
    shop: Shop, trained: tuple[Path, records_pb2.InterestGptSpec]
) -> None:
    out, spec = trained
    examples = read_examples(out / "dataset")[:40]
    base = open_base(CONFIG, read_examples(out / "dataset", "train"), shop.vocabulary.categories)
    tuned = load_model(out, "tuned", "compact")
    assert readable(base, examples, spec.max_new_tokens) == 0
    assert readable(tuned, examples, spec.max_new_tokens) >= 0.95


def readable(model: BaseModel, examples: list[Example], max_new_tokens: int) -> float:
    """Share of whole answers."""
    found = 0
    model.tokenizer.chat_template = None
    asked = LocalModel(model.name, lambda: (model.model.eval(), model.tokenizer))
    prompts = [Prompt(example.prompt) for example in examples]
    for answer in asked.complete(prompts, Sampling(max_new_tokens=max_new_tokens)):
        with contextlib.suppress(AnswerError):
            found += bool(answer.finished and read_answer(answer.text))
    return found / len(examples)


def test_a_killed_training_resumes_to_the_same_weights(
    shop: Shop, trained: tuple[Path, records_pb2.InterestGptSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = trained
    examples = read_examples(out / "dataset", "train")[:48]
    config = CONFIG.sft.model_copy(update={"epochs": 2.0, "checkpoint_steps": 5})

    whole = tune(open_base(CONFIG, examples, shop.vocabulary.categories), examples, tmp_path / "whole", config)

    class Dies(training.Steps):
        def on_step_end(self, args: object, state: object, control: object, **more: object) -> None:
            if getattr(state, "global_step", 0) == 8:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "Steps", Dies)
        with pytest.raises(KeyboardInterrupt):
            tune(open_base(CONFIG, examples, shop.vocabulary.categories), examples, tmp_path / "killed", config)
    resumed = tune(open_base(CONFIG, examples, shop.vocabulary.categories), examples, tmp_path / "killed", config)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, rtol=1e-4, atol=1e-5)


# peft still asks transformers by the old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapters_are_merged_into_the_base(
    shop: Shop, trained: tuple[Path, records_pb2.InterestGptSpec], tmp_path: Path
) -> None:
    out, _ = trained
    examples = read_examples(out / "dataset", "train")[:16]
    lora = CONFIG.sft.model_copy(update={"method": "lora", "epochs": 1.0, "lora": LoraConfig(rank=2)})
    before = load_model(out, "tuned", "compact").model.state_dict()
    merged = tune(load_model(out, "tuned", "compact"), examples, tmp_path, lora)
    after = merged.model.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_data_set_is_made_alone_and_again_the_same(shop: Shop, tmp_path: Path) -> None:
    made = build_training_data(shop.logs, shop.interests, tmp_path, CONFIG, encoder=shop.encoder)
    again = build_training_data(shop.logs, shop.interests, tmp_path, CONFIG, encoder=shop.encoder)
    assert made == again


def test_a_base_that_is_no_model_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"config\.json: missing"):
        open_base(CONFIG.model_copy(update={"base": str(tmp_path)}), [], shop.vocabulary.categories)


def test_weights_that_are_not_the_specs_are_refused(
    trained: tuple[Path, records_pb2.InterestGptSpec], tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "model")
    (tmp_path / "model" / "categories.json").write_text("[]")
    with pytest.raises(Exception, match="fingerprint"):
        read_spec(tmp_path / "model")
