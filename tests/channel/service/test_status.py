"""Every error of the channel has a status, and refusals carry their details."""

from __future__ import annotations

from urllib.parse import quote

import grpc
import pytest

from serendipity.channel import errors
from serendipity.channel.errors import ChannelError, FieldViolation, InvalidQuery
from serendipity.channel.service.status import refusal_of


def _kinds(kind: type[ChannelError]) -> list[type[ChannelError]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in _kinds(child))]


@pytest.mark.parametrize("kind", [k for k in _kinds(ChannelError) if k not in (ChannelError, InvalidQuery)])
def test_no_error_of_the_tree_ends_as_internal(kind: type[ChannelError]) -> None:
    refusal = refusal_of(kind("what was found"))
    assert refusal.code is not grpc.StatusCode.INTERNAL
    assert refusal.message == "what was found"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SnapshotUnavailable("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.DeadlinePassed("x"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.StateOverloaded("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.StateUnavailable("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.RecordCorrupt("x"), grpc.StatusCode.DATA_LOSS),
        (errors.PublicationRefused("x"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_errors_become_the_status_a_caller_can_act_on(error: ChannelError, code: grpc.StatusCode) -> None:
    assert refusal_of(error).code is code


def test_violations_are_carried_in_the_trailing_metadata() -> None:
    refusal = refusal_of(InvalidQuery([FieldViolation("count", "found 0, expected 1 to 1000")]))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message == "count: found 0, expected 1 to 1000"
    ((key, value),) = refusal.trailing_metadata
    assert key == "grpc-status-details-bin"
    assert b"found 0, expected 1 to 1000" in value  # type: ignore[operator]


@pytest.mark.parametrize(
    "error",
    [
        InvalidQuery([FieldViolation(f"requests[{i}].count", "found 9999, expected 1 to 1000") for i in range(512)]),
        errors.PublicationRefused("🦊" * 5_000),
    ],
)
def test_a_refusal_fits_into_the_metadata_a_client_takes(error: ChannelError) -> None:
    refusal = refusal_of(error)
    details = sum(len(value) * 4 / 3 for _, value in refusal.trailing_metadata)
    assert len(quote(refusal.message)) + details < 7_500
    if isinstance(error, InvalidQuery):
        assert refusal.message.startswith("496 more than these: requests[0].count: found 9999")
