"""A sequence classifier of one label that scores prompts.

Stands alone: needs torch, transformers and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoding import TextScorer  # type: ignore[import-not-found]  # placed beside this file
from numpy.typing import NDArray
from prompts import Prompts  # type: ignore[import-not-found]  # placed beside this file
from transformers import AutoConfig, AutoModelForSequenceClassification
from weights import check_room, in_memory  # type: ignore[import-not-found]  # placed beside this file


class Scoring:
    """The model with its head."""

    def __init__(self, directory: Path, prompts: Prompts, device: torch.device) -> None:
        """Load what `save_pretrained` wrote to `directory`. Raises ValueError or OSError naming what is wrong."""
        labels = AutoConfig.from_pretrained(directory, local_files_only=True).num_labels
        if labels != 1:
            raise ValueError(f"num_labels: found {labels}, expected 1")
        # bfloat16 is slower than float32 on most CPUs.
        dtype = torch.float32 if device.type == "cpu" else "auto"
        model = AutoModelForSequenceClassification.from_pretrained(directory, local_files_only=True, dtype=dtype)
        check_room(model, prompts.limits.max_prompt_tokens, "max_prompt_tokens")
        self._scorer: Any = TextScorer(in_memory(model, device))

    def score(self, prompts: Sequence[list[int]]) -> NDArray[np.float32]:
        """Score prompts: [n] float32."""
        scores: NDArray[np.float32] = self._scorer.score(prompts)
        return scores
