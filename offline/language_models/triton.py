"""InterestGPT on Triton, as a language model for the builders and the evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from serendipity.interests.model import ANSWER, COMPLETION_TOKENS, CONSTRAINED, PROMPT, PROMPT_TOKENS
from serendipity.interests.prompt import INSTRUCTIONS
from serendipity.offline.language_models.language_model import (
    Completion,
    LanguageModelError,
    MeteredModel,
    Prompt,
    Sampling,
)
from serendipity.offline.language_models.retries import Backoff
from serendipity.triton import TritonError, ask, check_url
from serendipity.v1 import records_pb2

_MAX_WAIT = 10.0

_REFUSALS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "UNIMPLEMENTED"})
"""Statuses that the same call would meet again."""


class TritonModel(MeteredModel):
    """Asks InterestGPT, in batches of spec.max_batch.

    The model knows its instructions, its schema and the length of its answers: of the prompt it takes the user message
    (`prompt.render` in the spec's style) and accepts only its own INSTRUCTIONS as system message; of the sampling it
    takes whether there is a schema, and only temperature 0. Its own bound, spec.max_new_tokens, holds for answers.
    """

    def __init__(
        self,
        url: str,
        spec: records_pb2.InterestGptSpec,
        *,
        timeout: float = 120.0,
        max_retries: int = 5,
        backoff: Backoff | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """url: Triton's address, as `triton.check_url` takes it. timeout: seconds of a batch. max_retries: of it."""
        super().__init__(spec.model_name)
        self._url = check_url(url)
        self._spec = spec
        self._timeout = timeout
        self._max_retries = max_retries
        self._backoff = backoff or Backoff(_MAX_WAIT)
        self._sleep = sleep

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        self._check(prompts, sampling)
        size = max(1, self._spec.max_batch)
        for start in range(0, len(prompts), size):
            completions = self._batch(prompts[start : start + size], sampling.schema is not None)
            yield dict(enumerate(completions, start))

    def _check(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        if sampling.temperature > 0:
            raise LanguageModelError(f"{self.name}: temperature: found {sampling.temperature}, expected 0")
        for place, prompt in enumerate(prompts):
            if prompt.system not in ("", INSTRUCTIONS):
                raise LanguageModelError(
                    f"{self.name}: prompt {place}: found a system message of its own, expected none: the model is "
                    "tuned to one"
                )

    def _batch(self, prompts: Sequence[Prompt], constrained: bool) -> list[Completion]:
        failures = 0
        while True:
            try:
                return self._infer(prompts, constrained)
            except TritonError as error:
                failures += 1
                if error.status in _REFUSALS or failures > self._max_retries:
                    raise LanguageModelError(f"{self.name} at {self._url}: {error} (tried {failures} times)") from error
            self._sleep(self._backoff.seconds(failures))

    def _infer(self, prompts: Sequence[Prompt], constrained: bool) -> list[Completion]:
        cells = np.array([[prompt.user.encode("utf-8", "replace")] for prompt in prompts], np.object_)
        inputs = {PROMPT: cells, CONSTRAINED: np.full(cells.shape, constrained)}
        names = (ANSWER, PROMPT_TOKENS, COMPLETION_TOKENS)
        arrays = ask(
            self._url,
            self._timeout,
            lambda triton: triton.infer(self._spec.model_name, inputs, names, self._timeout),
        )
        for name in names:
            column = arrays.get(name)
            if column is None or column.shape != cells.shape:
                found = "none" if column is None else f"shape {column.shape}"
                raise LanguageModelError(f"{self.name}: {name}: found {found}, expected shape {cells.shape}")
        answers, prompt_tokens, completion_tokens = (arrays[name][:, 0].tolist() for name in names)
        return [
            # A byte-level model that is cut off can leave half a character.
            Completion(answer.decode("utf-8", "replace"), asked, written, written < self._spec.max_new_tokens)
            for answer, asked, written in zip(answers, prompt_tokens, completion_tokens, strict=True)
        ]


def read_spec(path: Path) -> records_pb2.InterestGptSpec:
    """Read interest_gpt.json; the weights need not be here. Raises LanguageModelError."""
    try:
        return json_format.Parse(path.read_text(encoding="utf-8"), records_pb2.InterestGptSpec())
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise LanguageModelError(f"{path}: cannot be read ({error}); expected the spec of an InterestGPT") from error
