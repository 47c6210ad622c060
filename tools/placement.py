"""Trained models into a Triton deployment repository: configuration, code and weights of one model in one directory."""

from __future__ import annotations

import json
import py_compile
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

import serendipity
from serendipity import features, layout
from serendipity.interests import model as interest_gpt
from serendipity.interests.answer import answer_schema
from serendipity.interests.prompt import INSTRUCTIONS, STYLES
from serendipity.v1 import records_pb2

MODEL_REPOSITORY = Path(serendipity.__file__).resolve().parent / "model_repo"
"""The models' configuration and code, without weights."""

CONSTRAINT = MODEL_REPOSITORY.parent / "interests" / "constraint.py"
"""Stands alone; placed beside InterestGPT's own code, where this package is not installed."""

Backend = Literal["python", "onnxruntime"]
BACKENDS: tuple[Backend, ...] = ("python", "onnxruntime")

PROGRAM = "user_tower.pt2"
ONNX = "user_tower.onnx"
SPEC = "tower.json"
TEXT_ENCODER = "text_encoder"
INTEREST_GPT_PARAMETERS = ("fingerprint", "base", "prompt_style", "max_prompt_tokens", "max_new_tokens")
"""Fields of the spec that a placed InterestGPT reports as parameters."""


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


def read_spec(towers_dir: Path) -> records_pb2.TowerSpec:
    """Read a tower's spec (tower.json) and check that its fingerprint is that of the weights beside it.

    Raises PlacementError.
    """
    path = towers_dir / SPEC
    try:
        spec = json_format.Parse(path.read_text(encoding="utf-8"), records_pb2.TowerSpec())
    except (OSError, json_format.ParseError) as error:
        raise PlacementError(f"{path}: not a tower's spec ({error})") from error
    program = _existing(towers_dir / PROGRAM, "the exported tower")
    found = features.tower_fingerprint(program)
    if found != spec.fingerprint:
        raise PlacementError(f"{program}: fingerprint: found {found}, expected {spec.fingerprint} as in {path}")
    if spec.model_name != features.TOWER_MODEL_PREFIX + found:
        raise PlacementError(
            f"{path}: model_name: found {spec.model_name}, expected {features.TOWER_MODEL_PREFIX}{found}"
        )
    return spec


def place_user_tower(
    towers_dir: Path, models_dir: Path, backend: Backend = "python", instances: Instances = AS_CHECKED_IN
) -> str:
    """Place a trained tower below `models_dir` and return the model's name, user_tower_<fingerprint>.

    towers_dir: tower.json, user_tower.pt2, item_vectors.npy, and user_tower.onnx for the onnxruntime backend.
    Readers of `models_dir` see the whole model or none; a model that lies there already, unchanged, is left alone.
    Raises PlacementError.
    """
    spec = read_spec(towers_dir)
    vectors = _existing(towers_dir / "item_vectors.npy", "the item vectors of the same training")
    dim = int(np.load(vectors, mmap_mode="r").shape[1])
    if backend == "python":
        source, weights, name = MODEL_REPOSITORY / "user_tower", towers_dir / PROGRAM, PROGRAM
    else:
        source, weights, name = MODEL_REPOSITORY / "user_tower_onnx", towers_dir / ONNX, "model.onnx"
        _check_onnx_fingerprint(_existing(weights, "the tower as ONNX"), spec.fingerprint)
    template = (source / "config.pbtxt").read_text(encoding="utf-8")
    configuration = tower_configuration(template, spec, dim, instances)

    def fill(model: Path) -> None:
        version = _copy_code(source.glob("1/*.py"), model, configuration)
        shutil.copyfile(weights, version / name)

    _install(models_dir, spec.model_name, fill)
    return spec.model_name


def place_text_encoder(encoder_dir: Path, models_dir: Path, instances: Instances = AS_CHECKED_IN) -> str:
    """Place a transformers text encoder (sentence encoder or CLIP text model) and return the model's name.

    Raises PlacementError when `encoder_dir` holds none.
    """
    path = _existing(encoder_dir / "config.json", "the configuration of a transformers text encoder")
    try:
        model_configuration = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PlacementError(f"{path}: not JSON ({error})") from error
    is_clip = "clip" in model_configuration.get("model_type", "")
    keys = ("projection_dim", "hidden_size") if is_clip else ("hidden_size",)
    places = (model_configuration, model_configuration.get("text_config", {}))
    dim = next((place[key] for key in keys for place in places if key in place), None)
    if not isinstance(dim, int):
        raise PlacementError(f"{path}: found none of {', '.join(keys)}, expected the dimension of its embeddings")
    source = MODEL_REPOSITORY / TEXT_ENCODER
    config = _parse((source / "config.pbtxt").read_text(encoding="utf-8"))
    config.name = TEXT_ENCODER
    config.output[0].dims[:] = [dim]
    _set_instances(config, instances)

    def fill(model: Path) -> None:
        version = _copy_code(source.glob("1/*.py"), model, text_format.MessageToString(config))
        shutil.copytree(encoder_dir, version / "encoder", ignore=shutil.ignore_patterns(".*"))

    _install(models_dir, TEXT_ENCODER, fill)
    return TEXT_ENCODER


def place_interest_gpt(
    model_dir: Path, models_dir: Path, instances: Instances = AS_CHECKED_IN, *, threads: int | None = None
) -> str:
    """Place a trained InterestGPT below `models_dir` and return the model's name, interest_gpt_<fingerprint>.

    model_dir: a directory as `serendipity.interests.model` describes it. threads: of one instance on CPUs; None: as
    checked in. Readers of `models_dir` see the whole model or none. Raises PlacementError.
    """
    spec = read_interest_gpt_spec(model_dir)
    source = MODEL_REPOSITORY / "interest_gpt"
    configuration = interest_gpt_configuration(
        (source / "config.pbtxt").read_text(encoding="utf-8"), spec, instances, threads
    )
    schema = answer_schema(_read_categories(model_dir / interest_gpt.CATEGORIES), spec.num_interests)

    def fill(placed: Path) -> None:
        version = _copy_code([*source.glob("1/*.py"), CONSTRAINT], placed, configuration)
        (version / "answer_schema.json").write_text(json.dumps(schema, ensure_ascii=False), encoding="utf-8")
        (version / "instructions.txt").write_text(INSTRUCTIONS, encoding="utf-8")
        shutil.copytree(model_dir, version / "model", ignore=shutil.ignore_patterns(".*"))

    _install(models_dir, spec.model_name, fill)
    return spec.model_name


def read_interest_gpt_spec(model_dir: Path) -> records_pb2.InterestGptSpec:
    """Read the spec of an InterestGPT and check that it can be placed. Raises PlacementError."""
    path = model_dir / interest_gpt.SPEC
    try:
        spec = interest_gpt.read_spec(model_dir)
    except interest_gpt.InterestGptError as error:
        raise PlacementError(str(error)) from error
    expected = interest_gpt.MODEL_PREFIX + spec.fingerprint
    if spec.model_name != expected:
        raise PlacementError(f"{path}: model_name: found {spec.model_name!r}, expected {expected}")
    if spec.prompt_style not in STYLES:
        raise PlacementError(f"{path}: prompt_style: found {spec.prompt_style!r}, expected one of {', '.join(STYLES)}")
    for field in ("num_interests", "max_new_tokens", "max_prompt_tokens", "max_batch"):
        if getattr(spec, field) < 1:
            raise PlacementError(f"{path}: {field}: found {getattr(spec, field)}, expected at least 1")
    return spec


def _read_categories(path: Path) -> list[str]:
    try:
        categories = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlacementError(f"{path}: cannot be read ({error}); expected a JSON list of categories") from error
    if not isinstance(categories, list) or not categories or not all(isinstance(name, str) for name in categories):
        raise PlacementError(f"{path}: found {str(categories)[:60]}, expected a list of one or more names")
    return categories


def interest_gpt_configuration(
    template: str, spec: records_pb2.InterestGptSpec, instances: Instances = AS_CHECKED_IN, threads: int | None = None
) -> str:
    """Fill in InterestGPT's config.pbtxt: name, batch sizes, and as parameters which model it is and its bounds."""
    config = _parse(template)
    config.name = spec.model_name
    config.max_batch_size = spec.max_batch
    preferred = config.dynamic_batching.preferred_batch_size
    preferred[:] = [size for size in preferred if size < spec.max_batch] + [spec.max_batch]
    for name in INTEREST_GPT_PARAMETERS:
        config.parameters[name].string_value = str(getattr(spec, name))
    if threads is not None:
        config.parameters["threads"].string_value = str(threads)
    _set_instances(config, instances)
    return str(text_format.MessageToString(config))


def tower_configuration(
    template: str, spec: records_pb2.TowerSpec, dim: int, instances: Instances = AS_CHECKED_IN
) -> str:
    """Fill in a tower's config.pbtxt: name, sizes, fingerprint and warm-up requests. dim: d, of the user vectors.

    Sizes are written out, although -1 would serve, because then Triton refuses a request that does not fit before
    it is queued, and because a warm-up request has to have some.
    """
    sizes = input_sizes(spec)
    config = _parse(template)
    config.name = spec.model_name
    for tensor in config.input:
        tensor.dims[:] = sizes[tensor.name]
    config.output[0].dims[:] = [1 + spec.max_interests, dim]
    config.parameters["fingerprint"].string_value = spec.fingerprint
    _set_instances(config, instances)
    for name, users in (("one user", 1), ("a full batch", config.max_batch_size)):
        warm_up = config.model_warmup.add(name=name, batch_size=users)
        for tensor in config.input:
            value = warm_up.inputs[tensor.name]
            value.data_type, value.zero_data = tensor.data_type, True
            value.dims[:] = tensor.dims
    return str(text_format.MessageToString(config))


def input_sizes(spec: records_pb2.TowerSpec) -> dict[str, list[int]]:
    """Sizes of the tower's inputs by name, without the batch dimension."""
    long_history = [spec.max_long_categories]
    return {
        "history_items": [spec.history_length],
        "history_ages": [spec.history_length],
        "long_categories": long_history,
        "long_counts": long_history,
        "long_ages": long_history,
        "profile": [max(1, len(spec.profile_fields))],
        "interests": [spec.max_interests, spec.interest_dim],
    }


def _check_onnx_fingerprint(path: Path, expected: str) -> None:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise PlacementError("the package onnx is missing; install it with `pip install onnx`") from error
    properties = {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
    found = properties.get(features.ONNX_FINGERPRINT, "none")
    if found != expected:
        raise PlacementError(f"{path}: metadata {features.ONNX_FINGERPRINT}: found {found}, expected {expected}")


def _set_instances(config: model_config_pb2.ModelConfig, instances: Instances) -> None:
    (group,) = config.instance_group
    if instances.count is not None:
        group.count = instances.count
    if instances.gpu:
        group.kind = group.KIND_GPU


def _parse(template: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(template, model_config_pb2.ModelConfig())


def _copy_code(modules: Iterable[Path], model: Path, configuration: str) -> Path:
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


def _install(models_dir: Path, name: str, fill: Callable[[Path], None]) -> None:
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


def _existing(path: Path, meaning: str) -> Path:
    if not path.is_file():
        raise PlacementError(f"{path}: missing; expected {meaning}")
    return path
