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
    answer_each,
    check_fingerprint,
    column,
    open_version,
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


class TritonPythonModel:
    """One instance of the model; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. Raises TritonModelException naming what was found and what was expected."""
        version = open_version(args)
        try:
            check_fingerprint(version)
            self._prompts = version.prompts(0, cut=False)
            categories = read_json(version.weights / CATEGORIES)
            answers = read_json(version.directory / ANSWERS)
            self._ranking = Ranking(version.weights, self._prompts, categories, answers, version.device)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{version.directory}: {error}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        return list(answer_each(requests, self._read, self._answer))

    def _read(self, request: Any) -> Batch:
        """Read what a request asks. Raises ValueError naming what cannot be answered."""
        prompts = read_prompts(request, self._prompts.write)
        counts = column(request, "count").tolist()
        for place, count in enumerate(counts):
            if count < 1:
                raise ValueError(f"count {place}: found {count}, expected at least 1")
        return Batch(prompts, counts, read_excluded(request, len(prompts)))

    def _answer(self, batches: Sequence[Batch]) -> list[Any]:
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
