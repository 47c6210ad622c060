"""The kinds of models that Triton runs: what is placed of each, what it must report, what it is asked, what it answers.

Everything that tells one kind from another stands here, and the table of those that snapshots pin at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity import features
from serendipity.groups import model as group_model
from serendipity.groups import prompt as group_prompt
from serendipity.interests import answer, prompt
from serendipity.interests import model as interest_model
from serendipity.tools.serving import trainings
from serendipity.tools.serving.trainings import PlacementError
from serendipity.v1 import records_pb2

Check = Callable[[NDArray[Any]], None]
"""Raises ValueError for an output that is no answer, saying what was found and what was expected."""

_INTEREST_GPT = "model_repo/interest_gpt/1"
_BACKEND_CODE = (f"{_INTEREST_GPT}/prompts.py", f"{_INTEREST_GPT}/python_backend.py")
_LLM_CODE = (*_BACKEND_CODE, f"{_INTEREST_GPT}/weights.py")
_ROUNDING = 1e-2
_DECODING_CODE = ("groups/decoding.py", "groups/category_trie.py")
_INSTRUCTIONS = "instructions.txt"


@dataclass(frozen=True)
class Serving:
    """How Triton runs what is placed. Raises PlacementError for numbers below 1.

    instances: of the user tower and the text encoder, per GPU where gpu is true, else in all; None: as checked in. A
    language model has one instance, which holds all of it. llm_threads: of each language model on CPUs; None: as
    checked in.
    """

    instances: int | None = None
    gpu: bool = False
    llm_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("instances", "llm_threads"):
            found = getattr(self, name)
            if found is not None and found < 1:
                raise PlacementError(f"{name}: found {found}, expected at least 1")


AS_CHECKED_IN = Serving()


@dataclass(frozen=True)
class ServedModel:
    """One model on Triton: how it is placed, and how it shows that it is the one that is meant and works.

    source: of model_repo, whose code and configuration it has. files: of its version, by path, what is copied or
    written beside the code, given the directory of its training; raises PlacementError.
    modules: of this package, placed beside the code. reported: parameters that it is placed with and must report, the
    fingerprint first; parameters: further ones. question: inputs of one row that any model of its kind can answer.
    answer: checks of outputs. sizes: of tensors, without the batch dimension, where they are not the question's.
    warm_up: with zeros, for one user and for a full batch. None: as checked in.
    """

    name: str
    source: str
    files: Callable[[Path], Mapping[str, Path | str]]
    modules: Sequence[str] = ()
    reported: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    question: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    answer: Mapping[str, Check] = field(default_factory=dict)
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    warm_up: bool = False
    max_batch: int | None = None
    instances: int | None = None
    gpu: bool = False


def user_tower(spec: records_pb2.TowerSpec, dim: int, serving: Serving = AS_CHECKED_IN) -> ServedModel:
    """The user tower, asked for a user without history and with one interest. dim: of the item vectors."""

    def files(training: Path) -> dict[str, Path | str]:
        if serving.gpu and (training / trainings.TOWER_PROGRAM).exists():
            return {trainings.TOWER_PROGRAM: training / trainings.TOWER_PROGRAM}
        return {trainings.TOWER_ONNX: trainings.onnx_tower(training, spec.fingerprint)}

    return ServedModel(
        spec.model_name,
        "user_tower",
        files,
        reported={"fingerprint": spec.fingerprint},
        question=features.canary(spec).arrays(),
        answer={features.OUTPUT_NAME: partial(_expect_finite, (1, 2, dim))},
        # As many interests as a request has.
        sizes={"interests": (-1, spec.interest_dim), features.OUTPUT_NAME: (-1, dim)},
        warm_up=True,
        instances=serving.instances,
        gpu=serving.gpu,
    )


def text_encoder(dim: int, serving: Serving = AS_CHECKED_IN) -> ServedModel:
    """The text encoder, asked to embed a text. dim: of its embeddings."""
    return ServedModel(
        "text_encoder",
        "text_encoder",
        lambda training: _files(training, "encoder", "**/*"),
        (*_BACKEND_CODE, "sentence_encoder.py"),
        question={"texts": _cell("a text")},
        answer={"embeddings": partial(_expect_finite, (1, dim))},
        sizes={"embeddings": (dim,)},
        instances=serving.instances,
        gpu=serving.gpu,
    )


def interest_gpt(spec: records_pb2.InterestGptSpec, serving: Serving = AS_CHECKED_IN) -> ServedModel:
    """InterestGPT, asked how likely each category is for a user of whom nothing is known."""
    reported = ("fingerprint", "base", "prompt_style", "max_prompt_tokens", "max_new_tokens")

    def files(training: Path) -> dict[str, Path | str]:
        categories = trainings.read_categories(training / interest_model.CATEGORIES)
        names = [answer.named(category) for category in categories]
        naming = {"opening": answer.NAMING, "ending": answer.NAMED, "names": names}
        texts = {"naming.json": json.dumps(naming, ensure_ascii=False), _INSTRUCTIONS: prompt.INSTRUCTIONS}
        return {**texts, **_files(training, "model")}

    return ServedModel(
        spec.model_name,
        "interest_gpt",
        files,
        _DECODING_CODE,
        reported={name: str(getattr(spec, name)) for name in reported},
        parameters={"threads": serving.llm_threads},
        question={
            interest_model.PROMPT: _cell(prompt.render(prompt.UserFacts(), _style(spec))),
            interest_model.CANDIDATES: _cell("[]"),
        },
        answer={interest_model.LOG_LIKELIHOODS: _expect_likelihoods},
        max_batch=spec.max_batch,
        gpu=serving.gpu,
    )


def novelty_llm(spec: records_pb2.CoevolutionSpec, serving: Serving = AS_CHECKED_IN) -> ServedModel:
    """The Novelty LLM, asked for one category for a user of whom nothing is known."""

    def files(training: Path) -> dict[str, Path | str]:
        weights = training / group_model.NOVELTY
        categories = trainings.read_categories(weights / group_model.CATEGORIES)
        answers = [group_prompt.answer(category, _style(spec)) for category in categories]
        texts = {"answers.json": json.dumps(answers, ensure_ascii=False)}
        return {**texts, _INSTRUCTIONS: group_prompt.NOVELTY_INSTRUCTIONS, **_files(weights, "model")}

    return ServedModel(
        spec.novelty_model_name,
        "novelty_llm",
        files,
        (*_LLM_CODE, *_DECODING_CODE),
        reported=_reported_by_llm(spec, spec.novelty_fingerprint),
        parameters={"threads": serving.llm_threads},
        question={
            group_model.PROMPT: _cell(group_prompt.novelty_prompt("", [], _style(spec))),
            group_model.COUNT: np.ones((1, 1), np.int32),
        },
        answer={group_model.PROPOSALS: _expect_one_category},
        max_batch=spec.max_batch,
        gpu=serving.gpu,
    )


def relevance_llm(spec: records_pb2.CoevolutionSpec, serving: Serving = AS_CHECKED_IN) -> ServedModel:
    """The Relevance LLM, asked about a candidate for a user of whom nothing is known."""

    def files(training: Path) -> dict[str, Path | str]:
        weights = _files(training / group_model.RELEVANCE, "model")
        return {_INSTRUCTIONS: group_prompt.RELEVANCE_INSTRUCTIONS, **weights}

    return ServedModel(
        spec.relevance_model_name,
        "relevance_llm",
        files,
        (*_LLM_CODE, "groups/decoding.py"),
        reported=_reported_by_llm(spec, spec.relevance_fingerprint),
        parameters={"threads": serving.llm_threads},
        question={group_model.PROMPT: _cell(group_prompt.relevance_prompt("", [], "", _style(spec)))},
        answer={group_model.SCORE: partial(_expect_finite, (1, 1))},
        max_batch=spec.max_batch,
        gpu=serving.gpu,
    )


def _files(source: Path, target: str, pattern: str = "*") -> dict[str, Path]:
    """Files to be placed in the directory `target`, hidden ones apart.

    Directories beside a language model are what it was trained on and checkpoints: none of Triton's business.
    """
    paths = {path.relative_to(source): path for path in source.glob(pattern) if path.is_file()}
    return {f"{target}/{name}": paths[name] for name in paths if not any(part[0] == "." for part in name.parts)}


def _reported_by_llm(spec: records_pb2.CoevolutionSpec, fingerprint: str) -> dict[str, str]:
    shared = {name: str(getattr(spec, name)) for name in ("base", "prompt_style", "max_prompt_tokens")}
    return {"fingerprint": fingerprint, **shared}


def _style(spec: records_pb2.InterestGptSpec | records_pb2.CoevolutionSpec) -> prompt.PromptStyle:
    return "chat" if spec.prompt_style == "chat" else "compact"


def _cell(text: str) -> NDArray[np.object_]:
    return np.array([[text.encode()]], np.object_)


def _expect_finite(shape: tuple[int, ...], values: NDArray[Any]) -> None:
    if values.shape != shape:
        raise ValueError(f"found shape {values.shape}, expected {shape}")
    if not np.isfinite(values).all():
        raise ValueError("found numbers that are not finite, expected finite ones")


def _expect_likelihoods(values: NDArray[Any]) -> None:
    total = float(np.exp(np.array(json.loads(values.item()), np.float64)).sum())
    if not abs(total - 1) < _ROUNDING:
        raise ValueError(f"found probabilities of {total:g} together, expected 1")


def _expect_one_category(values: NDArray[Any]) -> None:
    found = json.loads(values.item())
    if not isinstance(found, list) or len(found) != 1:
        raise ValueError(f"found {str(found)[:60]!r}, expected one category")


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    prefix: how the names of its models begin; the fingerprint follows. training: directory of a build that has it.
    trained: the model of such a directory; raises PlacementError. pinned: the model of a manifest; None where it pins
    none, as one that is older than the kind.
    """

    prefix: str
    training: str
    trained: Callable[[Path, Serving], ServedModel]
    pinned: Callable[[records_pb2.Manifest], ServedModel | None]


USER_TOWER = Kind(
    features.TOWER_MODEL_PREFIX,
    "towers",
    lambda training, serving: user_tower(*trainings.read_tower(training), serving),
    lambda manifest: user_tower(manifest.tower, manifest.vector_index.dim),
)
INTEREST_GPT = Kind(
    interest_model.MODEL_PREFIX,
    "interest_gpt",
    lambda training, serving: interest_gpt(trainings.read_interest_gpt(training), serving),
    lambda manifest: interest_gpt(manifest.interest_gpt) if manifest.HasField("interest_gpt") else None,
)
NOVELTY_LLM = Kind(
    group_model.NOVELTY_PREFIX,
    "coevolution",
    lambda training, serving: novelty_llm(trainings.read_coevolution(training), serving),
    lambda manifest: novelty_llm(manifest.coevolution) if manifest.HasField("coevolution") else None,
)
RELEVANCE_LLM = Kind(
    group_model.RELEVANCE_PREFIX,
    "coevolution",
    lambda training, serving: relevance_llm(trainings.read_coevolution(training), serving),
    lambda manifest: relevance_llm(manifest.coevolution) if manifest.HasField("coevolution") else None,
)
PINNED = (USER_TOWER, INTEREST_GPT, NOVELTY_LLM, RELEVANCE_LLM)
"""The kinds that snapshots pin."""

TEXT_ENCODER = Kind(
    "text_encoder",
    "text_encoder",
    lambda training, serving: text_encoder(trainings.embedding_dimension(training), serving),
    lambda _: None,
)
"""One for all snapshots: its models have no fingerprint."""
