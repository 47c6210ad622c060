"""One batch of users: what is known of them, InterestGPT's answers, what grounds of these, records."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from serendipity.channel.errors import RecordCorrupt
from serendipity.channel.nearline.context import KnownUser
from serendipity.channel.nearline.encodings import EncodeAhead
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt
from serendipity.channel.nearline.outcome import BatchDone, Completed, Failed, Outcome, Unneeded
from serendipity.channel.nearline.refresh_model import RefreshModel
from serendipity.channel.nearline.settlement import Settlement, ask_in_halves, read_if_readable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.interests.answer import AnswerError, Proposal, read_answer
from serendipity.interests.grounding import GroundedInterest, ground_answer
from serendipity.interests.life import expires_at
from serendipity.interests.prompt import bounded, render
from serendipity.novelty import NO_CATEGORY
from serendipity.v1 import records_pb2

MAX_INTERESTS = 16
"""Interests of a hot record at most, whatever a spec says: it stays within 120 bytes."""


@dataclass(frozen=True)
class Refreshed(BatchDone):
    """What became of a batch of users.

    prompt_tokens, completion_tokens: as the model counted them; dropped: reason → proposals of the answers that were
    not stored.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """An entry whose user the model is asked about."""

    entry: records_pb2.NearlineEntry
    user: KnownUser
    prompt: str
    excluded: list[str]


class Refresher:
    """Generates the interests of queued users.

    encode: the text encoder of the snapshots' interest vectors; timeout: seconds for the answers of one batch;
    quiet_seconds: for which a user of whom nothing is known is not queued again.
    """

    def __init__(
        self,
        store: NearlineStore,
        settlement: Settlement,
        gpt: InterestGpt,
        encode: EncodeAhead,
        *,
        timeout: float,
        quiet_seconds: float,
    ) -> None:
        self._store = store
        self._settlement = settlement
        self._gpt = gpt
        self._encode = encode
        self._timeout = timeout
        self._quiet_seconds = quiet_seconds

    async def refresh(self, entries: Sequence[records_pb2.NearlineEntry], model: RefreshModel, now: int) -> Refreshed:
        """Bring entries to their end: records, a failure that is put off, or nothing to do.

        now: moment the interests are generated as of, Unix seconds. Raises ModelUnavailable,
        StateUnavailable and StoreUnavailable; then nothing is settled, the entries stay as they were, and it counts
        against none of them.
        """
        start = time.perf_counter()
        outcomes: list[Outcome] = []
        asked = await asyncio.to_thread(self._read, entries, model, now, outcomes)
        answered = await self._ask(asked, model.spec, outcomes)
        proposed = _parse(answered, outcomes)
        texts = (text for _, proposals in proposed for text in model.grounder.texts(proposals))
        refused = await model.encodings.encode_ahead(texts, self._encode)
        dropped = await asyncio.to_thread(_ground, proposed, refused, model, now, outcomes)
        tokens = {
            "prompt_tokens": sum(answer.prompt_tokens for _, answer in answered),
            "completion_tokens": sum(answer.completion_tokens for _, answer in answered),
        }
        settled, forgotten = await asyncio.to_thread(self._settlement.settle, outcomes, entries, tokens)
        return Refreshed(
            settled=settled,
            forgotten=forgotten,
            asked=len(answered),
            **tokens,
            seconds=time.perf_counter() - start,
            dropped=dropped,
        )

    def _read(
        self,
        entries: Sequence[records_pb2.NearlineEntry],
        model: RefreshModel,
        now: int,
        outcomes: list[Outcome],
    ) -> list[_Asked]:
        """Read users and write their prompts; those who need none get their outcome."""
        asked = []
        for entry in entries:
            if self._settlement.is_forgotten(entry):
                continue
            if entry.cause != records_pb2.REFRESH_CAUSE_OPERATOR and self._is_fresh(entry, model, now):
                # Wanted once more while it was being generated.
                outcomes.append(Unneeded(entry))
                continue
            try:
                user = model.users.read(entry.user_id, now)
            except RecordCorrupt as error:
                outcomes.append(Failed(entry, str(error)))
                continue
            if bounded(user.facts).is_empty:
                outcomes.append(Unneeded(entry, quiet_until=int(self._settlement.clock() + self._quiet_seconds)))
            else:
                asked.append(_Asked(entry, user, render(user.facts, model.style), _known_names(user, model)))
        return asked

    def _is_fresh(self, entry: records_pb2.NearlineEntry, model: RefreshModel, now: int) -> bool:
        stored = read_if_readable(partial(self._store.interests, entry.user_id), entry)
        return stored is not None and (
            stored.taxonomy_hash == model.snapshot.taxonomy_hash
            and stored.vocabulary_id == model.snapshot.vocabulary_id
            and now < stored.expires_at
        )

    async def _ask(
        self, asked: Sequence[_Asked], spec: records_pb2.InterestGptSpec, outcomes: list[Outcome]
    ) -> list[tuple[_Asked, Answer]]:
        """Ask the model; prompts that it refuses fail."""
        return await ask_in_halves(
            asked,
            lambda some: self._gpt.answers(
                spec, [one.prompt for one in some], self._timeout, excluded=[one.excluded for one in some]
            ),
            lambda one, error: outcomes.append(Failed(one.entry, str(error))),
        )


def _parse(answered: Sequence[tuple[_Asked, Answer]], outcomes: list[Outcome]) -> list[tuple[_Asked, list[Proposal]]]:
    proposed = []
    for one, answer in answered:
        try:
            proposed.append((one, read_answer(answer.text, whole=False)))
        except AnswerError as error:
            outcomes.append(Failed(one.entry, str(error)))
    return proposed


def _ground(
    proposed: Sequence[tuple[_Asked, list[Proposal]]],
    refused: set[str],
    model: RefreshModel,
    now: int,
    outcomes: list[Outcome],
) -> dict[str, int]:
    """Ground what was proposed. refused: texts the encoder refuses. Returns reason → proposals dropped."""
    dropped: Counter[str] = Counter()
    for one, proposals in proposed:
        if bad := refused.intersection(model.grounder.texts(proposals)):
            outcomes.append(Failed(one.entry, f"answer: the text encoder refuses {min(bad)!r}"))
            continue
        answer = ground_answer(
            proposals, one.user.facts, model.grounder, one.user.known, min(model.spec.num_interests, MAX_INTERESTS)
        )
        dropped.update(answer.dropped)
        if answer.interests:
            outcomes.append(_completed(one.entry, answer.interests, model, now))
        else:
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(answer.dropped.items()))
            outcomes.append(Failed(one.entry, f"answer: found no interest that may be stored ({why or 'none at all'})"))
    return dict(dropped)


def _completed(
    entry: records_pb2.NearlineEntry, interests: Sequence[GroundedInterest], model: RefreshModel, now: int
) -> Completed:
    rank_weights = model.spec.rank_weights
    weights = [rank_weights[min(rank, len(rank_weights) - 1)] for rank in range(len(interests))]
    return Completed(
        entry,
        (
            records_pb2.InterestsRecord(
                node_ids=[interest.node.node_id for interest in interests],
                weights=[round(1000 * min(max(weight, 0.0), 1.0)) for weight in weights],
                generated_at=now,
                expires_at=expires_at(entry.user_id, now),
                taxonomy_hash=model.snapshot.taxonomy_hash,
                vocabulary_id=model.snapshot.vocabulary_id,
            ),
            records_pb2.InterestPathsRecord(
                paths=[interest.path for interest in interests], reasoner=model.spec.model_name
            ),
        ),
    )


def _known_names(user: KnownUser, model: RefreshModel) -> list[str]:
    """Name the categories among the latest 200 clicks: an answer that names one wastes a place."""
    return [model.snapshot.category_names[number - 1] for number in sorted(user.known) if number != NO_CATEGORY]
