"""The text encoder in Triton's Python backend: texts in, L2-normalised embeddings out.

Stands alone, like every file of this repository, and gives the numbers of serendipity.offline.encoder: mean of the
last hidden states over the text's tokens, or the first token's state where 1_Pooling/config.json says so (sentence
encoders), or the projected text embedding (CLIP), then divided by its length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

CLIP_TYPES = ("clip", "clip_text_model")


class TritonPythonModel:
    """One instance of the encoder; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load tokenizer and model. Raises TritonModelException naming what was found and what was expected."""
        if int(np.__version__.split(".")[0]) >= 2:
            # With numpy 2 the Python backend hands BYTES tensors over empty, without an error.
            raise pb_utils.TritonModelException(
                f"numpy: found {np.__version__}, expected below 2 in the environment of Triton's Python backend"
            )
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        path = Path(args["model_repository"]) / args["model_version"] / parameters["path"]
        if not (path / "config.json").is_file():
            raise pb_utils.TritonModelException(
                f"{path / 'config.json'}: missing; expected the directory of a transformers text encoder"
            )
        on_gpu = args["model_instance_kind"] == "GPU"
        self._device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        self._is_clip = AutoConfig.from_pretrained(path, local_files_only=True).model_type in CLIP_TYPES
        self._first_token = not self._is_clip and _pools_first_token(path)
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        kind = CLIPTextModelWithProjection if self._is_clip else AutoModel
        model = kind.from_pretrained(path, local_files_only=True, dtype=torch.float32)
        self._model = model.eval().to(self._device)
        self._max_tokens = int(min(self._tokenizer.model_max_length, model.config.max_position_embeddings))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Encode the texts of all requests together; answers keep the requests' order."""
        try:
            texts = [self._texts(request) for request in requests]
            embeddings = self._encode([text for part in texts for text in part])
        except Exception as error:
            if len(requests) == 1:
                return [pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))]
            # A text that cannot be decoded must not fail the requests it happened to be batched with.
            return [response for request in requests for response in self.execute([request])]
        parts = torch.split(embeddings, [len(part) for part in texts])
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(self._output, part)]) for part in parts]

    def _texts(self, request: Any) -> list[str]:
        cells = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy().reshape(-1)
        return [cell.decode() for cell in cells]

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
    raise pb_utils.TritonModelException(
        f"{pooling}: found {', '.join(sorted(modes))}, expected mean or first-token pooling"
    )
