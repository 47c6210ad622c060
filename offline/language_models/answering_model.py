"""What all homes of language models do alike: check and count what is asked, and keep what was answered."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from serendipity.offline.language_models.completion_cache import CompletionCache, completion_keys
from serendipity.offline.language_models.language_model import (
    GREEDY,
    MAX_PROMPT_CHARS,
    Completion,
    LanguageModelError,
    Prompt,
    Sampling,
    Usage,
)


class AnsweringModel(ABC):
    """A language model that says what was asked of it. With a cache, equal prompts are asked once, ever.

    Every batch is stored as soon as it was answered: a run that was killed, run again, asks for what is missing.
    name: as in LanguageModel; usage: what was asked of this object so far; clock: seconds.
    """

    def __init__(
        self, name: str, cache: CompletionCache | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.usage = Usage()
        self._cache = cache
        self._clock = clock

    def complete(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Completion]:
        """Answer the prompts, in their order; of equal ones the first is asked.

        Raises LanguageModelError: at once for what cannot be asked, otherwise when what could be answered was.
        """
        keys = completion_keys(self.name, prompts, sampling)
        found = {} if self._cache is None else self._cache.get(keys)
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        hits = len(prompts) - len(missing)
        self.usage += Usage(hits, hits)
        places = list(missing)
        for answers in self._asked(list(missing.values()), sampling):
            answered = {places[place]: completion for place, completion in answers.items()}
            if self._cache is not None:
                self._cache.put(answered)
            found |= answered
        return [found[key] for key in keys]

    def _asked(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        for place, prompt in enumerate(prompts):
            length = len(prompt.user) + len(prompt.system)
            if length > MAX_PROMPT_CHARS:
                raise LanguageModelError(
                    f"{self.name}: prompt {place}: found {length:,} characters, expected at most {MAX_PROMPT_CHARS:,}"
                )
        if not prompts:
            return
        since = self._clock()
        for answers in self._answers(prompts, sampling):
            read = sum(answer.prompt_tokens for answer in answers.values())
            written = sum(answer.completion_tokens for answer in answers.values())
            self.usage += Usage(len(answers), 0, read, written, self._clock() - since)
            yield answers
            # What the caller did with them is not the model's time.
            since = self._clock()

    @abstractmethod
    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        """Answer at least one prompt, all within bounds, in any order and some at a time: place → completion.

        Raises LanguageModelError when what could be answered was.
        """
