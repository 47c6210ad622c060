"""What is placed of each kind: configured for its own sizes, standing alone, and never of two trainings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from serendipity.features import INPUT_NAMES
from serendipity.groups import model as group_model
from serendipity.groups.prompt import NOVELTY_INSTRUCTIONS, RELEVANCE_INSTRUCTIONS, answer
from serendipity.interests import model
from serendipity.interests.answer import CATEGORY_FIRST, Proposal, write_answer
from serendipity.interests.prompt import INSTRUCTIONS
from serendipity.offline.export import export_onnx
from serendipity.tools.serving.deployment import place
from serendipity.tools.serving.kinds import (
    INTEREST_GPT,
    NOVELTY_LLM,
    RELEVANCE_LLM,
    TEXT_ENCODER,
    USER_TOWER,
    ServedModel,
    Serving,
    interest_gpt,
    novelty_llm,
    relevance_llm,
    text_encoder,
    user_tower,
)
from serendipity.tools.serving.trainings import PlacementError
from serendipity.v1 import records_pb2
from tests.fixtures.example_tower import Sizes, Training, random_inputs, tensors
from tests.fixtures.tiny_coevolution import CATEGORIES as NOVEL_CATEGORIES
from tests.fixtures.tiny_interest_gpt import CATEGORIES
from tests.tools.serving.conftest import read


def test_a_placed_tower_is_configured_for_its_own_sizes(training: Training, tmp_path: Path) -> None:
    name = place(USER_TOWER, training.directory, tmp_path)
    assert name == f"user_tower_{training.spec.fingerprint}"
    config = read(tmp_path / name / "config.pbtxt")
    assert config.name == name
    assert config.parameters["fingerprint"].string_value == training.spec.fingerprint
    assert {tensor.name: list(tensor.dims) for tensor in config.input} == {
        "history_items": [10], "history_ages": [10], "long_categories": [6], "long_counts": [6], "long_ages": [6],
        "profile": [2], "interests": [-1, 8],
    }  # fmt: skip
    assert list(config.output[0].dims) == [-1, 5]
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, config.max_batch_size]
    for warm_up in config.model_warmup:
        assert {key: list(value.dims) for key, value in warm_up.inputs.items()} == {
            tensor.name: [1, 8] if tensor.name == "interests" else list(tensor.dims) for tensor in config.input
        }
    placed = {
        str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.*") if path.suffix != ".pyc"
    }
    assert placed == {"config.pbtxt", "canary.json", "1/model.py", "1/user_tower.onnx"}


@pytest.mark.parametrize("gpu", [False, True])
def test_instances_are_configured_as_asked(training: Training, tmp_path: Path, gpu: bool) -> None:
    name = place(USER_TOWER, training.directory, tmp_path, Serving(instances=3, gpu=gpu))
    (group,) = read(tmp_path / name / "config.pbtxt").instance_group
    # On a CPU the tower runs in ONNX Runtime.
    assert (tmp_path / name / "1" / f"user_tower.{'pt2' if gpu else 'onnx'}").exists()
    assert group.count == 3
    assert group.kind == (group.KIND_GPU if gpu else group.KIND_CPU)


def test_no_instances_at_all_are_refused() -> None:
    with pytest.raises(PlacementError, match="instances: found 0, expected at least 1"):
        Serving(instances=0)


def test_sizes_without_profile_fields_keep_one_profile_column() -> None:
    question = user_tower(Sizes(profile_fields=0).spec(), dim=5).question
    assert tuple(question) == INPUT_NAMES
    assert question["profile"].shape == (1, 1)


def test_an_onnx_tower_is_placed_only_beside_the_training_it_was_exported_from(
    training: Training, towers: Path, tmp_path: Path
) -> None:
    example = tensors(random_inputs(training.sizes, 2))
    export_onnx(training.tower, example, towers / "user_tower.onnx", fingerprint="0" * 16)
    with pytest.raises(PlacementError, match=f"found {'0' * 16}, expected {training.spec.fingerprint}"):
        place(USER_TOWER, towers, tmp_path / "models")
    export_onnx(training.tower, example, towers / "user_tower.onnx", fingerprint=training.spec.fingerprint)
    name = place(USER_TOWER, towers, tmp_path / "models")
    assert (tmp_path / "models" / name / "1" / "user_tower.onnx").exists()


def test_a_placed_text_encoder_says_its_dimension(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 384}))
    (encoder / "model.safetensors").write_bytes(b"weights")
    (encoder / ".gitattributes").touch()
    assert place(TEXT_ENCODER, encoder, tmp_path / "models") == "text_encoder"
    model = tmp_path / "models" / "text_encoder"
    assert list(read(model / "config.pbtxt").output[0].dims) == [384]
    assert sorted(path.name for path in (model / "1" / "encoder").iterdir()) == ["config.json", "model.safetensors"]


def test_a_placed_interest_gpt_says_which_it_is_and_its_bounds(tuned: Path, tmp_path: Path) -> None:
    name = place(INTEREST_GPT, tuned, tmp_path, Serving(gpu=True, llm_threads=3))
    spec = model.read_spec(tuned)
    config = read(tmp_path / name / "config.pbtxt")
    assert (name, config.name) == (spec.model_name, spec.model_name)
    assert config.max_batch_size == 12
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 12]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "fingerprint": spec.fingerprint, "base": "random", "prompt_style": "chat", "max_prompt_tokens": "924",
        "max_new_tokens": "100", "threads": "3",
    }  # fmt: skip
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, group.KIND_GPU)


def test_a_placed_interest_gpt_stands_alone(tuned: Path, tmp_path: Path) -> None:
    version = tmp_path / place(INTEREST_GPT, tuned, tmp_path) / "1"
    assert {path.name for path in version.iterdir()} - {"__pycache__"} == {
        "category_trie.py", "decoding.py", "generation.py", "instructions.txt", "model", "model.py", "naming.json",
        "prompts.py", "python_backend.py", "weights.py",
    }  # fmt: skip
    naming = json.loads((version / "naming.json").read_text())
    proposal = Proposal("a seed", "a demand", "an interest", CATEGORIES[2])
    written = naming["opening"] + naming["names"][2] + naming["ending"]
    assert write_answer([proposal], CATEGORY_FIRST).startswith(written)
    assert (version / "instructions.txt").read_text() == INSTRUCTIONS
    assert model.read_spec(version / "model") == model.read_spec(tuned)
    for code in version.glob("*.py"):
        # What is imported for types alone is indented.
        assert not re.search(r"^(import|from) serendipity", code.read_text(), re.MULTILINE)


def test_what_a_model_was_trained_on_is_not_placed(interest_gpt: Path, tmp_path: Path) -> None:
    (interest_gpt / "dataset").mkdir()
    (interest_gpt / "dataset" / "dataset.parquet").write_bytes(b"what users did")
    (interest_gpt / ".stamp.json").write_text("{}")
    placed = tmp_path / "models" / place(INTEREST_GPT, interest_gpt, tmp_path / "models") / "1" / "model"
    assert {path.name for path in placed.iterdir()} == {
        path.name for path in interest_gpt.iterdir() if path.name not in ("dataset", ".stamp.json")
    }


def test_placed_llms_say_which_they_are_and_their_bounds(llms: Path, tmp_path: Path) -> None:
    spec = group_model.read_coevolution_spec(llms)
    serving = Serving(gpu=True, llm_threads=3)
    names = [place(kind, llms, tmp_path, serving) for kind in (NOVELTY_LLM, RELEVANCE_LLM)]
    assert names == [spec.novelty_model_name, spec.relevance_model_name]
    for name, fingerprint in zip(names, (spec.novelty_fingerprint, spec.relevance_fingerprint), strict=True):
        config = read(tmp_path / name / "config.pbtxt")
        assert (config.name, config.max_batch_size) == (name, 12)
        assert list(config.dynamic_batching.preferred_batch_size) == [8, 12]
        assert {key: value.string_value for key, value in config.parameters.items()} == {
            "fingerprint": fingerprint, "base": "random", "prompt_style": "compact", "max_prompt_tokens": "960",
            "threads": "3",
        }  # fmt: skip
        (group,) = config.instance_group
        assert (group.count, group.kind) == (1, group.KIND_GPU)


def test_placed_llms_stand_alone(llms: Path, tmp_path: Path) -> None:
    novelty, relevance = (tmp_path / place(kind, llms, tmp_path) / "1" for kind in (NOVELTY_LLM, RELEVANCE_LLM))
    shared = {"decoding.py", "instructions.txt", "model", "model.py", "prompts.py", "python_backend.py", "weights.py"}
    found = [{path.name for path in version.iterdir()} - {"__pycache__"} for version in (novelty, relevance)]
    assert found == [shared | {"answers.json", "category_trie.py", "ranking.py"}, shared | {"scoring.py"}]
    assert json.loads((novelty / "answers.json").read_text()) == [answer(name, "compact") for name in NOVEL_CATEGORIES]
    assert (novelty / "instructions.txt").read_text() == NOVELTY_INSTRUCTIONS
    assert (relevance / "instructions.txt").read_text() == RELEVANCE_INSTRUCTIONS


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_at_all_are_refused(threads: int) -> None:
    with pytest.raises(PlacementError, match=f"llm_threads: found {threads}, expected at least 1"):
        Serving(llm_threads=threads)


@pytest.mark.parametrize(
    ("model", "output", "right", "wrong", "found"),
    [
        (user_tower(Sizes().spec(), 5), "user_vectors", np.ones((1, 2, 5)), np.ones((1, 2, 6)), r"shape \(1, 2, 6\)"),
        (user_tower(Sizes().spec(), 5), "user_vectors", np.ones((1, 2, 5)), np.full((1, 2, 5), np.inf), "not finite"),
        (text_encoder(3), "embeddings", np.ones((1, 3)), np.ones((1, 4)), r"shape \(1, 4\), expected \(1, 3\)"),
        (interest_gpt(records_pb2.InterestGptSpec()), "log_likelihoods", b"[0, -100]", b"[0, 0]", "2 together"),
        (novelty_llm(records_pb2.CoevolutionSpec()), "proposals", b'[["tea", -1.0]]', b"[]", r"'\[\]', expected one"),
        (relevance_llm(records_pb2.CoevolutionSpec()), "score", np.ones((1, 1)), np.array([[np.nan]]), "not finite"),
    ],
)
def test_an_answer_that_is_none_is_told_from_one(
    model: ServedModel, output: str, right: object, wrong: object, found: str
) -> None:
    model.answer[output](np.array(right, object if isinstance(right, bytes) else None))
    with pytest.raises(ValueError, match=f"found .*{found}"):
        model.answer[output](np.array(wrong, object if isinstance(wrong, bytes) else None))
