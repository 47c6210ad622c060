"""What every call passes at the edge: its id, its measure, its log line, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from serendipity.channel.errors import ChannelError, Overloaded
from serendipity.channel.service.refusals import Refusals
from serendipity.channel.service.status import refusal_of
from serendipity.channel.service.telemetry import Call, Telemetry
from serendipity.channel.service.wire import parse

REQUEST_ID = "x-request-id"
"""Metadata key of a call's id; taken from the caller, else made here, and sent back in the trailing metadata."""

_WELL_FORMED = re.compile(r"[\x21-\x7e]{1,128}")
_log = structlog.stdlib.get_logger(__name__)

_Method = Callable[[Any, Any], Awaitable[Message]]


class Edge:
    """Runs handlers that know nothing of gRPC and ends their calls.

    max_calls: worked on at a time; more are refused. Calls of other servicers, health above all, do not count.
    """

    def __init__(self, telemetry: Telemetry, max_calls: float = math.inf) -> None:
        self._telemetry = telemetry
        self._max_calls = max_calls
        self._calls = 0
        self._refusals = Refusals()

    def add_service(self, server: grpc.aio.Server, service: str, servicer: object) -> None:
        """Let a servicer answer a service, given by its full name.

        Its methods take a request and its context, and raise what is told by `refusal_of`.
        """
        path = f"/{service}/"
        handlers = {
            path + method.name: grpc.unary_unary_rpc_method_handler(
                # Bytes: a request that cannot be read is refused like any other.
                partial(self._answer, getattr(servicer, method.name), GetMessageClass(method.input_type)),
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for method in descriptor_pool.Default().FindServiceByName(service).methods
        }
        server.add_generic_rpc_handlers((_Arrivals(handlers, self._telemetry),))

    async def _answer(
        self, method: _Method, kind: type[Message], data: bytes, context: grpc.aio.ServicerContext
    ) -> Message:
        """Answer a call, or abort it with the status of the error that was raised."""
        name = method.__name__
        request_id = _request_id(context)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        with self._telemetry.call(name) as call, structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                answer = await self._admitted(method, kind, data, context)
            except asyncio.CancelledError:
                # The caller's deadline has passed, or it has gone: nobody is left to tell.
                call.code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0.0 else "CANCELLED"
                _log.debug("call ended by its caller", method=name, code=call.code)
                raise
            except ChannelError as error:
                if not isinstance(error, Overloaded):
                    _log.warning(
                        "call refused",
                        method=name,
                        code=refusal_of(error).code.name,
                        error=f"{type(error).__name__}: {error}",
                    )
                await self._abort(context, call, request_id, error)
            except Exception:
                call.code = "INTERNAL"
                _log.exception("call failed", method=name)
                message = f"internal error; the logs name it under request id {request_id}"
                await context.abort(grpc.StatusCode.INTERNAL, message, ((REQUEST_ID, request_id),))
            _log.debug("call answered", method=name)
            return answer

    async def _admitted(
        self, method: _Method, kind: type[Message], data: bytes, context: grpc.aio.ServicerContext
    ) -> Message:
        """Let a method answer, unless too many calls are being answered. Who is refused is held as `Refusals` says."""
        try:
            if self._calls >= self._max_calls:
                raise Overloaded(f"busy: {self._max_calls} calls are being answered")
            self._calls += 1
            try:
                return await method(await parse(kind, data), context)
            finally:
                self._calls -= 1
        except Overloaded as error:
            self._refusals.log(method.__name__, error)
            await self._refusals.hold(context.time_remaining())
            raise

    async def _abort(self, context: grpc.aio.ServicerContext, call: Call, request_id: str, error: ChannelError) -> None:
        refusal = refusal_of(error)
        call.code = refusal.code.name
        await context.abort(refusal.code, refusal.message, ((REQUEST_ID, request_id), *refusal.trailing_metadata))


class _Arrivals(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Counts calls as they come: of one whose time is over before its turn, nothing else is ever heard."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler], telemetry: Telemetry) -> None:
        self._handlers = handlers
        self._telemetry = telemetry

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Find the handler of a call; None where there is none."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is not None:
            self._telemetry.arrived(handler_call_details.method.rpartition("/")[2])
        return handler


def _request_id(context: grpc.aio.ServicerContext) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and _WELL_FORMED.fullmatch(value):
            return value
    return uuid.uuid4().hex
