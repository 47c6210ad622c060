"""The text encoder in Triton's Python backend: texts in, L2-normalised embeddings out.

Stands alone, like every file of this repository, and gives the numbers of serendipity.offline.encoder:
mean of the last hidden states over the attention mask (sentence encoders) or the projected text
embedding (CLIP), then divided by its length.
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
        version = Path(args["model_repository"]) / args["model_version"]
        path = version / config.get("parameters", {}).get("path", {}).get("string_value", "encoder")
        if not (path / "config.json").is_file():
            raise pb_utils.TritonModelException(
                f"{path / 'config.json'}: missing; expected the directory of a transformers text encoder"
            )
        self._device = torch.device(
            f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        )
        self._clip = AutoConfig.from_pretrained(path, local_files_only=True).model_type in CLIP_TYPES
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        loader = CLIPTextModelWithProjection if self._clip else AutoModel
        self._model = loader.from_pretrained(path, local_files_only=True, dtype=torch.float32).eval().to(self._device)
        self._max_length = min(self._tokenizer.model_max_length, self._model.config.max_position_embeddings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Encode the texts of all requests in one forward pass; answers keep the requests' order."""
        try:
            texts = [self._texts(request) for request in requests]
            embeddings = self._encode([text for part in texts for text in part])
        except Exception as error:
            if len(requests) == 1:
                return [pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))]
            # A text that cannot be decoded must not fail the requests it happened to be batched with.
            return [response for request in requests for response in self.execute([request])]
        parts = embeddings.split([len(part) for part in texts])
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(self._output, part)]) for part in parts]

    def _texts(self, request: Any) -> list[str]:
        cells = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy().reshape(-1)
        return [cell.decode() for cell in cells]

    def _encode(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            output = self._model(**tokens)
            if self._clip:
                pooled = output.text_embeds
            else:
                mask = tokens["attention_mask"].unsqueeze(-1).to(output.last_hidden_state.dtype)
                pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=-1).cpu()
