"""The plain stack's user tower on Triton: the exported program as anybody would serve it, one forward pass a batch.

Interests are padded to the most a user may have, in float32; the instances are as many as those of the channel's tower.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.features import INPUT_NAMES, OUTPUT_NAME, TowerInputs
from serendipity.v1 import records_pb2

NAME = "plain_user_tower"
_PROGRAM = "user_tower.pt2"

_MODEL = f'''
import os

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

NAMES = {INPUT_NAMES!r}


class TritonPythonModel:
    def initialize(self, args):
        torch.set_num_threads(1)
        path = os.path.join(args["model_repository"], args["model_version"], "{_PROGRAM}")
        self.tower = torch.export.load(path).module()

    def execute(self, requests):
        columns = [
            [from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack()) for request in requests]
            for name in NAMES
        ]
        users = [len(part) for part in columns[0]]
        with torch.inference_mode():
            inputs = [torch.cat(parts) for parts in columns]
            inputs[-1] = inputs[-1].half()
            answers = torch.split(self.tower(*inputs), users)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("{OUTPUT_NAME}", answer.contiguous())])
            for answer in answers
        ]
'''


def place(build: Path, spec: records_pb2.TowerSpec, models: Path) -> None:
    """Place the tower of a build below a directory of models."""
    version = models / NAME / "1"
    version.mkdir(parents=True)
    shutil.copyfile(build / "towers" / _PROGRAM, version / _PROGRAM)
    (version / "model.py").write_text(_MODEL)
    inputs = ", ".join(
        f'{{ name: "{name}" data_type: TYPE_INT32 dims: [ -1 ] }}' for name in INPUT_NAMES if name != "interests"
    )
    sizes = f"{spec.max_interests}, {spec.interest_dim}"
    (version.parent / "config.pbtxt").write_text(
        f'name: "{NAME}" backend: "python" max_batch_size: 64\n'
        f'input [ {inputs}, {{ name: "interests" data_type: TYPE_FP32 dims: [ {sizes} ] }} ]\n'
        f'output [ {{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: [ -1, -1 ] }} ]\n'
        "instance_group [ { kind: KIND_CPU count: 2 } ]\ndynamic_batching { }\n"
    )


def padded(inputs: TowerInputs, max_interests: int) -> dict[str, NDArray[np.int32] | NDArray[np.float32]]:
    """What the tower is fed, by tensor name."""
    missing = max_interests - inputs.interests.shape[1]
    interests = np.pad(inputs.interests, ((0, 0), (0, missing), (0, 0)))
    return {**{name: getattr(inputs, name) for name in INPUT_NAMES}, "interests": interests}
