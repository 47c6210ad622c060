"""InterestGPT and the text encoder on Triton, asked near-line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.nearline.triton_models import Output, TritonModels
from serendipity.interests.model import (
    ANSWER,
    CANDIDATES,
    COMPLETION_TOKENS,
    LOG_LIKELIHOODS,
    PROMPT,
    PROMPT_TOKENS,
)
from serendipity.v1 import records_pb2

TEXT_ENCODER = "text_encoder"
_TEXTS = "texts"
_EMBEDDINGS = "embeddings"
_TEXTS_PER_BATCH = 64
_LIKELIHOOD_OUTPUTS = {LOG_LIKELIHOODS: Output(np.object_), PROMPT_TOKENS: Output(np.int32)}
_ANSWER_OUTPUTS = {
    ANSWER: Output(np.object_),
    PROMPT_TOKENS: Output(np.int32),
    COMPLETION_TOKENS: Output(np.int32),
}


@dataclass(frozen=True)
class Answer:
    """What InterestGPT wrote for one prompt, without the prompt and without special tokens.

    completion_tokens: spec.max_new_tokens where it was cut off.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Likelihoods:
    """log P of each candidate of one prompt, in their order."""

    values: NDArray[np.float64]
    prompt_tokens: int


class InterestGpt(TritonModels):
    """Calls InterestGPT."""

    async def log_likelihoods(
        self,
        spec: records_pb2.InterestGptSpec,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        timeout: float,
    ) -> list[Likelihoods]:
        """Ask how likely the model that `spec` names is to name each candidate first, in prompts' order.

        prompts: as of `answers`; candidates: of each, names of categories, at least one. timeout: seconds for all.
        """
        lists = [json.dumps(list(names), ensure_ascii=False) for names in candidates]
        inputs = {PROMPT: self.cells(prompts, "prompt"), CANDIDATES: self.cells(lists, "candidates")}
        name = spec.model_name
        cells, tokens = await self.infer(name, inputs, spec.max_batch, _LIKELIHOOD_OUTPUTS, timeout)
        values = [self._values(name, cell, len(names)) for cell, names in zip(cells[:, 0], candidates, strict=True)]
        return [Likelihoods(row, int(count)) for row, count in zip(values, tokens[:, 0], strict=True)]

    async def answers(self, spec: records_pb2.InterestGptSpec, prompts: Sequence[str], timeout: float) -> list[Answer]:
        """Ask the model that `spec` names to write, in batches of up to spec.max_batch; answers in prompts' order.

        prompts: user messages (`prompt.render`). timeout: seconds for all of them.
        """
        inputs = {PROMPT: self.cells(prompts, "prompt")}
        columns = await self.infer(spec.model_name, inputs, spec.max_batch, _ANSWER_OUTPUTS, timeout)
        rows = zip(*(column[:, 0] for column in columns), strict=True)
        # A byte-level model that is cut off can leave half a character.
        return [
            Answer(text.decode("utf-8", "replace"), int(prompt), int(completion)) for text, prompt, completion in rows
        ]

    def _values(self, name: str, cell: bytes, expected: int) -> NDArray[np.float64]:
        try:
            values = np.array(json.loads(cell), np.float64)
        except (ValueError, TypeError, RecursionError):
            values = np.empty(0)
        if values.shape != (expected,) or not np.isfinite(values).all():
            raise self.unreadable(name, LOG_LIKELIHOODS, repr(cell), f"a JSON list of {expected} numbers")
        return values


class TritonTextEncoder(TritonModels):
    """Calls the text encoder."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """url: as of TritonModels. timeout: seconds of one `encode`."""
        super().__init__(url)
        self._timeout = timeout

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: [n, D] float32 of norm 1; [0, 0] of no texts."""
        inputs = {_TEXTS: self.cells(texts, "text")}
        outputs = {_EMBEDDINGS: Output(np.float32, width=None)}
        (vectors,) = await self.infer(TEXT_ENCODER, inputs, _TEXTS_PER_BATCH, outputs, self._timeout)
        return vectors
