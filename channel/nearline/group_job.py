"""Users without a group: their clicks, the answer of the group encoder on Triton, records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.nearline.context import ReadFeedback, profile_values
from serendipity.channel.nearline.job import Asked, Generated, Job, ask_about
from serendipity.channel.nearline.outcome import Completed, Outcome, Unneeded
from serendipity.channel.nearline.triton_models import Output, TritonModels
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.feedback_clicks import feedback_clicks
from serendipity.groups.model import CSID, GROUP_ID, PROFILE, SEQUENCE
from serendipity.groups.sequence import Counted, LongSequenceRule, long_sequence
from serendipity.novelty import CLICK_WINDOW, Clicks, latest
from serendipity.v1 import records_pb2

Sequenced: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32]]
"""A user as the encoder takes one: kept clicks [sequence_length], profile [P]."""


class GroupEncoder(TritonModels):
    """Calls the group encoder."""

    async def assign(
        self, spec: records_pb2.GroupSpec, sequences: NDArray[np.int64], profiles: NDArray[np.int32], timeout: float
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Find the CSIDs [B, num_quantizers] and the groups [B], 1 … num_groups, of users by their histories.

        spec: names the model. sequences: [B, sequence_length], as `sequence.long_sequence` lays them out; profiles:
        [B, P], P at least 1. timeout: seconds for all of them, in batches of up to spec.max_batch.

        Whether a history suffices for a group is for the caller to tell.
        """
        inputs: dict[str, NDArray[Any]] = {
            SEQUENCE: np.ascontiguousarray(sequences, np.int64),
            PROFILE: np.ascontiguousarray(profiles, np.int32),
        }
        outputs = {
            CSID: Output(np.int32, spec.num_quantizers, (0, spec.codebook_size - 1)),
            GROUP_ID: Output(np.int32, bounds=(1, spec.num_groups)),
        }
        csids, groups = await self.infer(spec.model_name, inputs, spec.max_batch, outputs, timeout)
        return csids, groups[:, 0]


class GroupJob(Job[Sequenced]):
    """Assigns users to groups by the encoder that a snapshot names.

    feedback: of this host; timeout: seconds for the answers of one batch. Raises SnapshotUnavailable for a bad spec.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        spec: records_pb2.GroupSpec,
        feedback: ReadFeedback,
        encoder: GroupEncoder,
        *,
        timeout: float,
    ) -> None:
        path = snapshot.directory / layout.MANIFEST
        counted = next((known for known in get_args(Counted) if known == spec.counted), None)
        if counted is None:
            raise SnapshotUnavailable(f"{path}: counted: found {spec.counted!r}, expected one of {get_args(Counted)}")
        if not spec.sequence_length:
            raise SnapshotUnavailable(f"{path}: groups: sequence_length: found 0, expected at least 1")
        self.snapshot = snapshot
        self.spec = spec
        self._rule = LongSequenceRule(spec.click_threshold, counted, spec.sequence_length, spec.min_clicks)
        self._feedback = feedback
        self._encoder = encoder
        self._timeout = timeout

    def is_current(self, record: records_pb2.UserGroupRecord, now: int) -> bool:  # noqa: ARG002
        """Tell whether a group is one of this model; requests do not take one beyond them, and go on asking."""
        return record.group_model_id == self.spec.group_model_id and record.group_id <= self.spec.num_groups

    def read(self, entry: records_pb2.NearlineEntry, now: int) -> Sequenced | Unneeded:  # noqa: ARG002
        """Lay a user out for the encoder; one with too few kept clicks is left in peace."""
        user = self.snapshot.users.read(layout.user_key(entry.user_id))
        recent = feedback_clicks(self.snapshot, self._feedback(entry.user_id) or records_pb2.UserFeedbackRecord())
        # All that both hold: the more is seen, the more clicks reach the threshold.
        clicks = latest(recent, user.clicks if user else Clicks.empty(), window=2 * CLICK_WINDOW)
        sequence = long_sequence(clicks, self._rule)
        if np.count_nonzero(sequence) < self._rule.min_clicks:
            return Unneeded(entry)
        return sequence, self._profile(user.profile.tolist() if user else [])

    async def generate(self, asked: Sequence[Asked[Sequenced]], now: int) -> Generated:
        """Ask the encoder for everybody's CSID and group."""

        async def ask(some: Sequence[Asked[Sequenced]]) -> list[tuple[list[int], int]]:
            sequences, profiles = (np.stack(column) for column in zip(*(one.question for one in some), strict=True))
            csids, groups = await self._encoder.assign(self.spec, sequences, profiles, self._timeout)
            return list(zip(csids.tolist(), groups.tolist(), strict=True))

        outcomes: list[Outcome] = []
        for one, (csid, group_id) in await ask_about(asked, ask, outcomes):
            record = records_pb2.UserGroupRecord(
                csid=csid, group_id=group_id, group_model_id=self.spec.group_model_id, generated_at=now
            )
            outcomes.append(Completed(one.entry, (record,)))
        return Generated(outcomes)

    def _profile(self, stored: list[int]) -> NDArray[np.int32]:
        """Number a user's profile values as the encoder does; the snapshot's records number them as the tower does."""
        told = profile_values(self.snapshot, stored)
        profile = np.zeros(max(1, len(self.spec.profile_fields)), np.int32)
        for column, field in enumerate(self.spec.profile_fields):
            numbers = {value: i + 1 for i, value in enumerate(field.values)}
            profile[column] = numbers.get(told.get(field.name, ""), 0)
        return profile
