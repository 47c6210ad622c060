"""The group encoder on Triton, asked near-line: the groups of users that no snapshot has one for yet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.nearline.triton_models import Output, TritonModels
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
        outputs = {
            CSID: Output(np.int32, spec.num_quantizers, (0, spec.codebook_size - 1)),
            GROUP_ID: Output(np.int32, bounds=(1, spec.num_groups)),
        }
        csids, groups = await self.infer(spec.model_name, inputs, spec.max_batch, outputs, timeout)
        return csids, groups[:, 0]
