"""A language model behind an OpenAI-compatible endpoint: DeepSeek, vLLM, `transformers serve` and their like."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from serendipity.offline.language_models.budget import Budget
from serendipity.offline.language_models.chat_client import ChatClient, RequestFailed
from serendipity.offline.language_models.config import EndpointConfig
from serendipity.offline.language_models.language_model import (
    Completion,
    LanguageModelError,
    MeteredModel,
    Prompt,
    Sampling,
)
from serendipity.offline.language_models.retries import Backoff, RequestRate

_TEMPLATE_TOKENS = 256
"""What a chat template may add to a prompt. With a token per byte it bounds a prompt's tokens before it is sent."""


class EndpointModel(MeteredModel):
    """Asks an endpoint, several prompts at a time; who calls it needs no event loop, and may have one.

    A request that meets a limit, a failing server, a lost connection or its timeout is tried again, later and later.
    Whatever else goes wrong, or goes wrong once too often, ends the call: what is in flight is still handed over, and
    nothing new is begun. A schema is sent only if the endpoint takes one. What reasoning models think first
    (`reasoning_content`, `reasoning` or <think>) is kept apart from their answer. One call at a time.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        spent: float = 0.0,
        environment: Mapping[str, str] = os.environ,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """spent: of the budget, by earlier runs. backoff: between attempts; none: as configured, with jitter.

        Raises LanguageModelError when the variable that should hold the API key does not.
        """
        super().__init__(config.name or config.model, config.prices, clock=clock)
        self._config = config
        self._spent = spent
        self._backoff = backoff or Backoff(config.max_wait)
        self._key = environment.get(config.api_key_env, "") if config.api_key_env else ""
        if config.api_key_env and not self._key:
            raise LanguageModelError(
                f"{config.model}: environment variable {config.api_key_env}: found nothing, expected the API key"
            )

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        # A thread of its own for the event loop: requests go on while the caller stores what was answered.
        ready: queue.SimpleQueue[Mapping[int, Completion] | None] = queue.SimpleQueue()
        call = _Call(
            prompts,
            sampling,
            self._config,
            ready.put,
            client=lambda: ChatClient(self._config, self._key),
            budget=Budget(self._config.budget, self._spent),
            rate=RequestRate(self._config.requests_per_minute, self._clock),
            backoff=self._backoff,
        )
        thread = threading.Thread(target=call.run, args=(lambda: ready.put(None),), daemon=True)
        thread.start()
        try:
            while (answers := _all_ready(ready)) is not None:
                yield answers
        finally:
            call.cancel()
            thread.join()
            self._spent = call.budget.spent
        if call.failure is not None:
            raise call.failure


def _all_ready(ready: queue.SimpleQueue[Mapping[int, Completion] | None]) -> Mapping[int, Completion] | None:
    """Wait for an answer and take those that came meanwhile with it: a cache stores them at once. None at the end."""
    found = ready.get()
    if found is None:
        return None
    answers = dict(found)
    while not ready.empty():
        more = ready.get()
        if more is None:
            # Left for the next call.
            ready.put(None)
            break
        answers.update(more)
    return answers


class _Call:
    """An event loop with workers that take the prompts one after the other."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        config: EndpointConfig,
        emit: Callable[[Mapping[int, Completion]], None],
        *,
        client: Callable[[], ChatClient],
        budget: Budget,
        rate: RequestRate,
        backoff: Backoff,
    ) -> None:
        self.failure: Exception | None = None
        self.budget = budget
        self._prompts = iter(enumerate(prompts))
        self._num_workers = min(len(prompts), config.max_concurrency)
        self._sampling = sampling
        self._config = config
        self._emit = emit
        self._make_client = client
        self._rate = rate
        self._backoff = backoff
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None

    def run(self, ended: Callable[[], None]) -> None:
        """Answer what can be answered; `failure` says what could not."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._all())
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self.failure = self.failure or error
        finally:
            ended()

    def cancel(self) -> None:
        """Give up what is in flight; nothing if the call has ended. From another thread."""
        try:
            self._loop.call_soon_threadsafe(lambda: self._main and self._main.cancel())
        except RuntimeError:
            # The loop is closed: the call has ended.
            return

    async def _all(self) -> None:
        self._main = asyncio.current_task()
        self._client = self._make_client()
        try:
            await asyncio.gather(*(self._work() for _ in range(self._num_workers)))
        finally:
            await self._client.close()

    async def _work(self) -> None:
        while not self._stop.is_set():
            place, prompt = next(self._prompts, (None, None))
            if place is None or prompt is None:
                return
            try:
                self._emit({place: await self._complete(prompt)})
            except Exception as error:
                self.failure = self.failure or error
                self._stop.set()

    async def _complete(self, prompt: Prompt) -> Completion:
        """Ask until it is answered or refused. Raises LanguageModelError."""
        failures = 0
        while True:
            try:
                return await self._attempt(prompt)
            except RequestFailed as error:
                failures += 1
                self._check_retry(error, failures)
                wait = error.retry_after
            if wait:
                self._rate.pause(wait)
            await self._sleep(max(wait, self._backoff.seconds(failures)))

    def _check_retry(self, error: RequestFailed, failures: int) -> None:
        if not error.transient:
            raise error
        if failures > self._config.max_retries:
            raise LanguageModelError(f"{error} (tried {failures} times)") from error
        if error.retry_after > self._config.max_wait:
            raise LanguageModelError(
                f"{error}: asks to wait {error.retry_after:,.0f} s, expected at most max_wait, "
                f"{self._config.max_wait:,.0f} s"
            ) from error

    async def _attempt(self, prompt: Prompt) -> Completion:
        dearest = self._dearest(prompt)
        await self.budget.reserve(dearest)
        cost = 0.0
        try:
            await self._sleep(self._rate.turn())
            # Until it is answered nobody knows what it cost.
            cost = dearest
            completion = await self._client.complete(prompt, self._sampling)
            cost = self._config.prices.cost(completion.prompt_tokens, completion.completion_tokens)
        except RequestFailed as error:
            cost = 0.0 if error.is_free else cost
            raise
        finally:
            await self.budget.settle(dearest, cost)
        return completion

    def _dearest(self, prompt: Prompt) -> float:
        num_bytes = len(f"{prompt.system}{prompt.user}".encode("utf-8", "surrogatepass"))
        completion_tokens = self._sampling.max_new_tokens + self._config.reasoning_tokens
        return self._config.prices.cost(num_bytes + _TEMPLATE_TOKENS, completion_tokens)

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the call fails meanwhile; then raise its failure."""
        if seconds > 0 and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        if self._stop.is_set() and self.failure is not None:
            raise self.failure
