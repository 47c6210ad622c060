"""The group encoder on Triton, asked near-line: the groups of users that no snapshot has one for yet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.nearline.triton_models import TritonModels
from serendipity.groups.model import CSID, GROUP_ID, PROFILE, SEQUENCE
from serendipity.v1 import records_pb2


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
        found = await self.infer(spec.model_name, inputs, spec.max_batch, (CSID, GROUP_ID), timeout)
        if not found:
            return np.empty((0, spec.num_quantizers), np.int32), np.empty(0, np.int32)
        csids, groups = found
        self._check(spec, CSID, csids, spec.num_quantizers, 0, spec.codebook_size - 1)
        self._check(spec, GROUP_ID, groups, 1, 1, spec.num_groups)
        return csids, groups[:, 0]

    def _check(
        self, spec: records_pb2.GroupSpec, name: str, values: NDArray[np.int32], width: int, least: int, most: int
    ) -> None:
        expected = f"int32 [B, {width}] of {least} … {most}"
        if values.dtype != np.int32 or values.shape[1] != width:
            found = f"{values.dtype} {list(values.shape)}"
            raise self.unreadable(spec.model_name, name, found, expected)
        wrong = values[(values < least) | (values > most)]
        if len(wrong):
            raise self.unreadable(spec.model_name, name, wrong[0], expected)
