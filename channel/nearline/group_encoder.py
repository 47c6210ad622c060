"""The group encoder on Triton, asked near-line: the groups of users that no snapshot has one for yet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import GroupEncoderRefused, GroupEncoderUnavailable
from serendipity.channel.nearline.triton_models import TritonModels
from serendipity.groups.model import CSID, GROUP_ID, PROFILE, SEQUENCE
from serendipity.v1 import records_pb2


class GroupEncoder:
    """Calls the group encoder. Belongs to one event loop, connects at the first call."""

    def __init__(self, url: str, *, max_batches_in_flight: int = 2) -> None:
        """url: Triton's address, as `triton.check_url` takes it. max_batches_in_flight: over all calls; others wait for
        their turn.
        """
        self._models = TritonModels(url, max_batches_in_flight, GroupEncoderUnavailable, GroupEncoderRefused)

    async def assign(
        self, spec: records_pb2.GroupSpec, sequences: NDArray[np.int64], profiles: NDArray[np.int32], timeout: float
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Find the CSIDs [B, num_quantizers] and the groups [B], 1 … num_groups, of users by their histories.

        spec: names the model. sequences: [B, sequence_length], as `sequence.long_sequence` lays them out; profiles:
        [B, P], P at least 1. timeout: seconds for all of them, in batches of up to spec.max_batch.

        All are answered or an error is raised: GroupEncoderUnavailable when the call is worth trying again,
        GroupEncoderRefused when it is not. Whether a history suffices for a group is for the caller to tell.
        """
        inputs: dict[str, NDArray[Any]] = {
            SEQUENCE: np.ascontiguousarray(sequences, np.int64),
            PROFILE: np.ascontiguousarray(profiles, np.int32),
        }
        found = await self._models.infer(spec.model_name, inputs, spec.max_batch, (CSID, GROUP_ID), timeout)
        if not found:
            return np.empty((0, spec.num_quantizers), np.int32), np.empty(0, np.int32)
        csids, groups = found
        self._check(spec, CSID, csids, spec.num_quantizers, 0, spec.codebook_size - 1)
        self._check(spec, GROUP_ID, groups, 1, 1, spec.num_groups)
        return csids, groups[:, 0]

    async def close(self) -> None:
        """Close the connection."""
        await self._models.close()

    def _check(
        self, spec: records_pb2.GroupSpec, name: str, values: NDArray[np.int32], width: int, least: int, most: int
    ) -> None:
        expected = f"int32 [B, {width}] of {least} … {most}"
        if values.dtype != np.int32 or values.shape[1] != width:
            found = f"{values.dtype} {list(values.shape)}"
            raise self._models.unreadable(spec.model_name, name, found, expected)
        wrong = values[(values < least) | (values > most)]
        if len(wrong):
            raise self._models.unreadable(spec.model_name, name, wrong[0], expected)
