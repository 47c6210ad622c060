"""InterestGPT's requests and responses: what a Triton request asks, and what it is answered.

Stands alone, in Triton's Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from prompts import Answer, Prompt, Prompts  # type: ignore[import-not-found]  # beside this file
from python_backend import (  # type: ignore[import-not-found]  # beside this file
    Version,
    column,
    read_excluded,
    read_prompts,
)

SCHEMA = "answer_schema.json"


@dataclass(frozen=True)
class Batch:
    """The prompts of one request; of each, whether its answer is constrained, and what categories it must not name."""

    prompts: list[Prompt]
    constrained: list[bool]
    excluded: list[frozenset[str]]


def open_prompts(version: Version) -> Prompts:
    """Read how a version's prompts are written. Raises ValueError or OSError naming what is wrong."""
    return version.prompts(int(version.parameters["max_new_tokens"]), cut=True)


def read_batch(request: Any, prompts: Prompts) -> Batch:
    """Read what a request asks. Raises ValueError naming what cannot be answered."""
    written = read_prompts(request, prompts.write)
    wishes = column(request, "constrained")
    constrained = [True] * len(written) if wishes is None else wishes.astype(bool).tolist()
    return Batch(written, constrained, read_excluded(request, len(written)))


def response(answers: Sequence[Answer]) -> Any:
    """Make the response to a request from the answers to its prompts."""
    columns = {
        "answer": np.array([answer.text.encode() for answer in answers], np.object_),
        "prompt_tokens": np.array([answer.prompt_tokens for answer in answers], np.int32),
        "completion_tokens": np.array([answer.completion_tokens for answer in answers], np.int32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values[:, None]) for name, values in columns.items()])
