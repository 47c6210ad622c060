"""A Triton deployment repository: whole models put into it, made of those in model_repo/ and of trainings."""

from __future__ import annotations

import py_compile
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import serendipity
from serendipity import layout
from serendipity.tools.serving.canary import CANARY, request_of
from serendipity.tools.serving.kinds import ServedModel

_PACKAGE = Path(serendipity.__file__).resolve().parent

MODEL_REPOSITORY = _PACKAGE / "model_repo"
"""The models' configuration and code, without weights."""


def install(model: ServedModel, training: Path, models_dir: Path) -> None:
    """Write a model beside and move it into place; what lies there unchanged is left alone.

    Readers of `models_dir` see the whole model or none. Raises PlacementError.
    """
    code = [*(MODEL_REPOSITORY / model.source).glob("1/*.py"), *(_PACKAGE / module for module in model.modules)]
    files = {**{path.name: path for path in code}, **model.files(training)}
    models_dir.mkdir(parents=True, exist_ok=True)
    target = models_dir / model.name
    with tempfile.TemporaryDirectory(prefix=f".{model.name}.", dir=models_dir) as scratch:
        new = Path(scratch) / "new"
        _write(new / "1", files)
        (new / "config.pbtxt").write_text(text_format.MessageToString(_configuration(model)), encoding="utf-8")
        (new / CANARY).write_text(request_of(model.question), encoding="utf-8")
        if target.is_dir():
            if _digests(target) == _digests(new):
                return
            # A directory that is not empty cannot be replaced in one step; Triton has loaded what it serves.
            target.rename(Path(scratch) / "old")
        new.rename(target)


def template(source: str) -> model_config_pb2.ModelConfig:
    """Read the configuration of a model of model_repo: its own, over what all have in common."""
    shared, own = (
        text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        for path in (MODEL_REPOSITORY / "defaults.pbtxt", MODEL_REPOSITORY / source / "config.pbtxt")
    )
    if own.instance_group:
        shared.ClearField("instance_group")
    shared.MergeFrom(own)
    return shared


def _configuration(model: ServedModel) -> model_config_pb2.ModelConfig:
    """Fill in a model's config.pbtxt.

    Sizes are written out, although -1 would serve, because then Triton refuses a request that does not fit before
    it is queued, and because a warm-up request has to have some.
    """
    config = template(model.source)
    config.name = model.name
    for key, value in {**model.reported, **model.parameters}.items():
        if value is not None:
            config.parameters[key].string_value = str(value)
    (group,) = config.instance_group
    if model.instances is not None:
        group.count = model.instances
    if model.gpu:
        group.kind = group.KIND_GPU
    if model.max_batch is not None:
        config.max_batch_size = model.max_batch
        if preferred := config.dynamic_batching.preferred_batch_size:
            preferred[:] = [size for size in preferred if size < model.max_batch] + [model.max_batch]
    sizes = {**{name: values.shape[1:] for name, values in model.question.items()}, **model.sizes}
    for tensor in (*config.input, *config.output):
        if tensor.name in sizes:
            tensor.dims[:] = sizes[tensor.name]
    if model.warm_up:
        for name, users in (("one user", 1), ("a full batch", config.max_batch_size)):
            request = config.model_warmup.add(name=name, batch_size=users)
            for tensor in config.input:
                value = request.inputs[tensor.name]
                value.data_type, value.zero_data = tensor.data_type, True
                value.dims[:] = model.question[tensor.name].shape[1:]
    return config


def _write(version: Path, files: Mapping[str, Path | str]) -> None:
    version.mkdir(parents=True)
    for name, content in files.items():
        placed = version / name
        placed.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            placed.write_text(content, encoding="utf-8")
        else:
            shutil.copyfile(content, placed)
        if placed.suffix == ".py" and placed.parent == version:
            # Otherwise Triton's Python writes this at the first load, the directory counts as changed, and the next
            # load of the same model is a reload.
            py_compile.compile(
                str(placed), dfile=name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )


def _digests(model: Path) -> dict[str, str]:
    return {
        str(path.relative_to(model)): layout.sha256(path)
        for path in model.rglob("*")
        # Python's own cache may have been added to by the server.
        if path.is_file() and "__pycache__" not in path.parts
    }
