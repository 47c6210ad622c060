"""The models on Triton that a snapshot's manifest pins: one rule to place, load, check and unload all of them.

A kind of model is told by where a build keeps its training, how it is placed, what it must report and how it answers;
the rest of `serendip deploy` does not know one kind from another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity import features
from serendipity.groups import model as group_model
from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.interests import answer, prompt
from serendipity.interests import model as interest_gpt
from serendipity.tools import placement
from serendipity.v1 import records_pb2

Inputs = Mapping[str, NDArray[Any]]
Outputs = Mapping[str, NDArray[Any]]

PREFIXES = (
    features.TOWER_MODEL_PREFIX,
    interest_gpt.MODEL_PREFIX,
    group_model.GROUP_ENCODER_PREFIX,
    group_model.NOVELTY_PREFIX,
    group_model.RELEVANCE_PREFIX,
)
"""How the names of models begin that a snapshot can pin."""


class AnswerError(Exception):
    """A model's answer is not one: names the output, what was found and what was expected."""


@dataclass(frozen=True)
class ServingPlan:
    """How Triton runs the models that a snapshot pins. instances: of user tower and group encoder."""

    tower_backend: placement.Backend = "python"
    instances: placement.Instances = placement.AS_CHECKED_IN
    interest_gpt: placement.Serving = placement.AS_SERVED_HERE
    coevolution: placement.LanguageModelServing = placement.LLM_AS_CHECKED_IN


AS_SERVED_HERE = ServingPlan()


@dataclass(frozen=True)
class PinnedModel:
    """One model. reported: parameters it must report, by name, the fingerprint first.

    question: inputs of one row that every such model can answer; check: raises AnswerError for an answer that is none.
    """

    name: str
    reported: Mapping[str, str]
    question: Inputs
    outputs: Sequence[str]
    check: Callable[[Outputs], None]


@dataclass(frozen=True)
class PinnedTraining:
    """What one training of a build gave: one model or several.

    directory: below the build. trained: reads from it the names of the models it would place; place: places them.
    Both raise PlacementError. place is given the directory, the deployment repository and how they are to be run.
    """

    directory: str
    models: Sequence[PinnedModel]
    trained: Callable[[Path], Sequence[str]]
    place: Callable[[Path, Path, ServingPlan], object]


def pinned_trainings(manifest: records_pb2.Manifest) -> list[PinnedTraining]:
    """List what a manifest pins; a snapshot older than a kind of model pins none of that kind."""
    trainings = [
        PinnedTraining(
            "towers",
            [user_tower(manifest.tower, manifest.vector_index.dim)],
            lambda directory: [placement.read_spec(directory).model_name],
            lambda directory, models, plan: placement.place_user_tower(
                directory, models, plan.tower_backend, plan.instances
            ),
        )
    ]
    if manifest.HasField("interest_gpt"):
        trainings.append(
            PinnedTraining(
                "interest_gpt",
                [interest_gpt_model(manifest.interest_gpt)],
                lambda directory: [placement.read_interest_gpt_spec(directory).model_name],
                lambda directory, models, plan: placement.place_interest_gpt(directory, models, plan.interest_gpt),
            )
        )
    if manifest.HasField("groups"):
        trainings.append(
            PinnedTraining(
                "groups",
                [group_encoder(manifest.groups)],
                lambda directory: [placement.read_group_spec(directory).model_name],
                lambda directory, models, plan: placement.place_group_encoder(directory, models, plan.instances),
            )
        )
    if manifest.HasField("coevolution"):
        trainings.append(
            PinnedTraining(
                "coevolution",
                [novelty_llm(manifest.coevolution), relevance_llm(manifest.coevolution)],
                _trained_llms,
                lambda directory, models, plan: placement.place_coevolution_llms(directory, models, plan.coevolution),
            )
        )
    return trainings


def pinned_models(manifest: records_pb2.Manifest) -> list[PinnedModel]:
    """List the models that a manifest pins."""
    return [model for training in pinned_trainings(manifest) for model in training.models]


def place_pinned(
    manifest: records_pb2.Manifest, build_dir: Path, models_dir: Path, plan: ServingPlan = AS_SERVED_HERE
) -> list[str]:
    """Place every model that a manifest pins from the trainings of a build, and return their names.

    Raises PlacementError, also where a build's training is not the one that is pinned.
    """
    for training in pinned_trainings(manifest):
        directory = build_dir / training.directory
        for model, found in zip(training.models, training.trained(directory), strict=True):
            if found != model.name:
                raise placement.PlacementError(
                    f"{directory}: fingerprint: found {found.rpartition('_')[2]}, expected "
                    f"{model.reported['fingerprint']}, which snapshot {manifest.version} pins as {model.name}"
                )
        training.place(directory, models_dir, plan)
    return [model.name for model in pinned_models(manifest)]


def user_tower(spec: records_pb2.TowerSpec, dim: int) -> PinnedModel:
    """The tower, asked for a user without history. dim: of the snapshot's item vectors."""
    sizes = placement.input_sizes(spec).items()
    expected = (1, 1 + spec.max_interests, dim)

    def check(outputs: Outputs) -> None:
        vectors = outputs[features.OUTPUT_NAME]
        _expect_shape(features.OUTPUT_NAME, vectors, expected)
        if not np.isfinite(vectors).all():
            raise AnswerError("the vectors of a user without history are not finite")

    return PinnedModel(
        spec.model_name,
        {"fingerprint": spec.fingerprint},
        {name: np.zeros((1, *dims), np.float32 if name == "interests" else np.int32) for name, dims in sizes},
        (features.OUTPUT_NAME,),
        check,
    )


def interest_gpt_model(spec: records_pb2.InterestGptSpec) -> PinnedModel:
    """InterestGPT, asked for the interests of a user of whom nothing is known."""
    opening = answer.write_answer([]).removesuffix("]}")

    def check(outputs: Outputs) -> None:
        text = outputs[interest_gpt.ANSWER].item().decode("utf-8", "replace")
        if not text.startswith(opening):
            raise AnswerError(f"{interest_gpt.ANSWER}: found {text[:60]!r}, expected {opening} …")

    return PinnedModel(
        spec.model_name,
        {field: str(getattr(spec, field)) for field in placement.REPORTED},
        {interest_gpt.PROMPT: _cell(prompt.render(prompt.UserFacts(), _style(spec.prompt_style)))},
        (interest_gpt.ANSWER,),
        check,
    )


def group_encoder(spec: records_pb2.GroupSpec) -> PinnedModel:
    """The group encoder, asked for the group of a user without history."""
    sizes = placement.group_input_sizes(spec)

    def check(outputs: Outputs) -> None:
        for name, width, least, most in (
            (group_model.CSID, spec.num_quantizers, 0, spec.codebook_size - 1),
            (group_model.GROUP_ID, 1, 1, spec.num_groups),
        ):
            values = outputs[name]
            _expect_shape(name, values, (1, width))
            if not ((values >= least) & (values <= most)).all():
                raise AnswerError(f"{name}: found {values.tolist()}, expected {least} … {most}")

    return PinnedModel(
        spec.model_name,
        {"fingerprint": spec.fingerprint},
        {
            group_model.SEQUENCE: np.zeros((1, *sizes[group_model.SEQUENCE]), np.int64),
            group_model.PROFILE: np.zeros((1, *sizes[group_model.PROFILE]), np.int32),
        },
        (group_model.CSID, group_model.GROUP_ID),
        check,
    )


def novelty_llm(spec: records_pb2.CoevolutionSpec) -> PinnedModel:
    """The Novelty LLM, asked for one category for a user of whom nothing is known."""

    def check(outputs: Outputs) -> None:
        found = json.loads(outputs[group_model.PROPOSALS].item())
        if not isinstance(found, list) or len(found) != 1:
            raise AnswerError(f"{group_model.PROPOSALS}: found {str(found)[:60]!r}, expected one category")

    return PinnedModel(
        spec.novelty_model_name,
        placement.reported_by_llm(spec, group_model.NOVELTY),
        {
            group_model.PROMPT: _cell(novelty_prompt("", [], _style(spec.prompt_style))),
            group_model.COUNT: np.ones((1, 1), np.int32),
        },
        (group_model.PROPOSALS,),
        check,
    )


def relevance_llm(spec: records_pb2.CoevolutionSpec) -> PinnedModel:
    """The Relevance LLM, asked about a candidate for a user of whom nothing is known."""

    def check(outputs: Outputs) -> None:
        scores = outputs[group_model.SCORE]
        _expect_shape(group_model.SCORE, scores, (1, 1))
        if not np.isfinite(scores).all():
            raise AnswerError(f"{group_model.SCORE}: found {scores.item()}, expected a finite number")

    return PinnedModel(
        spec.relevance_model_name,
        placement.reported_by_llm(spec, group_model.RELEVANCE),
        {group_model.PROMPT: _cell(relevance_prompt("", [], "", _style(spec.prompt_style)))},
        (group_model.SCORE,),
        check,
    )


def _trained_llms(directory: Path) -> list[str]:
    spec = placement.read_coevolution_spec(directory)
    return [spec.novelty_model_name, spec.relevance_model_name]


def _style(name: str) -> prompt.PromptStyle:
    return "chat" if name == "chat" else "compact"


def _cell(text: str) -> NDArray[np.object_]:
    return np.array([[text.encode()]], np.object_)


def _expect_shape(name: str, values: NDArray[Any], expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise AnswerError(f"{name}: found shape {values.shape}, expected {expected}")
