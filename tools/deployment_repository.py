"""A Triton deployment repository: how whole models are put into it."""

from __future__ import annotations

import py_compile
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import serendipity
from serendipity import layout

MODEL_REPOSITORY = Path(serendipity.__file__).resolve().parent / "model_repo"
"""The models' configuration and code, without weights."""


class PlacementError(Exception):
    """A model cannot be placed: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class Instances:
    """Where and how often Triton runs a model. count: per GPU where gpu is true, else in all; None: as checked in."""

    count: int | None = None
    gpu: bool = False

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise PlacementError(f"instances: found {self.count}, expected at least 1")


AS_CHECKED_IN = Instances()


def set_instances(config: model_config_pb2.ModelConfig, instances: Instances) -> None:
    """Write into a configuration where and how often the model runs."""
    (group,) = config.instance_group
    if instances.count is not None:
        group.count = instances.count
    if instances.gpu:
        group.kind = group.KIND_GPU


def parse(template: str) -> model_config_pb2.ModelConfig:
    """Read a config.pbtxt."""
    return text_format.Parse(template, model_config_pb2.ModelConfig())


def program_configuration(
    template: str,
    name: str,
    fingerprint: str,
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
    instances: Instances,
    max_batch: int | None = None,
) -> str:
    """Fill in an exported program's config.pbtxt: name, sizes, fingerprint and warm-up requests.

    inputs, outputs: sizes by name, without the batch dimension. max_batch: None: as checked in.

    Sizes are written out, although -1 would serve, because then Triton refuses a request that does not fit before
    it is queued, and because a warm-up request has to have some.
    """
    config = parse(template)
    config.name = name
    if max_batch is not None:
        config.max_batch_size = max_batch
    for tensor in config.input:
        tensor.dims[:] = inputs[tensor.name]
    for tensor in config.output:
        tensor.dims[:] = outputs[tensor.name]
    config.parameters["fingerprint"].string_value = fingerprint
    set_instances(config, instances)
    for warm_up_name, users in (("one user", 1), ("a full batch", config.max_batch_size)):
        warm_up = config.model_warmup.add(name=warm_up_name, batch_size=users)
        for tensor in config.input:
            value = warm_up.inputs[tensor.name]
            value.data_type, value.zero_data = tensor.data_type, True
            value.dims[:] = tensor.dims
    return str(text_format.MessageToString(config))


def copy_code(modules: Iterable[Path], model: Path, configuration: str) -> Path:
    """Write config.pbtxt and version 1's code below `model`, and return the version's directory."""
    version = model / "1"
    version.mkdir(parents=True)
    (model / "config.pbtxt").write_text(configuration, encoding="utf-8")
    for code in modules:
        placed = shutil.copyfile(code, version / code.name)
        # Otherwise Triton's Python writes this at the first load, the directory counts as changed, and the next load
        # of the same model is a reload.
        py_compile.compile(
            str(placed), dfile=code.name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
    return version


def install(models_dir: Path, name: str, fill: Callable[[Path], None]) -> None:
    """Fill a directory beside and move it into place as `name`, unless the same lies there already."""
    models_dir.mkdir(parents=True, exist_ok=True)
    target = models_dir / name
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=models_dir) as scratch:
        model = Path(scratch) / "new"
        model.mkdir()
        fill(model)
        if target.is_dir():
            if _digests(target) == _digests(model):
                return
            # A directory that is not empty cannot be replaced in one step; Triton has loaded what it serves.
            target.rename(Path(scratch) / "old")
        model.rename(target)


def _digests(model: Path) -> dict[str, str]:
    return {
        str(path.relative_to(model)): layout.sha256(path)
        for path in model.rglob("*")
        # Python's own cache may have been added to by the server.
        if path.is_file() and "__pycache__" not in path.parts
    }


def existing(path: Path, meaning: str) -> Path:
    """Return a path that is a file. Raises PlacementError naming what was expected there."""
    if not path.is_file():
        raise PlacementError(f"{path}: missing; expected {meaning}")
    return path
