"""What every call passes at the edge: its id, its caller, its measure, its log line, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from serendipity.channel.errors import ChannelError, FieldViolation, InvalidQuery, Overloaded
from serendipity.channel.service.callers import ANYBODY, Caller, Callers
from serendipity.channel.service.process_telemetry import Call, CallTelemetry
from serendipity.channel.service.refusals import Refusals
from serendipity.channel.service.status import Refusal, refusal_of
from serendipity.channel.service.tracing import Tracing
from serendipity.channel.service.wire import parse

REQUEST_ID = "x-request-id"
"""Metadata key of a call's id; taken from the caller, else made here, and sent back in the trailing metadata."""

_WELL_FORMED = re.compile(r"[\x21-\x7e]{1,128}")
_UNTRACED = contextlib.nullcontext()
_log = structlog.stdlib.get_logger(__name__)

Admit = Callable[[float | None], None]
"""Raises Overloaded or DeadlinePassed if a call that has so many seconds left, None without a deadline, cannot be
answered: before it is even read."""


@dataclass(frozen=True)
class _Method:
    name: str
    answer: Callable[[Any, Any], Awaitable[Message]]
    request: type[Message]
    admit: Admit | None


class Edge:
    """Runs handlers that know nothing of gRPC and ends their calls.

    callers: who may call; None: anybody. max_calls: worked on at a time; more are refused. Calls of other servicers,
    health above all, do not count, and are anybody's.
    """

    def __init__(
        self,
        telemetry: CallTelemetry,
        callers: Callers | None = None,
        max_calls: float = math.inf,
        tracing: Tracing | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._tracing = tracing
        self._callers = callers
        self._max_calls = max_calls
        self._calls = 0
        self._refusals = Refusals()

    def add_service(
        self, server: grpc.aio.Server, service: str, servicer: object, admissions: Mapping[str, Admit] | None = None
    ) -> None:
        """Let a servicer answer a service, given by its full name. admissions: by method, where it has one.

        Its methods take a request and its context, and raise what is told by `refusal_of`.
        """
        handlers = {}
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            answered = _Method(
                method.name,
                getattr(servicer, method.name),
                GetMessageClass(method.input_type),
                (admissions or {}).get(method.name),
            )
            # As a stream of one request: it need not be taken from the connection if it is refused. And as bytes: one
            # that cannot be read is refused like any other.
            handlers[f"/{service}/{method.name}"] = grpc.stream_unary_rpc_method_handler(
                partial(self._answer, answered),
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
        server.add_generic_rpc_handlers((_Arrivals(handlers, self._telemetry),))

    async def _answer(self, method: _Method, _: object, context: grpc.aio.ServicerContext) -> Message | None:
        """Answer a call, or end it with the status of the error that was raised."""
        metadata = dict(context.invocation_metadata() or ())
        request_id = _request_id(metadata)
        with self._telemetry.call(method.name) as call, self._traced(call, metadata):
            try:
                caller = self._callers.of(metadata, context) if self._callers else ANYBODY
                answer = await self._admitted(method, caller, request_id, context)
                context.set_trailing_metadata(((REQUEST_ID, request_id),))
                return answer
            except asyncio.CancelledError:
                # The caller's deadline has passed, or it has gone: nobody is left to tell.
                call.code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0.0 else "CANCELLED"
                _log.debug("call ended by its caller", method=method.name, code=call.code, request_id=request_id)
                raise
            except Exception as error:
                refusal = self._refusal(method.name, request_id, error)
                call.code, call.error = refusal.code.name, type(error).__name__
            # Setting a status costs less than aborting, and who is refused must cost next to nothing.
            context.set_code(refusal.code)
            context.set_details(refusal.message)
            context.set_trailing_metadata(((REQUEST_ID, request_id), *refusal.trailing_metadata))
            return None

    def _traced(self, call: Call, metadata: Mapping[str, str | bytes]) -> contextlib.AbstractContextManager[None]:
        return self._tracing.call(call, metadata) if self._tracing else _UNTRACED

    async def _admitted(
        self, method: _Method, caller: Caller, request_id: str, context: grpc.aio.ServicerContext
    ) -> Message:
        """Let a method answer, unless it has no time for one more or too many calls are being answered.

        Who is refused is held as `Refusals` says.
        """
        try:
            with caller:
                if method.admit:
                    method.admit(context.time_remaining())
                if self._calls >= self._max_calls:
                    raise Overloaded(f"busy: {self._max_calls} calls are being answered")
                self._calls += 1
                try:
                    with structlog.contextvars.bound_contextvars(request_id=request_id, caller=caller.name):
                        return await method.answer(await parse(method.request, await _read(method, context)), context)
                finally:
                    self._calls -= 1
        except Overloaded:
            await self._refusals.hold(context.time_remaining())
            raise

    def _refusal(self, method: str, request_id: str, error: Exception) -> Refusal:
        """Log an error and say what its caller is told."""
        if not isinstance(error, ChannelError):
            _log.error("call failed", method=method, request_id=request_id, exc_info=error)
            message = f"internal error; the logs name it under request id {request_id}"
            return Refusal(grpc.StatusCode.INTERNAL, message)
        refusal = refusal_of(error)
        told = f"{type(error).__name__}: {error}"
        _log.warning("call refused", method=method, code=refusal.code.name, error=told, request_id=request_id)
        return refusal


async def _read(method: _Method, context: grpc.aio.ServicerContext) -> bytes:
    data = await context.read()
    if not isinstance(data, bytes):
        raise InvalidQuery([FieldViolation(method.request.DESCRIPTOR.name, "found no message, expected one")])
    return data


class _Arrivals(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Counts calls as they come: of one whose time is over before its turn, nothing else is ever heard."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler], telemetry: CallTelemetry) -> None:
        self._handlers = handlers
        self._telemetry = telemetry

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Find the handler of a call; None where there is none."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is not None:
            self._telemetry.arrived(handler_call_details.method.rpartition("/")[2])
        return handler


def _request_id(metadata: Mapping[str, str | bytes]) -> str:
    given = metadata.get(REQUEST_ID)
    return given if isinstance(given, str) and _WELL_FORMED.fullmatch(given) else secrets.token_hex(16)
