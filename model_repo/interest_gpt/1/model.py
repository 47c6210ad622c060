"""InterestGPT in Triton's Python backend: user messages in, likelihoods of candidates or written interests out.

Stands alone, like every file of this repository. Beside it lie the modules it imports, and, put there when the model
is placed, constraint.py, decoding.py, category_trie.py, answer_schema.json, naming.json, instructions.txt and the
language model in model/.
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
    column,
    read_excluded,
    read_names,
    read_prompts,
)

SCHEMA = "answer_schema.json"
NAMING = "naming.json"


@dataclass(frozen=True)
class Scored:
    """The prompts of one request in tokens; of each, numbers of the categories whose likelihood is asked for."""

    prompts: list[list[int]]
    candidates: list[list[int]]


@dataclass(frozen=True)
class Written:
    """The prompts of one request in tokens; of each, if its answer is constrained, and categories it must not name."""

    prompts: list[list[int]]
    constrained: list[bool]
    excluded: list[frozenset[str]]


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the model."""

    def load(self, version: Version) -> None:
        """Load model, grammar and categories."""
        self._prompts = version.prompts(int(version.parameters["max_new_tokens"]), cut=True)
        schema = read_json(version.directory / SCHEMA)
        naming = read_json(version.directory / NAMING)
        self._numbers = {name: number for number, name in enumerate(read_json(version.weights / CATEGORIES))}
        self._generation = Generation(version.weights, self._prompts, schema, naming, version.device)

    def read(self, request: Any) -> Scored | Written:
        """Read what a request asks. Raises ValueError naming what cannot be answered."""
        prompts = read_prompts(request, self._prompts.write)
        candidates = read_names(request, "candidates")
        if candidates is not None:
            return Scored(prompts, [self._numbered(names) for names in candidates])
        wishes = column(request, "constrained")
        constrained = [True] * len(prompts) if wishes is None else wishes.astype(bool).tolist()
        return Written(prompts, constrained, read_excluded(request, len(prompts)))

    def answer(self, batches: Sequence[Scored | Written]) -> list[Any]:
        """Answer the prompts of all requests, those of a kind as one batch."""
        scored = [batch for batch in batches if isinstance(batch, Scored)]
        written = [batch for batch in batches if isinstance(batch, Written)]
        likelihoods = iter(
            self._generation.log_likelihoods(
                [prompt for batch in scored for prompt in batch.prompts],
                [numbers for batch in scored for numbers in batch.candidates],
            )
            if scored
            else ()
        )
        answers = iter(
            self._generation.generate(
                [prompt for batch in written for prompt in batch.prompts],
                [wish for batch in written for wish in batch.constrained],
                [names for batch in written for names in batch.excluded],
            )
            if written
            else ()
        )
        return [
            _likelihoods(batch.prompts, [next(likelihoods) for _ in batch.prompts])
            if isinstance(batch, Scored)
            else _answers([next(answers) for _ in batch.prompts])
            for batch in batches
        ]

    def _numbered(self, names: Sequence[str]) -> list[int]:
        unknown = [name for name in names if name not in self._numbers]
        if unknown or not names:
            raise ValueError(f"candidates: found {unknown[0] if unknown else 'none'!r}, expected known categories")
        return [self._numbers[name] for name in names]


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
