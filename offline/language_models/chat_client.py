"""Requests to an OpenAI-compatible endpoint: the one place that speaks to it, and that knows its errors."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion

from serendipity.offline.language_models.config import EndpointConfig
from serendipity.offline.language_models.language_model import (
    MAX_CHARS_PER_TOKEN,
    Completion,
    LanguageModelError,
    Prices,
    Prompt,
    Sampling,
    split_reasoning,
)
from serendipity.offline.language_models.retries import retry_after

_MAX_ERROR_CHARS = 300


class RequestFailed(LanguageModelError):
    """A request was not answered.

    transient: the same request may be answered later, and not before retry_after seconds. is_free: it surely was not
    charged for.
    """

    def __init__(self, text: str, *, transient: bool, is_free: bool, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.transient = transient
        self.is_free = is_free
        self.retry_after = retry_after


class ChatClient:
    """Sends chat completions. Belongs to one event loop. api_key: empty for none."""

    def __init__(self, config: EndpointConfig, api_key: str) -> None:
        self._config = config
        self._key = api_key
        self._where = f"{config.model} at {urlsplit(config.base_url).netloc}"
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            # The client insists on a key; an endpoint that wants none ignores it.
            api_key=api_key or "none",
            timeout=config.timeout,
            max_retries=0,
        )
        # The client takes these from the environment; nothing is sent that was not configured.
        self._client.organization = self._client.project = None

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Ask once. Raises RequestFailed."""
        try:
            # The client's own timeout starts anew with every piece that arrives.
            async with asyncio.timeout(self._config.timeout):
                response = await self._client.chat.completions.create(**self._request(prompt, sampling))
        except TimeoutError as error:
            raise self._failed(f"no answer in {self._config.timeout:g} s", transient=True) from error
        except openai.APITimeoutError as error:
            raise self._failed(f"no answer in {self._config.timeout:g} s", transient=True) from error
        except openai.APIConnectionError as error:
            # By its name: the HTTP library under the client has changed with the client's versions.
            refused = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            text = f"no connection: {error.__cause__ or error}"
            raise self._failed(text, transient=True, is_free=refused) from error
        except openai.APIStatusError as error:
            raise self._failed(
                f"HTTP {error.status_code}: {error.response.text or error.message}",
                transient=error.status_code in (408, 409, 429) or error.status_code >= 500,
                is_free=True,
                retry_after=retry_after(error.response.headers),
            ) from error
        except Exception as error:
            # An answer that does not parse: whatever the client raises besides its own kinds.
            raise self._failed(f"{type(error).__name__}: {error}") from error
        return self._completion(response, sampling)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        request: dict[str, Any] = {
            "model": self._config.model,
            "messages": [*messages, {"role": "user", "content": prompt.user}],
            self._config.max_tokens_field: sampling.max_new_tokens + self._config.reasoning_tokens,
        }
        if self._config.takes_sampling:
            request |= {"temperature": sampling.temperature, "seed": sampling.seed}
        if sampling.schema is not None and self._config.json_schema:
            schema = {"name": "answer", "strict": True, "schema": dict(sampling.schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _completion(self, response: object, sampling: Sampling) -> Completion:
        # The client hands over whatever JSON or text came, in the shape of a chat completion where it has one.
        if not isinstance(response, ChatCompletion) or not response.choices:
            raise self._failed(f"found {response!r}, expected a chat completion with a choice")
        usage = response.usage
        if usage is None and self._config.prices != Prices():
            raise self._failed("usage: found none, expected the tokens that are to be paid")
        choice = response.choices[0]
        message = choice.message
        extra = message.model_extra or {}
        bound = MAX_CHARS_PER_TOKEN * (sampling.max_new_tokens + self._config.reasoning_tokens)
        content = message.content or ""
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

    def _failed(
        self, text: str, *, transient: bool = False, is_free: bool = False, retry_after: float = 0.0
    ) -> RequestFailed:
        # Endpoints quote what they were sent.
        shown = " ".join((text.replace(self._key, "…") if self._key else text).split())
        if len(shown) > _MAX_ERROR_CHARS:
            shown = shown[:_MAX_ERROR_CHARS] + "…"
        return RequestFailed(f"{self._where}: {shown}", transient=transient, is_free=is_free, retry_after=retry_after)
