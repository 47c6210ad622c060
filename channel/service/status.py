"""The one place where the channel's errors become gRPC statuses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from serendipity.channel.errors import (
    ChannelError,
    DeadlinePassed,
    GenerationError,
    InvalidQuery,
    Overloaded,
    PermissionDenied,
    PublicationRefused,
    RecordCorrupt,
    SnapshotUnavailable,
    StateFull,
    StateOverloaded,
    StateUnavailable,
    StoreError,
    TowerError,
    Unauthenticated,
)

_CODES: tuple[tuple[type[ChannelError], grpc.StatusCode], ...] = (
    # The first that matches counts, so special cases stand before their base.
    (InvalidQuery, grpc.StatusCode.INVALID_ARGUMENT),
    (SnapshotUnavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlinePassed, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (StateOverloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StateFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StateUnavailable, grpc.StatusCode.UNAVAILABLE),
    (RecordCorrupt, grpc.StatusCode.DATA_LOSS),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (PublicationRefused, grpc.StatusCode.FAILED_PRECONDITION),
    (TowerError, grpc.StatusCode.UNAVAILABLE),
    (GenerationError, grpc.StatusCode.UNAVAILABLE),
)

_LISTED = 16
"""Violations that are named."""

_MESSAGE_BYTES = 1_200
"""Length of a message. It travels percent-encoded, beside the violations, in trailing metadata, of which clients take
8 KiB in all: beyond that they see RESOURCE_EXHAUSTED instead of the refusal."""


@dataclass(frozen=True)
class Refusal:
    """How a call ends that cannot be answered: code, message and the trailing metadata that carry its details."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()


def refusal_of(error: ChannelError) -> Refusal:
    """Turn an error of the channel into a status with its details.

    InvalidQuery's first violations become a google.rpc.BadRequest, the hint of Overloaded a google.rpc.RetryInfo. A
    message that is too long for metadata is cut.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    if isinstance(error, Overloaded):
        return Refusal(code, str(error), _retry_info(math.ceil(error.retry_after * 100) * 10))
    if not isinstance(error, InvalidQuery):
        return Refusal(code, _cut(str(error)))
    listed, more = error.violations[:_LISTED], len(error.violations) - _LISTED
    bad_request = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in listed
        ]
    )
    described = "; ".join(f"{v.field}: {v.description}" for v in listed)
    message = f"{more} more than these: {described}" if more > 0 else described
    return Refusal(code, _cut(message), _details(code_pb2.INVALID_ARGUMENT, _cut(message), bad_request))


@lru_cache(maxsize=128)
def _retry_info(milliseconds: int) -> tuple[tuple[str, str | bytes], ...]:
    """A hint as metadata; kept, since refusing must cost next to nothing just when there is no time."""
    retry_info = error_details_pb2.RetryInfo()
    retry_info.retry_delay.FromMilliseconds(milliseconds)
    # gRPC's own name for the same hint: clients that retry RESOURCE_EXHAUSTED by their service configuration obey it.
    pushback = ("grpc-retry-pushback-ms", str(milliseconds))
    return (*_details(code_pb2.RESOURCE_EXHAUSTED, "busy", retry_info), pushback)


def _details(code: int, message: str, detail: Message) -> tuple[tuple[str, str | bytes], ...]:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status = status_pb2.Status(code=code, message=message, details=[packed])
    return tuple(rpc_status.to_status(status).trailing_metadata)


def _cut(message: str) -> str:
    encoded = message.encode()
    return message if len(encoded) <= _MESSAGE_BYTES else encoded[:_MESSAGE_BYTES].decode(errors="ignore") + " …"
