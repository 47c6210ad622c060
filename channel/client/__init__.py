"""A client for hosts; needs the base install only (grpcio, protobuf).

    async with AsyncSerendipityClient("recall.internal:50051") as client:
        result = await client.recall("user-42", count=20, explain=True)
        for candidate in result.candidates:
            print(candidate.item_id, candidate.score, candidate.reasons)
        await client.record_feedback([Feedback("user-42", result.candidates[0].item_id, "click", result.recall_id)])

`SerendipityClient` is the same for code without an event loop; `AdminClient` publishes snapshots.
"""

from serendipity.channel.client.admin import AdminClient
from serendipity.channel.client.channel_client import AsyncSerendipityClient, SerendipityClient
from serendipity.channel.client.credentials import Credentials
from serendipity.channel.client.errors import ClientError, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from serendipity.channel.client.messages import (
    Candidate,
    Feedback,
    Reason,
    RecallResult,
    RecentEvent,
    Wishes,
    recall_request,
)

__all__ = [
    "AdminClient",
    "AsyncSerendipityClient",
    "Candidate",
    "ClientError",
    "Credentials",
    "DeadlineExceeded",
    "Feedback",
    "InvalidRequest",
    "Overloaded",
    "Reason",
    "RecallResult",
    "RecentEvent",
    "SerendipityClient",
    "Unavailable",
    "Wishes",
    "recall_request",
]
