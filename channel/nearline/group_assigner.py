"""One batch of users without a group: their clicks, the group encoder's answer, records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt, SnapshotUnavailable
from serendipity.channel.nearline.context import ReadFeedback
from serendipity.channel.nearline.group_encoder import GroupEncoder
from serendipity.channel.nearline.outcome import BatchDone, Completed, Failed, Outcome, Unneeded
from serendipity.channel.nearline.settlement import Settlement, ask_in_halves, read_if_readable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.feedback_clicks import feedback_clicks
from serendipity.groups.sequence import Counted, LongSequenceRule, long_sequence
from serendipity.novelty import CLICK_WINDOW, Clicks, latest
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class GroupModel:
    """The group encoder as a snapshot names it, and the users it is asked about. feedback: of this host."""

    spec: records_pb2.GroupSpec
    rule: LongSequenceRule
    snapshot: Snapshot
    feedback: ReadFeedback

    @classmethod
    def open(cls, snapshot: Snapshot, feedback: ReadFeedback) -> GroupModel | None:
        """Take what a snapshot says; None if it names no group model. Raises SnapshotUnavailable for a bad spec."""
        spec = snapshot.group_spec
        if spec is None:
            return None
        path = snapshot.directory / layout.MANIFEST
        counted = next((known for known in get_args(Counted) if known == spec.counted), None)
        if counted is None:
            raise SnapshotUnavailable(f"{path}: counted: found {spec.counted!r}, expected one of {get_args(Counted)}")
        if not spec.sequence_length:
            raise SnapshotUnavailable(f"{path}: groups: sequence_length: found 0, expected at least 1")
        rule = LongSequenceRule(spec.click_threshold, counted, spec.sequence_length, spec.min_clicks)
        return cls(spec, rule, snapshot, feedback)

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.spec.model_name

    def close(self) -> None:
        """Nothing was opened beside the snapshot."""

    def has_group(self, record: records_pb2.UserGroupRecord) -> bool:
        """Tell whether a user's group is one of this model; requests do not take one beyond them, and go on asking."""
        return record.group_model_id == self.spec.group_model_id and record.group_id <= self.spec.num_groups

    def read(self, user_id: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Lay a user out for the encoder: kept clicks of snapshot and feedback [sequence_length], profile [P].

        Raises RecordCorrupt, StoreUnavailable and StateUnavailable.
        """
        user = self.snapshot.users.read(layout.user_key(user_id))
        recent = feedback_clicks(self.snapshot, self.feedback(user_id) or records_pb2.UserFeedbackRecord())
        # All that both hold: the more is seen, the more clicks reach the threshold.
        clicks = latest(recent, user.clicks if user else Clicks.empty(), window=2 * CLICK_WINDOW)
        return long_sequence(clicks, self.rule), self._profile(user.profile.tolist() if user else [])

    def _profile(self, stored: list[int]) -> NDArray[np.int32]:
        """Number a user's profile values as the encoder does; the snapshot's records number them as the tower does."""
        fields = self.snapshot.assembler.profile_fields
        told = {
            name: {number: value for value, number in values.items()}.get(number, "")
            for (name, values), number in zip(fields.items(), stored[: len(fields)], strict=False)
        }
        profile = np.zeros(max(1, len(self.spec.profile_fields)), np.int32)
        for column, field in enumerate(self.spec.profile_fields):
            numbers = {value: i + 1 for i, value in enumerate(field.values)}
            profile[column] = numbers.get(told.get(field.name, ""), 0)
        return profile


@dataclass(frozen=True)
class _Asked:
    """An entry whose user the encoder is asked about."""

    entry: records_pb2.NearlineEntry
    sequence: NDArray[np.int64]
    profile: NDArray[np.int32]


class GroupAssigner:
    """Assigns queued users to groups.

    timeout: seconds for the answers of one batch; quiet_seconds: for which a user with too few kept clicks is not
    queued again.
    """

    def __init__(
        self,
        store: NearlineStore,
        settlement: Settlement,
        encoder: GroupEncoder,
        *,
        timeout: float,
        quiet_seconds: float,
    ) -> None:
        self._store = store
        self._settlement = settlement
        self._encoder = encoder
        self._timeout = timeout
        self._quiet_seconds = quiet_seconds

    async def assign(self, entries: Sequence[records_pb2.NearlineEntry], model: GroupModel, now: int) -> BatchDone:
        """Bring entries to their end: a group, a failure that is put off, or nothing to do.

        now: moment the groups are assigned as of, Unix seconds. Raises ModelUnavailable, StateUnavailable and
        StoreUnavailable; then nothing is settled, the entries stay as they were, and it counts against none of them.
        """
        start = time.perf_counter()
        outcomes: list[Outcome] = []
        asked = await asyncio.to_thread(self._read, entries, model, outcomes)

        async def ask(some: Sequence[_Asked]) -> list[tuple[list[int], int]]:
            sequences, profiles = np.stack([one.sequence for one in some]), np.stack([one.profile for one in some])
            csids, groups = await self._encoder.assign(model.spec, sequences, profiles, self._timeout)
            return list(zip(csids.tolist(), groups.tolist(), strict=True))

        answered = await ask_in_halves(asked, ask, lambda one, error: outcomes.append(Failed(one.entry, str(error))))
        for one, (csid, group_id) in answered:
            record = records_pb2.UserGroupRecord(
                csid=csid, group_id=group_id, group_model_id=model.spec.group_model_id, generated_at=now
            )
            outcomes.append(Completed(one.entry, (record,)))
        settled, forgotten = await asyncio.to_thread(self._settlement.settle, outcomes, entries)
        return BatchDone(settled, forgotten, asked=len(answered), seconds=time.perf_counter() - start)

    def _read(
        self, entries: Sequence[records_pb2.NearlineEntry], model: GroupModel, outcomes: list[Outcome]
    ) -> list[_Asked]:
        """Read users; those of this model's groups, and those with too few kept clicks, get their outcome."""
        asked = []
        for entry in entries:
            if self._settlement.is_forgotten(entry):
                continue
            stored = read_if_readable(partial(self._store.group, entry.user_id), entry)
            if stored is not None and model.has_group(stored):
                outcomes.append(Unneeded(entry))
                continue
            try:
                sequence, profile = model.read(entry.user_id)
            except RecordCorrupt as error:
                outcomes.append(Failed(entry, str(error)))
                continue
            if np.count_nonzero(sequence) < model.rule.min_clicks:
                outcomes.append(Unneeded(entry, quiet_until=int(self._settlement.clock() + self._quiet_seconds)))
            else:
                asked.append(_Asked(entry, sequence, profile))
        return asked
