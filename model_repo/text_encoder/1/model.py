"""The text encoder in Triton's Python backend: texts in, L2-normalised embeddings out.

Stands alone, like every file of this repository, and gives the numbers of serendipity.offline.encoder: mean of the
last hidden states over the text's tokens, or the first token's state where 1_Pooling/config.json says so (sentence
encoders), or the projected text embedding (CLIP), then divided by its length. Beside it lie, put there when an encoder
is placed, the modules it imports and the encoder in encoder/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from python_backend import LanguageModel, Version, column  # type: ignore[import-not-found]  # placed beside this file
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

ENCODER = "encoder"
CLIP_TYPES = ("clip", "clip_text_model")


class TritonPythonModel(LanguageModel):  # type: ignore[misc]
    """One instance of the encoder."""

    def load(self, version: Version) -> None:
        """Load tokenizer and model. Raises ValueError naming what was found and what was expected."""
        path = version.directory / ENCODER
        if not (path / "config.json").is_file():
            raise ValueError(f"{path / 'config.json'}: missing; expected the directory of a transformers text encoder")
        self._device = version.device
        self._is_clip = AutoConfig.from_pretrained(path, local_files_only=True).model_type in CLIP_TYPES
        self._first_token = not self._is_clip and _pools_first_token(path)
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        kind = CLIPTextModelWithProjection if self._is_clip else AutoModel
        model = kind.from_pretrained(path, local_files_only=True, dtype=torch.float32)
        self._model = model.eval().to(self._device)
        self._max_tokens = int(min(self._tokenizer.model_max_length, model.config.max_position_embeddings))

    def read(self, request: Any) -> list[str]:
        """Read a request's texts. Raises ValueError for one that is no UTF-8."""
        return [cell.decode() for cell in column(request, "texts")]

    def answer(self, batches: Sequence[list[str]]) -> list[Any]:
        """Encode the texts of all requests together."""
        embeddings = self._encode([text for texts in batches for text in texts])
        parts = torch.split(embeddings, [len(texts) for texts in batches])
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("embeddings", part)]) for part in parts]

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(texts, truncation=True, max_length=self._max_tokens, padding=False)["input_ids"]
        rows_by_length: dict[int, list[int]] = {}
        for row, ids in enumerate(tokens):
            rows_by_length.setdefault(len(ids), []).append(row)
        vectors: list[Any] = [None] * len(texts)
        # Only texts of one length share a batch: without padding, a text's vector cannot depend on its neighbours.
        for rows in rows_by_length.values():
            pooled = self._pool(torch.tensor([tokens[row] for row in rows], device=self._device))
            for row, vector in zip(rows, torch.nn.functional.normalize(pooled, dim=-1).cpu(), strict=True):
                vectors[row] = vector
        return torch.stack(vectors)

    def _pool(self, ids: torch.Tensor) -> torch.Tensor:
        output = self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
        pooled: torch.Tensor
        if self._is_clip:
            pooled = output.text_embeds
        elif self._first_token:
            pooled = output.last_hidden_state[:, 0]
        else:
            pooled = output.last_hidden_state.mean(dim=1)
        return pooled


def _pools_first_token(path: Path) -> bool:
    """Read how sentence-transformers pools; without its file, by the mean."""
    pooling = path / "1_Pooling" / "config.json"
    if not pooling.is_file():
        return False
    options = json.loads(pooling.read_text(encoding="utf-8"))
    modes = {name for name, on in options.items() if on is True and name.startswith("pooling_mode")}
    if modes == {"pooling_mode_cls_token"}:
        return True
    if modes <= {"pooling_mode_mean_tokens"}:
        return False
    raise ValueError(f"{pooling}: found {', '.join(sorted(modes))}, expected mean or first-token pooling")
