"""Texts encoded ahead, so that grounding, which is synchronous, finds their vectors at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import ModelRefused, ModelUnavailable
from serendipity.channel.nearline.job import ask_in_halves

EncodeAhead = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]
"""Texts → [n, D] float32 of norm 1. Raises ModelUnavailable, ModelRefused."""

_CAPACITY = 20_000
"""Texts kept: 6 KB each with MiniLM's 384 dimensions in memory of Python and NumPy."""


class Encodings:
    """Vectors of texts, most of which come again and again. Called with texts it is an `Encode`.

    dim: D, of the vectors that are compared with; Raises ModelUnavailable when a text was not encoded ahead.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Look vectors up, [n, D] float32."""
        try:
            return np.stack([self._vectors[text] for text in texts])
        except KeyError as error:
            raise ModelUnavailable(f"text {error.args[0]!r}: was not encoded ahead") from error

    async def encode_ahead(self, texts: Iterable[str], encode: EncodeAhead) -> set[str]:
        """Encode those texts that are not known yet; returns those the encoder refuses. Raises ModelUnavailable.

        Afterwards all of the others are at hand until the next call.
        """
        needed = dict.fromkeys(texts)
        new = [text for text in needed if text not in self._vectors]
        if len(self._vectors) + len(new) > _CAPACITY:
            self._vectors = {text: self._vectors[text] for text in needed if text in self._vectors}
        refused: set[str] = set()
        for text, vector in await ask_in_halves(new, lambda some: self._encode(some, encode)):
            if isinstance(vector, ModelRefused):
                refused.add(text)
            else:
                self._vectors[text] = vector
        return refused

    async def _encode(self, texts: Sequence[str], encode: EncodeAhead) -> Iterable[NDArray[np.float32]]:
        vectors = await encode(texts)
        if vectors.shape != (len(texts), self._dim):
            raise ModelUnavailable(
                f"text encoder: found vectors of shape {vectors.shape}, expected ({len(texts)}, {self._dim}) as the "
                "snapshot's interest vectors have; deploy the encoder they were made with"
            )
        return vectors
