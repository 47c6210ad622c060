"""InterestGPT in Triton's Python backend: user messages in, latent interests as JSON out, one batch per execution.

Stands alone, like every file of this repository. Beside it lie the modules it imports, and, put there when the model
is placed, constraint.py, answer_schema.json, instructions.txt and the language model in model/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from generation import Generation  # type: ignore[import-not-found]  # beside this file
from prompts import Answer, read_json  # type: ignore[import-not-found]  # beside this file
from python_backend import (  # type: ignore[import-not-found]  # beside this file
    LanguageModel,
    Version,
    column,
    read_excluded,
    read_prompts,
)

SCHEMA = "answer_schema.json"


@dataclass(frozen=True)
class Batch:
    """The prompts of one request in tokens; of each, if its answer is constrained, and categories it must not name."""

    prompts: list[list[int]]
    constrained: list[bool]
    excluded: list[frozenset[str]]


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the model."""

    def load(self, version: Version) -> None:
        """Load model and grammar."""
        self._prompts = version.prompts(int(version.parameters["max_new_tokens"]), cut=True)
        schema = read_json(version.directory / SCHEMA)
        self._generation = Generation(version.weights, self._prompts, schema, version.device)

    def read(self, request: Any) -> Batch:
        """Read what a request asks. Raises ValueError naming what cannot be answered."""
        prompts = read_prompts(request, self._prompts.write)
        wishes = column(request, "constrained")
        constrained = [True] * len(prompts) if wishes is None else wishes.astype(bool).tolist()
        return Batch(prompts, constrained, read_excluded(request, len(prompts)))

    def answer(self, batches: Sequence[Batch]) -> list[Any]:
        """Answer the prompts of all requests as one batch."""
        answers = iter(
            self._generation.generate(
                [prompt for batch in batches for prompt in batch.prompts],
                [wish for batch in batches for wish in batch.constrained],
                [names for batch in batches for names in batch.excluded],
            )
        )
        return [_response([next(answers) for _ in batch.prompts]) for batch in batches]


def _response(answers: Sequence[Answer]) -> Any:
    columns = {
        "answer": np.array([answer.text.encode() for answer in answers], np.object_),
        "prompt_tokens": np.array([answer.prompt_tokens for answer in answers], np.int32),
        "completion_tokens": np.array([answer.completion_tokens for answer in answers], np.int32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values[:, None]) for name, values in columns.items()])
