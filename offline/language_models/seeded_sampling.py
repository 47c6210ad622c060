"""Sampling whose every answer depends on its own prompt and the seed, not on the batch it happened to be in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from serendipity.offline.language_models.language_model import Prompt


class SeededSampling:
    """Logits processor that turns the greedy choice of `generate` into a sample, by Gumbel's trick.

    argmax(scores / T + g) with g = −ln E, E ~ Exp(1), is a draw from softmax(scores / T); each row has a generator of
    its own. It comes last: a score of −∞ stays one. temperature: T > 0. seeds: one per row.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Add the noise of this step. scores: [B, vocab_size] float32."""
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores / self._temperature - noise.log()


def seed_of(prompt: Prompt, seed: int) -> int:
    """Derive the seed of one answer, in [0, 2⁶³)."""
    digest = hashlib.sha256(repr((seed, prompt.system, prompt.user)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
