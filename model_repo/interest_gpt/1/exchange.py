"""InterestGPT's requests and responses: what a Triton request asks, and what it is answered.

Stands alone, in Triton's Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from prompts import (  # type: ignore[import-not-found]  # beside this file
    Answer,
    Limits,
    Prompt,
    PromptError,
    Prompts,
    fingerprint,
)

WEIGHTS = "model"
SCHEMA = "answer_schema.json"
INSTRUCTIONS = "instructions.txt"


@dataclass(frozen=True)
class Batch:
    """The prompts of one request; of each, whether its answer is constrained, and what categories it must not name."""

    prompts: list[Prompt]
    constrained: list[bool]
    excluded: list[frozenset[str]]


def check_numpy() -> None:
    """Raise TritonModelException where the Python backend hands BYTES tensors over empty, without an error."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise pb_utils.TritonModelException(
            f"numpy: found {np.__version__}, expected below 2 in the environment of Triton's Python backend"
        )


def check_fingerprint(version: Path, parameters: dict[str, str]) -> None:
    """Compare the parameter `fingerprint`, if there is one, with that of the files. Raises ValueError."""
    expected = parameters.get("fingerprint")
    if expected is not None and (found := fingerprint(version / WEIGHTS)) != expected:
        raise ValueError(f"fingerprint: found {found}, expected {expected}")


def open_prompts(version: Path, parameters: dict[str, str]) -> Prompts:
    """Read how prompts are written from a version's directory. Raises ValueError or OSError naming what is wrong."""
    limits = Limits(int(parameters["max_prompt_tokens"]), int(parameters["max_new_tokens"]))
    instructions = (version / INSTRUCTIONS).read_text(encoding="utf-8")
    return Prompts(version / WEIGHTS, parameters["prompt_style"], instructions, limits)


def read_batches(requests: Sequence[Any], write: Callable[[str], Prompt]) -> tuple[list[Batch | None], list[Any]]:
    """Read requests: for each either its batch, or the response to one that cannot be answered."""
    batches: list[Batch | None] = []
    refusals: list[Any] = []
    for request in requests:
        try:
            batches.append(_batch(request, write))
            refusals.append(None)
        except ValueError as error:
            batches.append(None)
            refusals.append(failure(error, pb_utils.TritonError.INVALID_ARG))
    return batches, refusals


def response(answers: Sequence[Answer]) -> Any:
    """Make the response to a request from the answers to its prompts."""
    columns = {
        "answer": np.array([answer.text.encode() for answer in answers], np.object_),
        "prompt_tokens": np.array([answer.prompt_tokens for answer in answers], np.int32),
        "completion_tokens": np.array([answer.completion_tokens for answer in answers], np.int32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, column[:, None]) for name, column in columns.items()])


def failure(error: Exception, code: int) -> Any:
    """Make the response to a request that failed."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error), code))


def _batch(request: Any, write: Callable[[str], Prompt]) -> Batch:
    """Read a request's prompts. Raises ValueError naming the one that cannot be answered."""
    cells = pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy().reshape(-1)
    wishes = pb_utils.get_input_tensor_by_name(request, "constrained")
    constrained = [True] * len(cells) if wishes is None else wishes.as_numpy().reshape(-1).astype(bool).tolist()
    named = pb_utils.get_input_tensor_by_name(request, "excluded")
    excluded = [_names(cell) for cell in named.as_numpy().reshape(-1)] if named else [frozenset[str]()] * len(cells)
    prompts = []
    for place, cell in enumerate(cells):
        try:
            prompts.append(write(cell.decode()))
        except (PromptError, UnicodeDecodeError) as error:
            raise ValueError(f"prompt {place}: {error}") from error
    return Batch(prompts, constrained, excluded)


def _names(cell: bytes) -> frozenset[str]:
    try:
        names = json.loads(cell)
    except ValueError as error:
        raise ValueError(f"excluded: found {cell[:60]!r}, expected a JSON list of categories") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"excluded: found {cell[:60]!r}, expected a JSON list of categories")
    return frozenset(names)
