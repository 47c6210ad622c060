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
    LanguageModel,
    Version,
    read_prompts,
)
from scoring import Scoring  # type: ignore[import-not-found]  # beside this file


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the model."""

    def load(self, version: Version) -> None:
        """Load the model."""
        self._prompts = version.prompts(0, cut=False)
        self._scoring = Scoring(version.weights, self._prompts, version.device)

    def read(self, request: Any) -> list[list[int]]:
        """Read a request's prompts."""
        return list(read_prompts(request, self._prompts.write))

    def answer(self, batches: Sequence[list[list[int]]]) -> list[Any]:
        """Answer the prompts of all requests as one batch."""
        scores = self._scoring.score([prompt for batch in batches for prompt in batch])
        ends = list(accumulate(len(batch) for batch in batches))
        parts = np.split(scores.astype(np.float32)[:, None], ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("score", part)]) for part in parts]
