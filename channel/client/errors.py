"""What a call of the client can fail with.

ClientError                   code: the gRPC status; request_id: where the service's logs name it, if it answered
├── InvalidRequest            violations: (field, what was found and expected)
├── DeadlineExceeded          no answer in time
├── Overloaded                busy; retry_after: seconds until another try may be worth it
└── Unavailable               not reached after retries, or without a snapshot
"""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"


class ClientError(Exception):
    """A call failed."""

    def __init__(self, code: grpc.StatusCode, message: str, request_id: str) -> None:
        self.code = code
        self.request_id = request_id
        super().__init__(f"{code.name}: {message}" + (f" (request {request_id})" if request_id else ""))


class InvalidRequest(ClientError):
    """The service refused the request as it stands. violations: (field, description) pairs."""

    def __init__(self, code: grpc.StatusCode, message: str, request_id: str, violations: tuple[tuple[str, str], ...]):
        self.violations = violations
        super().__init__(code, message, request_id)


class DeadlineExceeded(ClientError):
    """No answer came in time."""


class Overloaded(ClientError):
    """The service is too busy to answer in time. retry_after: seconds until another try may be worth it."""

    def __init__(self, code: grpc.StatusCode, message: str, request_id: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(code, message, request_id)


class Unavailable(ClientError):
    """The service could not be reached, or cannot serve now."""


def error_of(error: grpc.aio.AioRpcError) -> ClientError:
    """Turn gRPC's error into the client's."""
    trailing = dict(error.trailing_metadata() or ())
    code, message = error.code(), error.details() or ""
    request_id = str(trailing.get("x-request-id", ""))
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(code, message, request_id, _violations(trailing.get(_DETAILS)))
    # Without a hint it is no matter of time: a message too large, or a store that is full.
    if "grpc-retry-pushback-ms" in trailing:
        return Overloaded(code, message, request_id, int(trailing["grpc-retry-pushback-ms"]) / 1_000)
    return error_of_code(code, message, request_id)


def error_of_code(code: grpc.StatusCode, message: str, request_id: str) -> ClientError:
    """Make the error of a status that carries no details."""
    kinds = {grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded, grpc.StatusCode.UNAVAILABLE: Unavailable}
    return kinds.get(code, ClientError)(code, message, request_id)


def _violations(details: str | bytes | None) -> tuple[tuple[str, str], ...]:
    if not isinstance(details, bytes):
        return ()
    found = []
    for detail in status_pb2.Status.FromString(details).details:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            found += [(violation.field, violation.description) for violation in bad_request.field_violations]
    return tuple(found)
