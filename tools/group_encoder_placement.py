"""A trained group encoder into a Triton deployment repository."""

from __future__ import annotations

import shutil
from pathlib import Path

from serendipity.groups import model
from serendipity.tools.deployment_repository import (
    AS_CHECKED_IN,
    MODEL_REPOSITORY,
    Instances,
    PlacementError,
    copy_code,
    install,
    program_configuration,
)
from serendipity.tools.language_model_placement import expect_name, expect_positive
from serendipity.v1 import records_pb2

_SOURCE = MODEL_REPOSITORY / "group_encoder"
_PROGRAM_CODE = MODEL_REPOSITORY / "user_tower" / "1" / "exported_program.py"


def place_group_encoder(groups_dir: Path, models_dir: Path, instances: Instances = AS_CHECKED_IN) -> str:
    """Place the encoder of a group model below `models_dir` and return the model's name, group_encoder_<fingerprint>.

    groups_dir: a directory as `serendipity.groups.model` describes it. Readers of `models_dir` see the whole model or
    none. Raises PlacementError.
    """
    spec = read_group_spec(groups_dir)
    configuration = program_configuration(
        (_SOURCE / "config.pbtxt").read_text(encoding="utf-8"),
        spec.model_name,
        spec.fingerprint,
        group_input_sizes(spec),
        {model.CSID: [spec.num_quantizers], model.GROUP_ID: [1]},
        instances,
        spec.max_batch,
    )

    def fill(placed: Path) -> None:
        version = copy_code([*_SOURCE.glob("1/*.py"), _PROGRAM_CODE], placed, configuration)
        shutil.copyfile(groups_dir / model.GROUP_ENCODER, version / model.GROUP_ENCODER)

    install(models_dir, spec.model_name, fill)
    return spec.model_name


def read_group_spec(groups_dir: Path) -> records_pb2.GroupSpec:
    """Read the spec of a group model and check that its encoder can be placed. Raises PlacementError."""
    path = groups_dir / model.GROUP_SPEC
    try:
        spec = model.read_group_spec(groups_dir)
    except model.GroupModelError as error:
        raise PlacementError(str(error)) from error
    expect_name(path, "model_name", spec.model_name, model.GROUP_ENCODER_PREFIX + spec.fingerprint)
    expect_positive(path, spec, ("sequence_length", "num_groups", "codebook_size", "num_quantizers", "max_batch"))
    return spec


def group_input_sizes(spec: records_pb2.GroupSpec) -> dict[str, list[int]]:
    """Sizes of the encoder's inputs by name, without the batch dimension."""
    return {model.SEQUENCE: [spec.sequence_length], model.PROFILE: [max(1, len(spec.profile_fields))]}
