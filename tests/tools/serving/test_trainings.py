"""Trainings that cannot be served: what is wrong with them is named, and nothing of them is placed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serendipity.groups import model as group_model
from serendipity.interests import model
from serendipity.tools.serving.deployment import place
from serendipity.tools.serving.kinds import (
    INTEREST_GPT,
    NOVELTY_LLM,
    RELEVANCE_LLM,
    TEXT_ENCODER,
    USER_TOWER,
)
from serendipity.tools.serving.trainings import PlacementError


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_weights_that_are_not_those_of_the_spec_are_refused(towers: Path, tmp_path: Path) -> None:
    with (towers / "user_tower.pt2").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PlacementError, match=r"user_tower\.pt2: fingerprint: found [0-9a-f]{16}, expected"):
        place(USER_TOWER, towers, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_model_name_that_is_not_the_fingerprints_is_refused(towers: Path, tmp_path: Path) -> None:
    spec = json.loads((towers / "tower.json").read_text())
    (towers / "tower.json").write_text(json.dumps({**spec, "model_name": "user_tower"}))
    with pytest.raises(PlacementError, match="model_name: found 'user_tower', expected user_tower_"):
        place(USER_TOWER, towers, tmp_path / "models")


@pytest.mark.parametrize("missing", ["tower.json", "user_tower.pt2", "item_vectors.npy"])
def test_a_missing_file_of_the_training_is_named(towers: Path, tmp_path: Path, missing: str) -> None:
    (towers / missing).unlink()
    if missing == "user_tower.pt2":
        # With its ONNX beside it this would be a host's own tower.
        (towers / "user_tower.onnx").unlink()
    with pytest.raises(PlacementError, match=missing):
        place(USER_TOWER, towers, tmp_path / "models")


def test_a_failed_placement_leaves_nothing_behind(towers: Path, tmp_path: Path) -> None:
    (towers / "user_tower.onnx").unlink()
    (towers / "user_tower.onnx").mkdir()
    with pytest.raises(PlacementError, match=r"user_tower\.onnx: missing"):
        place(USER_TOWER, towers, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_encoder_of_unknown_dimension_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(PlacementError, match="hidden_size: found None, expected"):
        place(TEXT_ENCODER, tmp_path, tmp_path / "models")


def test_weights_of_another_interest_gpt_are_refused(interest_gpt: Path, tmp_path: Path) -> None:
    with (interest_gpt / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PlacementError, match=r"interest_gpt\.json: fingerprint: found '[0-9a-f]{16}', expected"):
        place(INTEREST_GPT, interest_gpt, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("modelName", "interest_gpt", "model_name: found 'interest_gpt', expected interest_gpt_[0-9a-f]{16}"),
        ("promptStyle", "prose", "prompt_style: found 'prose', expected one of compact, chat"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused(
    interest_gpt: Path, tmp_path: Path, field: str, value: object, expected: str
) -> None:
    change(interest_gpt / model.SPEC, **{field: value})
    with pytest.raises(PlacementError, match=rf"interest_gpt\.json: {expected}"):
        place(INTEREST_GPT, interest_gpt, tmp_path / "models")


@pytest.mark.parametrize(
    ("content", "found"),
    [("{", "cannot be read"), ('{"a": 1}', "cannot be read")],
)
def test_categories_that_are_none_are_refused(interest_gpt: Path, tmp_path: Path, content: str, found: str) -> None:
    (interest_gpt / model.CATEGORIES).write_text(content)
    fingerprint = model.fingerprint(interest_gpt)
    change(interest_gpt / model.SPEC, fingerprint=fingerprint, modelName=model.MODEL_PREFIX + fingerprint)
    with pytest.raises(PlacementError, match=rf"categories\.json: {found}"):
        place(INTEREST_GPT, interest_gpt, tmp_path / "models")


@pytest.mark.parametrize("missing", [model.SPEC, model.CATEGORIES, "tokenizer.json", "model.safetensors"])
def test_a_missing_file_of_an_interest_gpt_is_named(interest_gpt: Path, tmp_path: Path, missing: str) -> None:
    (interest_gpt / missing).unlink()
    with pytest.raises(PlacementError, match=missing.removeprefix("model")):
        place(INTEREST_GPT, interest_gpt, tmp_path / "models")


def test_a_directory_that_is_no_interest_gpt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"interest_gpt\.json: cannot be read"):
        place(INTEREST_GPT, tmp_path, tmp_path / "models")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("noveltyModelName", "novelty", "novelty_model_name: found 'novelty', expected novelty_llm_[0-9a-f]{16}"),
        ("relevanceModelName", "", "relevance_model_name: found '', expected relevance_llm_[0-9a-f]{16}"),
        ("relevanceFingerprint", "", "relevance_fingerprint: found '', expected"),
        ("promptStyle", "prose", "prompt_style: found 'prose', expected one of compact, chat"),
    ],
)
def test_llms_that_cannot_be_served_are_refused(
    coevolution: Path, tmp_path: Path, field: str, value: object, expected: str
) -> None:
    change(coevolution / group_model.COEVOLUTION_SPEC, **{field: value})
    for llm in (NOVELTY_LLM, RELEVANCE_LLM):
        with pytest.raises(PlacementError, match=rf"coevolution\.json: {expected}"):
            place(llm, coevolution, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("missing", ["tokenizer.json", "categories.json", "model.safetensors"])
@pytest.mark.parametrize("kind", [group_model.NOVELTY, group_model.RELEVANCE])
def test_a_missing_file_of_an_llm_is_named(coevolution: Path, tmp_path: Path, kind: str, missing: str) -> None:
    (coevolution / kind / missing).unlink()
    for llm in (NOVELTY_LLM, RELEVANCE_LLM):
        with pytest.raises(PlacementError, match=rf"{kind}.*{missing.removeprefix('model')}"):
            place(llm, coevolution, tmp_path / "models")
