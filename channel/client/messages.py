"""The client's words: rows and plain types on the host's side, packed columns on the wire."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, cast

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from serendipity.channel.client.errors import ClientError, error_of_code
from serendipity.v1 import channel_pb2

EventName = Literal["exposure", "click", "order", "view", "favourite", "search", "not_interested"]


@dataclass(frozen=True)
class RecentEvent:
    """Something the user did in this session. time: Unix seconds or an aware datetime; None: now."""

    item_id: str
    type: EventName = "click"
    time: float | datetime.datetime | None = None
    query: str = ""


@dataclass(frozen=True)
class Feedback:
    """Something a user did with an item, or searched for: type "search", `query` as typed and no item.

    recall_id: the answer it came from, empty if from elsewhere; time: Unix seconds or an aware datetime, None: now;
    event_id: unique, chosen by the host; empty: the client makes one.
    """

    user_id: str
    item_id: str = ""
    type: EventName = "click"
    recall_id: str = ""
    time: float | datetime.datetime | None = None
    event_id: str = ""
    query: str = ""


@dataclass(frozen=True)
class Reason:
    """Why an item was found: seed → core demand → latent interest; `text` says it in a sentence.

    kind, relation: with the names, what a host needs to say it in words of its own; ReasonKind and ReasonRelation of
    channel.proto in lower case ("search", "leads_to").
    """

    source: str
    seed: str
    core_demand: str
    latent_interest: str
    text: str
    weight: float
    kind: str
    relation: str
    recent_categories: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """One item. score: P(interaction) 0 to 1; reasons: of its own source first; both they and the title are empty
    unless explained."""

    item_id: str
    score: float
    source: str
    relevance: float
    unexpectedness: float
    category: str
    reasons: tuple[Reason, ...]
    features: Mapping[str, float]
    title: str = ""


@dataclass(frozen=True)
class RecallResult:
    """An answer as rows, best first. message: the same as it came, with statuses, counts, versions and timings.

    warnings: (code, field, message); shortfalls: (cause, message), why there are fewer candidates than asked for; codes
    and causes in lower case as in channel.proto.
    """

    recall_id: str
    candidates: tuple[Candidate, ...]
    degraded: bool
    degraded_reasons: tuple[str, ...]
    warnings: tuple[tuple[str, str, str], ...]
    shortfalls: tuple[tuple[str, str], ...]
    snapshot: str
    message: channel_pb2.RecallResponse


class Wishes(TypedDict, total=False):
    """What a request may ask for, as in RecallRequest.

    exclude_item_ids: what the host has already, so that the channel adds to it, and what it does not want;
    quotas: source ("interest", "collaborative", "group", "graph") → at least, at most (0: no bound beside a minimum,
    none of the source without one); allow_repeats: "soft" and "off" may return what the user has just clicked or
    ordered; surprise: what unexpectedness counts beside relevance, 0 to 1; shadow: answer and log, and return no
    candidates.
    """

    count: int
    recent_events: Iterable[RecentEvent]
    profile: Mapping[str, str]
    exclude_item_ids: Iterable[str]
    allow_categories: Iterable[str]
    deny_categories: Iterable[str]
    novelty: Literal["strict", "soft", "off"]
    quotas: Mapping[str, tuple[int, int]]
    experiment_tag: str
    explain: bool
    allow_repeats: bool
    surprise: float
    shadow: bool


def recall_request(user_id: str, **wishes: Unpack[Wishes]) -> channel_pb2.RecallRequest:
    """Build a request, for `recall_batch`; by default for 50 candidates."""
    events = wishes.pop("recent_events", None) or ()
    quotas = wishes.pop("quotas", None) or {}
    novelty = wishes.pop("novelty", "strict")
    return channel_pb2.RecallRequest(
        user_id=user_id,
        recent_events=[
            channel_pb2.Event(item_id=e.item_id, type=_event_type(e.type), time=_timestamp(e.time), query=e.query)
            for e in events
        ],
        novelty_policy=f"NOVELTY_POLICY_{novelty.upper()}",
        source_quotas=[
            channel_pb2.SourceQuota(source=f"SOURCE_{source.upper()}", min_count=least, max_count=most)
            for source, (least, most) in quotas.items()
        ],
        **{"count": 50, **wishes},  # type: ignore[arg-type]  # what is left has the message's own names and types
    )


def to_feedback_event(feedback: Feedback, event_id: str) -> channel_pb2.FeedbackEvent:
    """Build the event of one piece of feedback."""
    return channel_pb2.FeedbackEvent(
        event_id=event_id,
        user_id=feedback.user_id,
        recall_id=feedback.recall_id,
        item_id=feedback.item_id,
        type=_event_type(feedback.type),
        time=_timestamp(feedback.time),
        query=feedback.query,
    )


def to_result(response: channel_pb2.RecallResponse) -> RecallResult:
    """Turn an answer's columns into rows."""
    reasons = [_reason(reason) for reason in response.reasons]
    categories = list(response.categories)
    names = list(response.rank_features.names)
    values = list(response.rank_features.values)
    width = len(names)
    columns = zip(
        response.item_ids,
        response.scores,
        [_source(number) for number in response.sources],
        response.relevance,
        response.unexpectedness,
        response.category_indexes,
        response.titles or itertools.repeat(""),
        strict=False,
    )
    candidates = tuple(
        Candidate(
            item_id=item_id,
            score=score,
            source=source,
            relevance=relevance,
            unexpectedness=unexpectedness,
            category=categories[category],
            reasons=reasons_of_row,
            features=dict(zip(names, values[row * width : (row + 1) * width], strict=True)),
            title=title,
        )
        for row, (
            (item_id, score, source, relevance, unexpectedness, category, title),
            reasons_of_row,
        ) in enumerate(zip(columns, _reasons_by_row(response, reasons), strict=False))
    )
    return RecallResult(
        recall_id=response.recall_id,
        candidates=candidates,
        degraded=response.degraded,
        degraded_reasons=tuple(response.degraded_reasons),
        # The generated types take them for Python's own class of that name.
        warnings=tuple(
            (_word(channel_pb2.WarningCode, "WARNING_CODE_", w.code), w.field, w.message)
            for w in cast(Any, response.warnings)
        ),
        shortfalls=tuple(
            (_word(channel_pb2.ShortfallCause, "SHORTFALL_CAUSE_", s.cause), s.message) for s in response.shortfalls
        ),
        snapshot=response.versions.snapshot,
        message=response,
    )


def to_results(response: channel_pb2.RecallBatchResponse) -> list[RecallResult | ClientError]:
    """Turn a batch's answers into rows; one whose status is not OK into the error it is."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return [
        error_of_code(codes.get(status.code, grpc.StatusCode.UNKNOWN), status.message, "")
        if status.code
        else to_result(answer)
        for answer, status in zip(response.responses, response.statuses, strict=True)
    ]


def _reasons_by_row(response: channel_pb2.RecallResponse, reasons: list[Reason]) -> Iterable[tuple[Reason, ...]]:
    """Every candidate's reasons, that of its own source first; none at all unless they were asked for."""
    if not response.all_reason_offsets:
        return itertools.repeat(())
    indexes, bounds = list(response.all_reason_indexes), list(response.all_reason_offsets)
    return [
        (reasons[own], *(reasons[index] for index in indexes[start:end] if index != own))
        for own, (start, end) in zip(response.reason_indexes, itertools.pairwise(bounds), strict=True)
    ]


def _reason(reason: channel_pb2.Reason) -> Reason:
    return Reason(
        source=_source(reason.source),
        seed=reason.seed,
        core_demand=reason.core_demand,
        latent_interest=reason.latent_interest,
        text=reason.text,
        weight=reason.weight,
        kind=_word(channel_pb2.ReasonKind, "REASON_KIND_", reason.kind),
        relation=_word(channel_pb2.ReasonRelation, "REASON_RELATION_", reason.relation),
        recent_categories=tuple(reason.recent_categories),
    )


def _source(number: int) -> str:
    return _word(channel_pb2.Source, "SOURCE_", number)


def _word(enum: Any, prefix: str, number: int) -> str:
    """Name a value in lower case; a service newer than this client may send values that it does not know."""
    try:
        return str(enum.Name(number)).removeprefix(prefix).lower()
    except ValueError:
        return f"{prefix.split('_')[-2].lower()}-{number}"


def _event_type(name: EventName) -> str:
    return f"EVENT_TYPE_{name.upper()}"


def _timestamp(time: float | datetime.datetime | None) -> Timestamp | None:
    if time is None:
        return None
    seconds = time.timestamp() if isinstance(time, datetime.datetime) else time
    # Whatever it is: the service says what is wrong with it.
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return Timestamp(seconds=whole, nanos=nanos)
