"""The one place where the channel's errors become gRPC statuses."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from serendipity.channel.errors import (
    ChannelError,
    DeadlinePassed,
    GenerationError,
    InvalidQuery,
    PublicationRefused,
    RecordCorrupt,
    SnapshotUnavailable,
    StateFull,
    StateOverloaded,
    StateUnavailable,
    StoreError,
    TowerError,
)

_CODES: tuple[tuple[type[ChannelError], grpc.StatusCode], ...] = (
    # The first that matches counts, so special cases stand before their base.
    (InvalidQuery, grpc.StatusCode.INVALID_ARGUMENT),
    (SnapshotUnavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlinePassed, grpc.StatusCode.DEADLINE_EXCEEDED),
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
    """Turn an error of the channel into a status; InvalidQuery's first violations become google.rpc.BadRequest details.

    A message that is too long for metadata is cut.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
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
    detail = any_pb2.Any()
    detail.Pack(bad_request)
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=_cut(message), details=[detail])
    return Refusal(code, _cut(message), tuple(rpc_status.to_status(status).trailing_metadata))


def _cut(message: str) -> str:
    encoded = message.encode()
    return message if len(encoded) <= _MESSAGE_BYTES else encoded[:_MESSAGE_BYTES].decode(errors="ignore") + " …"
