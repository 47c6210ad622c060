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
)


@dataclass(frozen=True)
class Refusal:
    """How a call ends that cannot be answered: code, message and the trailing metadata that carry its details."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()


def refusal_of(error: ChannelError) -> Refusal:
    """Turn an error of the channel into a status; InvalidQuery's violations become google.rpc.BadRequest details."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    if not isinstance(error, InvalidQuery):
        return Refusal(code, str(error))
    bad_request = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
    )
    detail = any_pb2.Any()
    detail.Pack(bad_request)
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error), details=[detail])
    return Refusal(code, str(error), tuple(rpc_status.to_status(status).trailing_metadata))
