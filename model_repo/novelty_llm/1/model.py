"""The Novelty LLM in Triton's Python backend: user messages in, the most probable categories as JSON out.

Stands alone, like every file of this repository. Beside it lie, put there when the model is placed, the modules it
imports, answers.json, instructions.txt and the language model in model/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from prompts import CATEGORIES, read_json  # type: ignore[import-not-found]  # placed beside this file
from python_backend import (  # type: ignore[import-not-found]  # placed beside this file
    LanguageModel,
    Version,
    column,
    read_excluded,
    read_prompts,
)
from ranking import Proposals, Ranking  # type: ignore[import-not-found]  # beside this file

ANSWERS = "answers.json"


@dataclass(frozen=True)
class Batch:
    """The prompts of one request; of each, how many categories are wanted and which must not be proposed."""

    prompts: list[list[int]]
    counts: list[int]
    excluded: list[frozenset[str]]


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the model."""

    def load(self, version: Version) -> None:
        """Load the model."""
        self._prompts = version.prompts(0, cut=False)
        categories = read_json(version.weights / CATEGORIES)
        answers = read_json(version.directory / ANSWERS)
        self._ranking = Ranking(version.weights, self._prompts, categories, answers, version.device)

    def read(self, request: Any) -> Batch:
        """Read what a request asks. Raises ValueError naming what cannot be answered."""
        prompts = read_prompts(request, self._prompts.write)
        counts = column(request, "count").tolist()
        for place, count in enumerate(counts):
            if count < 1:
                raise ValueError(f"count {place}: found {count}, expected at least 1")
        return Batch(prompts, counts, read_excluded(request, len(prompts)))

    def answer(self, batches: Sequence[Batch]) -> list[Any]:
        """Answer the prompts of all requests as one batch."""
        found = iter(
            self._ranking.rank(
                [prompt for batch in batches for prompt in batch.prompts],
                [count for batch in batches for count in batch.counts],
                [names for batch in batches for names in batch.excluded],
            )
        )
        return [_response([next(found) for _ in batch.prompts]) for batch in batches]


def _response(proposals: Sequence[Proposals]) -> Any:
    cells = [json.dumps(pairs, ensure_ascii=False).encode() for pairs in proposals]
    return pb_utils.InferenceResponse([pb_utils.Tensor("proposals", np.array(cells, np.object_)[:, None])])
