"""Trained models into a Triton deployment repository: configuration, code and weights of one model in one directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from google.protobuf import json_format, text_format

from serendipity import features
from serendipity.tools.coevolution_placement import place_coevolution_llms, read_coevolution_spec, reported_by_llm
from serendipity.tools.deployment_repository import (
    AS_CHECKED_IN,
    MODEL_REPOSITORY,
    Instances,
    PlacementError,
    copy_code,
    existing,
    install,
    parse,
    program_configuration,
    set_instances,
)
from serendipity.tools.group_encoder_placement import group_input_sizes, place_group_encoder, read_group_spec
from serendipity.tools.interest_gpt_placement import (
    AS_SERVED_HERE,
    ENGINE_SUFFIX,
    INTEREST_GPT_BACKENDS,
    REPORTED,
    Serving,
    VllmEngine,
    place_interest_gpt,
    read_interest_gpt_spec,
)
from serendipity.tools.language_model_placement import LLM_AS_CHECKED_IN, LanguageModelServing
from serendipity.v1 import records_pb2

__all__ = [
    "AS_CHECKED_IN",
    "AS_SERVED_HERE",
    "BACKENDS",
    "ENGINE_SUFFIX",
    "INTEREST_GPT_BACKENDS",
    "LLM_AS_CHECKED_IN",
    "MODEL_REPOSITORY",
    "REPORTED",
    "TEXT_ENCODER",
    "Backend",
    "Instances",
    "LanguageModelServing",
    "PlacementError",
    "Serving",
    "VllmEngine",
    "group_input_sizes",
    "input_sizes",
    "place_coevolution_llms",
    "place_group_encoder",
    "place_interest_gpt",
    "place_text_encoder",
    "place_user_tower",
    "read_coevolution_spec",
    "read_group_spec",
    "read_interest_gpt_spec",
    "read_spec",
    "reported_by_llm",
]

Backend = Literal["python", "onnxruntime"]
BACKENDS: tuple[Backend, ...] = ("python", "onnxruntime")

PROGRAM = "user_tower.pt2"
ONNX = "user_tower.onnx"
SPEC = "tower.json"
TEXT_ENCODER = "text_encoder"


def read_spec(towers_dir: Path) -> records_pb2.TowerSpec:
    """Read a tower's spec (tower.json) and check that its fingerprint is that of the weights beside it.

    Raises PlacementError.
    """
    path = towers_dir / SPEC
    try:
        spec = json_format.Parse(path.read_text(encoding="utf-8"), records_pb2.TowerSpec())
    except (OSError, json_format.ParseError) as error:
        raise PlacementError(f"{path}: not a tower's spec ({error})") from error
    program = existing(towers_dir / PROGRAM, "the exported tower")
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
    vectors = existing(towers_dir / "item_vectors.npy", "the item vectors of the same training")
    dim = int(np.load(vectors, mmap_mode="r").shape[1])
    if backend == "python":
        source, weights, name = MODEL_REPOSITORY / "user_tower", towers_dir / PROGRAM, PROGRAM
    else:
        source, weights, name = MODEL_REPOSITORY / "user_tower_onnx", towers_dir / ONNX, "model.onnx"
        _check_onnx_fingerprint(existing(weights, "the tower as ONNX"), spec.fingerprint)
    configuration = program_configuration(
        (source / "config.pbtxt").read_text(encoding="utf-8"),
        spec.model_name,
        spec.fingerprint,
        input_sizes(spec),
        {features.OUTPUT_NAME: [1 + spec.max_interests, dim]},
        instances,
    )

    def fill(model: Path) -> None:
        version = copy_code(source.glob("1/*.py"), model, configuration)
        shutil.copyfile(weights, version / name)

    install(models_dir, spec.model_name, fill)
    return spec.model_name


def place_text_encoder(encoder_dir: Path, models_dir: Path, instances: Instances = AS_CHECKED_IN) -> str:
    """Place a transformers text encoder (sentence encoder or CLIP text model) and return the model's name.

    Raises PlacementError when `encoder_dir` holds none.
    """
    path = existing(encoder_dir / "config.json", "the configuration of a transformers text encoder")
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
    config = parse((source / "config.pbtxt").read_text(encoding="utf-8"))
    config.name = TEXT_ENCODER
    config.output[0].dims[:] = [dim]
    set_instances(config, instances)

    def fill(model: Path) -> None:
        version = copy_code(source.glob("1/*.py"), model, text_format.MessageToString(config))
        shutil.copytree(encoder_dir, version / "encoder", ignore=shutil.ignore_patterns(".*"))

    install(models_dir, TEXT_ENCODER, fill)
    return TEXT_ENCODER


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
