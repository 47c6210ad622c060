"""The Relevance LLM in Triton's Python backend: user messages with a candidate in, scores out.

Stands alone, like every file of this repository. Beside it lie, put there when the model is placed, the modules it
imports, instructions.txt and the classifier in model/.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from python_backend import (  # type: ignore[import-not-found]  # placed beside this file
    answer_each,
    check_fingerprint,
    open_version,
    read_prompts,
)
from scoring import Scoring  # type: ignore[import-not-found]  # beside this file


class TritonPythonModel:
    """One instance of the model; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. Raises TritonModelException naming what was found and what was expected."""
        version = open_version(args)
        try:
            check_fingerprint(version)
            self._prompts = version.prompts(0, cut=False)
            self._scoring = Scoring(version.weights, self._prompts, version.device)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{version.directory}: {error}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        return list(answer_each(requests, lambda request: read_prompts(request, self._prompts.write), self._answer))

    def _answer(self, batches: Sequence[list[list[int]]]) -> list[Any]:
        scores = self._scoring.score([prompt for batch in batches for prompt in batch])
        ends = list(accumulate(len(batch) for batch in batches))
        parts = np.split(scores.astype(np.float32)[:, None], ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("score", part)]) for part in parts]
