"""Trainings to be served: their specs must name the weights that lie beside them, and hold what serving needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf import json_format
from pydantic import TypeAdapter, ValidationError

from serendipity import features
from serendipity.groups import model as group_model
from serendipity.interests import model as interest_model
from serendipity.interests.prompt import STYLES
from serendipity.v1 import records_pb2

TOWER_PROGRAM = "user_tower.pt2"
TOWER_ONNX = "user_tower.onnx"
_CATEGORIES = TypeAdapter(list[str])
_Spec = TypeVar("_Spec", records_pb2.InterestGptSpec, records_pb2.CoevolutionSpec)


class PlacementError(Exception):
    """A model cannot be placed: names the file, what was found and what was expected."""


def read_tower(directory: Path) -> tuple[records_pb2.TowerSpec, int]:
    """Read a user tower's spec, and the dimension of the item vectors beside it. Raises PlacementError."""
    path, program, vectors = (directory / name for name in ("tower.json", TOWER_PROGRAM, "item_vectors.npy"))
    try:
        spec = json_format.Parse(path.read_text(encoding="utf-8"), records_pb2.TowerSpec())
    except (OSError, json_format.ParseError) as error:
        raise PlacementError(f"{path}: not a tower's spec ({error})") from error
    if not program.exists() and (directory / TOWER_ONNX).exists():
        onnx_tower(directory, spec.fingerprint)  # a host's own tower is ONNX alone
    elif (found := features.tower_fingerprint(_existing(program, "the exported tower"))) != spec.fingerprint:
        raise PlacementError(f"{program}: fingerprint: found {found}, expected {spec.fingerprint} as in {path}")
    _expect(path, spec, model_name=features.TOWER_MODEL_PREFIX + spec.fingerprint)
    _existing(vectors, "the item vectors of the same training")
    return spec, int(np.load(vectors, mmap_mode="r").shape[1])


def read_interest_gpt(directory: Path) -> records_pb2.InterestGptSpec:
    """Read the spec of an InterestGPT, as `serendipity.interests.model` describes it. Raises PlacementError."""
    path, spec = directory / interest_model.SPEC, _read(interest_model.read_spec, directory)
    _expect(path, spec, model_name=interest_model.MODEL_PREFIX + spec.fingerprint)
    return spec


def read_coevolution(directory: Path) -> records_pb2.CoevolutionSpec:
    """Read the spec of both LLMs, as `serendipity.groups.model` describes it. Raises PlacementError."""
    path, spec = directory / group_model.COEVOLUTION_SPEC, _read(group_model.read_coevolution_spec, directory)
    names = {
        "novelty_model_name": group_model.NOVELTY_PREFIX + spec.novelty_fingerprint,
        "relevance_model_name": group_model.RELEVANCE_PREFIX + spec.relevance_fingerprint,
    }
    _expect(path, spec, **names)
    return spec


def read_categories(path: Path) -> list[str]:
    """Read the names of the categories a model may answer with. Raises PlacementError."""
    try:
        return _CATEGORIES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise PlacementError(f"{path}: cannot be read ({error}); expected a JSON list of categories") from error


def embedding_dimension(directory: Path) -> int:
    """Read the dimension of a sentence encoder of transformers. Raises PlacementError."""
    path = _existing(directory / "config.json", "the configuration of a transformers text encoder")
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PlacementError(f"{path}: not JSON ({error})") from error
    dim = configuration.get("hidden_size")
    if not isinstance(dim, int):
        raise PlacementError(f"{path}: hidden_size: found {dim!r}, expected the dimension of its embeddings")
    return dim


def onnx_tower(directory: Path, fingerprint: str) -> Path:
    """Return the tower's ONNX file once it says that it is of the same training. Raises PlacementError."""
    path = _existing(directory / TOWER_ONNX, "the tower as ONNX")
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise PlacementError("the package onnx is missing; install it with `pip install onnx`") from error
    properties = {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
    found = properties.get(features.ONNX_FINGERPRINT, "none")
    if found != fingerprint:
        raise PlacementError(f"{path}: metadata {features.ONNX_FINGERPRINT}: found {found}, expected {fingerprint}")
    return path


def _existing(path: Path, meaning: str) -> Path:
    if not path.is_file():
        raise PlacementError(f"{path}: missing; expected {meaning}")
    return path


def _read(read: Callable[[Path], _Spec], directory: Path) -> _Spec:
    try:
        return read(directory)
    except (interest_model.InterestGptError, group_model.GroupModelError) as error:
        raise PlacementError(str(error)) from error


def _expect(path: Path, spec: Any, **names: str) -> None:
    """Raise PlacementError unless names are those of the weights, and the prompt style is known."""
    for field, expected in names.items():
        if getattr(spec, field) != expected:
            raise PlacementError(f"{path}: {field}: found {getattr(spec, field)!r}, expected {expected}")
    if "prompt_style" in spec.DESCRIPTOR.fields_by_name and spec.prompt_style not in STYLES:
        raise PlacementError(f"{path}: prompt_style: found {spec.prompt_style!r}, expected one of {', '.join(STYLES)}")
