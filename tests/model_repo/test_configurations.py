"""The model repository as it is checked in: complete configurations that agree with the shared definitions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from serendipity.features import INPUT_NAMES, OUTPUT_NAME
from serendipity.groups import model as group_model
from serendipity.interests.model import ANSWER, CANDIDATES, COMPLETION_TOKENS, LOG_LIKELIHOODS, PROMPT, PROMPT_TOKENS
from serendipity.interests.prompt import STYLES
from serendipity.tools.serving.repository import MODEL_REPOSITORY
from serendipity.tools.serving.repository import template as read

MODELS = sorted(path.parent.name for path in MODEL_REPOSITORY.glob("*/config.pbtxt"))


def test_every_model_has_a_configuration() -> None:
    assert {
        "interest_gpt", "user_tower", "text_encoder", "novelty_llm", "relevance_llm",
    } <= set(MODELS)  # fmt: skip
    assert sorted(path.name for path in MODEL_REPOSITORY.iterdir() if path.is_dir()) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_every_model_batches_bounds_its_queue_and_keeps_one_version(name: str) -> None:
    config = read(name)
    assert config.max_batch_size > 1
    policy = config.dynamic_batching.default_queue_policy
    assert 0 < policy.max_queue_size <= 1024
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds > 0
    assert policy.allow_timeout_override
    assert config.version_policy.latest.num_versions == 1
    # A delay, several instances and a queue policy together make the batcher lose track of idle instances.
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


def test_the_tower_takes_the_feature_assemblers_inputs() -> None:
    config = read("user_tower")
    assert tuple(tensor.name for tensor in config.input) == INPUT_NAMES
    floats = {t.name for t in config.input if t.data_type == model_config_pb2.TYPE_FP16}
    integers = {t.name for t in config.input if t.data_type == model_config_pb2.TYPE_INT32}
    assert floats == {"interests"}
    assert floats | integers == set(INPUT_NAMES)
    assert [tensor.name for tensor in config.output] == [OUTPUT_NAME]


def test_the_tower_has_an_instance_to_spare() -> None:
    # With one, a request that comes while it turns around waits for the batcher's poll: 500 ms.
    (group,) = read("user_tower").instance_group
    assert group.count >= 2


def test_users_with_different_numbers_of_interests_are_batched() -> None:
    assert [tensor.name for tensor in read("user_tower").input if tensor.allow_ragged_batch] == ["interests"]


def test_interest_gpt_takes_and_gives_what_the_contract_names() -> None:
    config = read("interest_gpt")
    assert [(tensor.name, tensor.optional) for tensor in config.input] == [
        (PROMPT, False),
        (CANDIDATES, True),
    ]
    outputs = [LOG_LIKELIHOODS, ANSWER, PROMPT_TOKENS, COMPLETION_TOKENS]
    assert [tensor.name for tensor in config.output] == outputs
    assert all(list(tensor.dims) == [1] for tensor in (*config.input, *config.output))
    assert max(config.dynamic_batching.preferred_batch_size) <= config.max_batch_size
    assert config.parameters["prompt_style"].string_value in STYLES


INT32, INT64 = model_config_pb2.TYPE_INT32, model_config_pb2.TYPE_INT64
FP32, STRING = model_config_pb2.TYPE_FP32, model_config_pb2.TYPE_STRING


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        (
            "novelty_llm",
            [
                (group_model.PROMPT, STRING, False),
                (group_model.EXCLUDED, STRING, True),
                (group_model.COUNT, INT32, False),
            ],
            [(group_model.PROPOSALS, STRING)],
        ),
        ("relevance_llm", [(group_model.PROMPT, STRING, False)], [(group_model.SCORE, FP32)]),
    ],
)
def test_the_models_of_groups_take_and_give_what_the_contract_names(
    name: str, inputs: list[tuple[str, int, bool]], outputs: list[tuple[str, int]]
) -> None:
    config = read(name)
    assert [(tensor.name, tensor.data_type, tensor.optional) for tensor in config.input] == inputs
    assert [(tensor.name, tensor.data_type) for tensor in config.output] == outputs


@pytest.mark.parametrize(
    "path", sorted(MODEL_REPOSITORY.glob("*/1/*.py")), ids=lambda p: f"{p.parent.parent.name}-{p.stem}"
)
def test_a_models_code_stands_alone(path: Path) -> None:
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert "serendipity" not in imported


def test_no_weights_lie_in_the_repository() -> None:
    kinds = {path.suffix for path in MODEL_REPOSITORY.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds <= {".pbtxt", ".py"}
