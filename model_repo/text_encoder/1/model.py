"""The text encoder in Triton's Python backend: texts in, L2-normalised embeddings out.

Stands alone, like every file of this repository. Beside it lie, put there when an encoder is placed, the modules it
imports, of which sentence_encoder.py is what the builders encode with, and the encoder in encoder/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from python_backend import LanguageModel, Version, column  # type: ignore[import-not-found]  # placed beside this file
from sentence_encoder import SentenceEncoder  # type: ignore[import-not-found]  # placed beside this file

ENCODER = "encoder"


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the encoder."""

    def load(self, version: Version) -> None:
        """Load tokenizer and model. Raises ValueError naming what was found and what was expected."""
        self._encoder = SentenceEncoder(version.directory / ENCODER, version.device)

    def read(self, request: Any) -> list[str]:
        """Read a request's texts. Raises ValueError for one that is no UTF-8."""
        return [cell.decode() for cell in column(request, "texts")]

    def answer(self, batches: Sequence[list[str]]) -> list[Any]:
        """Encode the texts of all requests together."""
        embeddings = self._encoder.encode([text for texts in batches for text in texts])
        parts = torch.split(embeddings, [len(texts) for texts in batches])
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("embeddings", part)]) for part in parts]
