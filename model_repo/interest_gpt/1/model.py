"""InterestGPT in Triton's Python backend: user messages in, likelihoods of candidates or written interests out.

Stands alone, like every file of this repository. Beside it lie the modules it imports, and, put there when the model
is placed, decoding.py, category_trie.py, naming.json, instructions.txt and the language model in model/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from generation import Generation  # type: ignore[import-not-found]  # beside this file
from prompts import CATEGORIES, Answer, read_json  # type: ignore[import-not-found]  # beside this file
from python_backend import (  # type: ignore[import-not-found]  # beside this file
    LanguageModel,
    Version,
    read_names,
    read_prompts,
)

NAMING = "naming.json"


@dataclass(frozen=True)
class Batch:
    """The prompts of one request in tokens; of each, numbers of the categories whose likelihood is asked for.

    candidates: None where answers are to be written.
    """

    prompts: list[list[int]]
    candidates: list[list[int]] | None


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the model."""

    def load(self, version: Version) -> None:
        """Load the model and how it names categories."""
        self._prompts = version.prompts(int(version.parameters["max_new_tokens"]), cut=True)
        naming = read_json(version.directory / NAMING)
        self._numbers = {name: number for number, name in enumerate(read_json(version.weights / CATEGORIES))}
        self._generation = Generation(version.weights, self._prompts, naming, version.device)

    def read(self, request: Any) -> Batch:
        """Read what a request asks. Raises ValueError naming what cannot be answered."""
        prompts = read_prompts(request, self._prompts.write)
        candidates = read_names(request, "candidates")
        return Batch(prompts, None if candidates is None else [self._numbered(names) for names in candidates])

    def answer(self, batches: Sequence[Batch]) -> list[Any]:
        """Answer the prompts of all requests, those of a kind as one batch."""
        scored = [batch for batch in batches if batch.candidates is not None]
        candidates = [numbers for batch in scored for numbers in batch.candidates or ()]
        likelihoods = iter(self._generation.log_likelihoods(_prompts(scored), candidates) if scored else ())
        written = [batch for batch in batches if batch.candidates is None]
        answers = iter(self._generation.generate(_prompts(written)) if written else ())
        return [
            _answers([next(answers) for _ in batch.prompts])
            if batch.candidates is None
            else _likelihoods(batch.prompts, [next(likelihoods) for _ in batch.prompts])
            for batch in batches
        ]

    def _numbered(self, names: Sequence[str]) -> list[int]:
        """Number categories; all of them where none is named."""
        for name in names:
            if name not in self._numbers:
                raise ValueError(f"candidates: found {name!r}, expected a category of the model")
        return [self._numbers[name] for name in names or self._numbers]


def _prompts(batches: Sequence[Batch]) -> list[list[int]]:
    return [prompt for batch in batches for prompt in batch.prompts]


def _likelihoods(prompts: Sequence[Sequence[int]], found: Sequence[Sequence[float]]) -> Any:
    return _response(
        log_likelihoods=np.array([json.dumps(row).encode() for row in found], np.object_),
        prompt_tokens=np.array([len(prompt) for prompt in prompts], np.int32),
    )


def _answers(answers: Sequence[Answer]) -> Any:
    return _response(
        answer=np.array([answer.text.encode() for answer in answers], np.object_),
        prompt_tokens=np.array([answer.prompt_tokens for answer in answers], np.int32),
        completion_tokens=np.array([answer.completion_tokens for answer in answers], np.int32),
    )


def _response(**columns: Any) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values[:, None]) for name, values in columns.items()])
