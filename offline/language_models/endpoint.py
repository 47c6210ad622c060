"""A language model behind an OpenAI-compatible endpoint: DeepSeek, vLLM, `transformers serve` and their like."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion

from serendipity.offline.language_models.answering_model import AnsweringModel
from serendipity.offline.language_models.completion_cache import CompletionCache
from serendipity.offline.language_models.config import EndpointConfig
from serendipity.offline.language_models.language_model import (
    MAX_CHARS_PER_TOKEN,
    Completion,
    LanguageModelError,
    Prompt,
    Sampling,
    split_reasoning,
)

_MAX_ERROR_CHARS = 300


class EndpointModel(AnsweringModel):
    """Asks an endpoint, several prompts at a time.

    A request that meets a limit, a failing server, a lost connection or its timeout is tried again by the client, later
    and later. Whatever else goes wrong, or goes wrong once too often, ends the call: what is in flight is still handed
    over, and nothing new is begun. What reasoning models think first (`reasoning_content`, `reasoning` or <think>) is
    kept apart from their answer.
    """

    def __init__(
        self,
        config: EndpointConfig,
        cache: CompletionCache | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Raises LanguageModelError when the variable that should hold the API key does not."""
        super().__init__(config.name or config.model, cache)
        self._config = config
        self._where = f"{config.model} at {urlsplit(config.base_url).netloc}"
        self._key = environment.get(config.api_key_env, "") if config.api_key_env else ""
        if config.api_key_env and not self._key:
            raise LanguageModelError(
                f"{config.model}: environment variable {config.api_key_env}: found nothing, expected the API key"
            )

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        stop, failure = threading.Event(), None
        client = openai.OpenAI(
            base_url=self._config.base_url,
            # The client insists on a key; an endpoint that wants none ignores it.
            api_key=self._key or "none",
            timeout=self._config.timeout,
            max_retries=self._config.max_retries,
        )
        # The client takes these from the environment; nothing is sent that was not configured.
        client.organization = client.project = None

        def ask(prompt: Prompt) -> Completion | None:
            if stop.is_set():
                return None
            try:
                return self._completion(client, prompt, sampling)
            except BaseException:
                stop.set()
                raise

        pool = ThreadPoolExecutor(min(len(prompts), self._config.max_concurrency))
        asked = {pool.submit(ask, prompt): place for place, prompt in enumerate(prompts)}
        try:
            for done in as_completed(asked):
                if error := done.exception():
                    failure = failure or error
                elif answer := done.result():
                    yield {asked[done]: answer}
        finally:
            stop.set()
            client.close()
            pool.shutdown(wait=False)
        if failure is not None:
            raise failure

    def _completion(self, client: openai.OpenAI, prompt: Prompt, sampling: Sampling) -> Completion:
        try:
            response = client.chat.completions.create(**self._request(prompt, sampling))
        except openai.APITimeoutError as error:
            raise self._failed(f"no answer in {self._config.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise self._failed(f"no connection: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            raise self._failed(f"HTTP {error.status_code}: {error.response.text or error.message}") from error
        except Exception as error:
            # An answer that does not parse: whatever the client raises besides its own kinds.
            raise self._failed(f"{type(error).__name__}: {error}") from error
        # The client hands over whatever JSON or text came, in the shape of a chat completion where it has one.
        choices = response.choices if isinstance(response, ChatCompletion) else None
        if not isinstance(choices, list) or not choices:
            raise self._failed(f"found {response!r}, expected a chat completion with a choice")
        usage, choice = response.usage, choices[0]
        extra, content = choice.message.model_extra or {}, choice.message.content or ""
        bound = MAX_CHARS_PER_TOKEN * (sampling.max_new_tokens + self._config.reasoning_tokens)
        # DeepSeek and older vLLM say reasoning_content, newer vLLM reasoning.
        thoughts = extra.get("reasoning_content") or extra.get("reasoning")
        reasoning, text = (str(thoughts), content) if thoughts else split_reasoning(content)
        return Completion(
            text[:bound],
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
            choice.finish_reason == "stop" and len(text) <= bound,
            reasoning[:bound],
        )

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        request: dict[str, Any] = {
            "model": self._config.model,
            "messages": [*messages, {"role": "user", "content": prompt.user}],
            self._config.max_tokens_field: sampling.max_new_tokens + self._config.reasoning_tokens,
        }
        if self._config.takes_sampling:
            request |= {"temperature": sampling.temperature, "seed": sampling.seed}
        return request

    def _failed(self, text: str) -> LanguageModelError:
        # Endpoints quote what they were sent.
        shown = " ".join((text.replace(self._key, "…") if self._key else text).split())
        if len(shown) > _MAX_ERROR_CHARS:
            shown = shown[:_MAX_ERROR_CHARS] + "…"
        return LanguageModelError(f"{self._where}: {shown}")
