"""Publications in the background: begun, followed, cancelled; one runs at a time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
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
    """told: how it fares, written by its thread and read by the event loop."""

    told: admin_pb2.Operation
    is_cancelled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def on_progress(self, step: str, share: float) -> None:
        if self.is_cancelled:
            raise PublicationCancelled(f"{self.told.version}: cancelled while {step}")
        self.told.step, self.told.progress = step, share


class Operations:
    """The operations of one service. Belongs to one event loop; all methods raise PublicationRefused."""

    def __init__(self) -> None:
        self._known: dict[str, _Operation] = {}

    def begin(self, version: str, previous: str, publish: Callable[[OnProgress], Publication]) -> admin_pb2.Operation:
        """Begin to make a version the wanted one, and say how it fares; or how one fares that does so already.

        previous: version wanted now. Refused while another version is being published.
        """
        for running in self._known.values():
            if running.told.state == admin_pb2.OPERATION_STATE_RUNNING:
                if running.told.version == version:
                    return running.told
                busy = f"operation {running.told.id} is publishing {running.told.version}"
                raise PublicationRefused(f"{busy}: wait for its end, or cancel it")
        state = admin_pb2.OPERATION_STATE_RUNNING
        told = admin_pb2.Operation(id=secrets.token_hex(8), version=version, state=state, previous_version=previous)
        told.started_at.GetCurrentTime()
        operation = self._known[told.id] = _Operation(told)
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        # The edge has bound who calls: that, too, stands in these lines.
        _log.info("publication begun", operation=told.id, version=version, before=previous)
        # Nobody waits for it when the service ends: until the link is moved, which is one step, nothing has changed.
        arguments = (operation, publish, asyncio.get_running_loop())
        threading.Thread(target=_run, args=arguments, name="publication", daemon=True).start()
        return told

    async def wait(self, operation_id: str, seconds: float) -> admin_pb2.Operation:
        """Say how an operation fares, the latest by default, once it has ended or after so long."""
        operation = self._find(operation_id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(operation.ended.wait(), seconds)
        return operation.told

    def cancel(self, operation_id: str) -> admin_pb2.Operation:
        """Tell an operation to end before it takes effect."""
        operation = self._find(operation_id)
        operation.is_cancelled = True
        _log.info("publication cancelled", operation=operation_id)
        return operation.told

    def _find(self, operation_id: str) -> _Operation:
        found = self._known.get(operation_id or next(reversed(self._known), ""))
        if found is None:
            expected = "expected one begun since this service was started; GetSnapshot tells what is wanted"
            raise PublicationRefused(f"operation: found {operation_id!r}, {expected}")
        return found


def _run(operation: _Operation, publish: Callable[[OnProgress], Publication], loop: asyncio.AbstractEventLoop) -> None:
    told, state = operation.told, admin_pb2.OPERATION_STATE_REFUSED
    try:
        publication = publish(operation.on_progress)
        told.version, told.previous_version = publication.version, publication.previous
        state = admin_pb2.OPERATION_STATE_DONE
    except ChannelError as error:
        told.error = str(error)
        if isinstance(error, PublicationCancelled):
            state = admin_pb2.OPERATION_STATE_CANCELLED
    except Exception:
        _log.exception("publication failed", operation=told.id)
        told.error = "internal error; the logs name it"
    told.ended_at.GetCurrentTime()
    told.state = state
    name = admin_pb2.OperationState.Name(state)
    _log.info(
        "publication ended",
        operation=told.id,
        state=name,
        version=told.version,
        before=told.previous_version,
        error=told.error,
    )
    # The service may have ended meanwhile.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(operation.ended.set)
