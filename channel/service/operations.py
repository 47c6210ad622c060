"""Publications in the background: begun, followed, cancelled; one runs at a time."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from serendipity.channel.errors import ChannelError, PublicationCancelled, PublicationRefused
from serendipity.channel.snapshot.publication import OnProgress, Publication
from serendipity.v1 import admin_pb2

_REMEMBERED = 100

_log = structlog.stdlib.get_logger(__name__)


@dataclass
class _Operation:
    """An operation; its thread writes what the event loop reads, field by field. ended_at: Unix seconds, 0: it runs."""

    version: str
    previous: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: admin_pb2.OperationState = admin_pb2.OPERATION_STATE_RUNNING
    step: str = ""
    progress: float = 0.0
    error: str = ""
    started_at: float = field(default_factory=time.time)
    ended_at: float = 0.0
    is_cancelled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def message(self) -> admin_pb2.Operation:
        """Say how it fares."""
        told = admin_pb2.Operation(
            id=self.id,
            version=self.version,
            state=self.state,
            step=self.step,
            progress=self.progress,
            error=self.error,
            previous_version=self.previous,
        )
        told.started_at.FromMilliseconds(int(self.started_at * 1e3))
        if self.ended_at:
            told.ended_at.FromMilliseconds(int(self.ended_at * 1e3))
        return told


class Operations:
    """The operations of one service; belongs to one event loop, and all methods raise PublicationRefused."""

    def __init__(self) -> None:
        self._known: dict[str, _Operation] = {}

    def begin(self, version: str, previous: str, publish: Callable[[OnProgress], Publication]) -> admin_pb2.Operation:
        """Begin to make a version the wanted one, and say how it fares; or how one fares that does so already.

        previous: version wanted now. Refused while another version is being published.
        """
        for running in self._known.values():
            if not running.ended_at and running.version == version:
                return running.message()
            if not running.ended_at:
                raise PublicationRefused(
                    f"operation {running.id} is publishing {running.version}: wait for its end, or cancel it"
                )
        operation = _Operation(version, previous)
        self._known[operation.id] = operation
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        loop = asyncio.get_running_loop()
        # Nobody waits for it when the service ends: until the link is moved, which is one step, nothing has changed.
        threading.Thread(target=_run, args=(operation, publish, loop), name="publication", daemon=True).start()
        return operation.message()

    async def wait(self, operation_id: str, seconds: float) -> admin_pb2.Operation:
        """Say how an operation fares, the latest by default, once it has ended or after so long."""
        operation = self._find(operation_id)
        try:
            async with asyncio.timeout(seconds):
                await operation.ended.wait()
        except TimeoutError:
            pass
        return operation.message()

    def cancel(self, operation_id: str) -> admin_pb2.Operation:
        """Tell an operation to end before it takes effect."""
        operation = self._find(operation_id)
        operation.is_cancelled = True
        return operation.message()

    def _find(self, operation_id: str) -> _Operation:
        found = self._known.get(operation_id or next(reversed(self._known), ""))
        if found is None:
            raise PublicationRefused(
                f"operation: found {operation_id!r}, expected one begun since this service was started; GetSnapshot "
                "tells what is wanted"
            )
        return found


def _run(operation: _Operation, publish: Callable[[OnProgress], Publication], loop: asyncio.AbstractEventLoop) -> None:
    def on_progress(step: str, share: float) -> None:
        if operation.is_cancelled:
            raise PublicationCancelled(f"{operation.version}: cancelled while {step}")
        operation.step, operation.progress = step, share

    state, error = admin_pb2.OPERATION_STATE_DONE, ""
    try:
        publication = publish(on_progress)
        operation.version, operation.previous = publication.version, publication.previous
    except PublicationCancelled as cancelled:
        state, error = admin_pb2.OPERATION_STATE_CANCELLED, str(cancelled)
    except ChannelError as refused:
        state, error = admin_pb2.OPERATION_STATE_REFUSED, str(refused)
    except Exception:
        _log.exception("publication failed", operation=operation.id)
        state, error = admin_pb2.OPERATION_STATE_REFUSED, "internal error; the logs name it"
    operation.state, operation.error, operation.ended_at = state, error, time.time()
    told = {"operation": operation.id, "version": operation.version, "before": operation.previous, "error": error}
    _log.info("publication ended", state=admin_pb2.OperationState.Name(state), **told)
    # The service may have ended meanwhile.
    if not loop.is_closed():
        loop.call_soon_threadsafe(operation.ended.set)
