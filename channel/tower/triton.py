"""The user tower on Triton: what its answers and its errors mean to a request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerAnswerInvalid, TowerTimeout, TowerUnavailable
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.breaker import CircuitBreaker
from serendipity.channel.tower.tower import check_user_vectors
from serendipity.features import INPUT_NAMES, OUTPUT_NAME, TowerInputs
from serendipity.triton import Triton, TritonError

_log = logging.getLogger(__name__)

_FAILURES = frozenset({"DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"})
"""Statuses that count against the server. With others (NOT_FOUND, INVALID_ARGUMENT …) it is well."""


class TritonTower:
    """Calls the user tower; see UserTower. Belongs to one event loop, connects at the first call."""

    def __init__(
        self,
        url: str,
        settings: ChannelSettings | None = None,
        on_call: Callable[[str, float], None] = lambda _, __: None,
        headers: Callable[[], str] = str,
    ) -> None:
        """url: address of Triton's HTTP port, as `triton.check_url` takes it; on_call: told of every call the status it
        ended with and the seconds it took, whether or not anybody still waited; headers: as of `Triton`.
        """
        settings = settings or ChannelSettings()
        self._triton = Triton(url, headers)
        self._max_batch = settings.tower_max_batch
        self._on_call = on_call
        self._breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_ms / 1_000)

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        """Run the model; one call for all users up to the model's batch size. See UserTower.user_vectors.

        A call is never cancelled. It runs on when no time is left and when the caller is cancelled; with
        `triton.MOST_GIVEN_UP` such calls, others are TowerUnavailable at once.
        """
        if len(inputs) <= self._max_batch:
            return await self._wait(model_name, inputs, deadline)
        parts = (
            TowerInputs(*(getattr(inputs, name)[at : at + self._max_batch] for name in INPUT_NAMES))
            for at in range(0, len(inputs), self._max_batch)
        )
        return np.concatenate(await asyncio.gather(*(self._wait(model_name, part, deadline) for part in parts)))

    @property
    def is_held_back(self) -> bool:
        """True while it is not called, after repeated failures."""
        return self._breaker.is_open

    async def close(self) -> None:
        """Let calls end, and close the connections."""
        await self._triton.close()

    async def _wait(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        where, seconds = f"{model_name} at {self._triton.url}", deadline.remaining
        if seconds <= 0:
            raise TowerTimeout(f"{where}: no time left to call it")
        try:
            return await self._triton.wait(self._call(model_name, inputs, seconds), seconds)
        except TritonError as error:
            kind = TowerTimeout if error.status == "DEADLINE_EXCEEDED" else TowerUnavailable
            raise kind(f"{where}: {error}") from error

    async def _call(self, model_name: str, inputs: TowerInputs, seconds: float) -> NDArray[np.float32]:
        """Make one call. How it ends is what the breaker hears, whether or not anybody still waits for it."""
        if not self._breaker.admit():
            raise TowerUnavailable(f"{model_name} at {self._triton.url}: held back after repeated failures")
        begun, status = time.monotonic(), "CANCELLED"
        try:
            arrays = await self._triton.infer(model_name, inputs.arrays(), (OUTPUT_NAME,), seconds)
            vectors = arrays.get(OUTPUT_NAME)
            if vectors is not None and vectors.ndim == 3:
                # Rows beyond are padding: of those batched together, others had more interests.
                vectors = vectors[:, : 1 + inputs.interests.shape[1]]
            vectors = check_user_vectors(vectors, inputs, model_name)
            status = "OK"
        except TowerAnswerInvalid as error:
            status = "INVALID"
            self._fail(error)
            raise
        except TritonError as error:
            status = error.status
            # Triton says UNAVAILABLE, too, of a call whose time was over in its queue: its caller was in a hurry.
            expired = error.status == "UNAVAILABLE" and time.monotonic() - begun >= seconds
            if error.status in _FAILURES and not expired:
                self._fail(error)
            else:
                self._breaker.abandon()
            raise
        except BaseException:
            self._breaker.abandon()
            raise
        finally:
            self._on_call(status, time.monotonic() - begun)
        if self._breaker.is_open:
            _log.warning("%s: the user tower answers again", self._triton.url)
        self._breaker.succeed()
        return vectors

    def _fail(self, error: Exception) -> None:
        was_open = self._breaker.is_open
        self._breaker.fail()
        if self._breaker.is_open and not was_open:
            _log.warning("%s: the user tower is left alone for a while: %s", self._triton.url, error)
