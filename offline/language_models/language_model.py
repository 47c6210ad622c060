"""What a language model is to everyone who asks one: prompts in, completions out, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serendipity.offline.errors import BuilderError

MAX_PROMPT_CHARS = 100_000
"""Characters of a prompt, system and user together: what is longer is a mistake, and may be somebody's attack."""

MAX_CHARS_PER_TOKEN = 32
"""Characters of an answer per token it may have: bounds what an endpoint can make us keep."""


class LanguageModelError(BuilderError):
    """A language model did not answer: names the model, what was found and what was expected."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked. user: data, never trusted; system: instructions, empty for none."""

    user: str
    system: str = ""


@dataclass(frozen=True)
class Sampling:
    """How it is to answer.

    max_new_tokens: tokens of the answer at most. temperature: 0 takes the likeliest token. seed: of the sampling above
    temperature 0.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: found {self.max_new_tokens}, expected at least 1")
        if not 0 <= self.temperature <= 10:
            raise ValueError(f"temperature: found {self.temperature}, expected 0 to 10")


GREEDY = Sampling()


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    text: without prompt, special tokens and reasoning. prompt_tokens, completion_tokens: as the model counts them, the
    latter with its reasoning. finished: False if it was cut off. reasoning: what it thought aloud first, if it does.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool
    reasoning: str = ""


@dataclass(frozen=True)
class Usage:
    """What was asked of a model so far.

    prompts: all of them. cache_hits: how many of them were known and cost nothing. prompt_tokens, completion_tokens,
    seconds: of the others.
    """

    prompts: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(self._numbers(), other._numbers(), strict=True)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(mine - theirs for mine, theirs in zip(self._numbers(), other._numbers(), strict=True)))

    def _numbers(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())


class LanguageModel(Protocol):
    """A language model."""

    name: str
    """Tells models apart: two with different weights never share a name."""

    def complete(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Completion]:
        """Answer the prompts, in their order. Raises LanguageModelError."""


def split_reasoning(written: str) -> tuple[str, str]:
    """Part what a reasoning model wrote into (reasoning, answer) at </think>; thoughts never ended are no answer."""
    thoughts, end, answer = written.rpartition("</think>")
    if end:
        return thoughts.replace("<think>", "", 1).strip(), answer.strip()
    if written.lstrip().startswith("<think>"):
        return written.lstrip().removeprefix("<think>").strip(), ""
    return "", written
