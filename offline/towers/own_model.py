"""A host's own model in the place of the towers: its item vectors and its user tower as ONNX.

<own>/  item_vectors.parquet   item_id VARCHAR, vector FLOAT[d]: a row an item; an item's place in it, from 1, is its
                               number to the user tower
        user_tower.onnx        inputs: history_items [B, L], the numbers of the latest clicks, newest first, 0 for none
                               and for items without a row; and, as far as it wants them, history_ages [B, L], seconds
                               since the click, and interests [B, k, D], text embeddings of latent interests. One
                               output: [B, d], the user, or [B, 1 + k, d], then the user with each interest. A score is
                               the inner product of a user's and an item's vector.
        fit/                   the same of a training that saw no click of those the merge is learned on; without it
                               the served model must not have seen them either
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from serendipity import features
from serendipity.features import FeatureAssembler
from serendipity.layout import hash_of
from serendipity.offline.errors import BuilderError
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, profile_fields, split_times
from serendipity.offline.parquet import reading
from serendipity.offline.towers.config import OwnModelConfig, TowersConfig
from serendipity.offline.towers.export import ONNX, load_onnx_tower, write_tower
from serendipity.v1 import records_pb2

VECTORS = "item_vectors.parquet"
FIT = "fit"

_TAKEN = ("history_items", "history_ages", "interests")
"""Inputs an own tower may have: the others are numbered anew by every build."""

_LEAST_OPSET = 13
_PREFIX = "own/"


class OwnModelError(BuilderError):
    """A host's own model cannot be used: names the file, what was found and what was expected."""


def take_own_model(
    logs: Path, interests: Path, out: Path, own: OwnModelConfig, config: TowersConfig
) -> tuple[records_pb2.TowerSpec, int]:
    """Write the towers directory of a host's own model; returns its spec and the number of items without a vector.

    Such items are given the mean of their category's. Raises OwnModelError where the model does not fit, or has seen
    clicks that the merge is to be learned on.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    (cut,) = split_times(histories, (1 - config.rows.label_window,))
    if own.trained_until > cut:
        raise OwnModelError(
            f"towers.own.trained_until: found {own.trained_until}, expected at most {cut}: the clicks after it, the "
            f"latest {config.rows.label_window:.0%} (towers.rows.label_window), tell what scores are worth; put a "
            f"model that has not seen them into {own.directory / FIT}"
        )
    before = own.directory / FIT
    _export(before if before.is_dir() else own.directory, out / FIT, histories, catalogue, interests, config)
    return _export(own.directory, out, histories, catalogue, interests, config)


def _export(
    own: Path, out: Path, histories: Histories, catalogue: Catalogue, interests: Path, config: TowersConfig
) -> tuple[records_pb2.TowerSpec, int]:
    ids, vectors = _read_vectors(own / VECTORS)
    places = {item_id: place for place, item_id in enumerate(ids, 1)}
    numbers = np.array([0, *(places.get(item_id, 0) for item_id in catalogue.item_ids)], np.int64)
    model, length = _read_model(own / ONNX)
    summary = InterestsSummary.read(interests)
    assembler = FeatureAssembler(
        history_length=length or config.rows.history_length,
        max_long_categories=1,
        max_interests=config.rows.max_interests,
        interest_dim=summary.interest_dim,
        profile_fields=profile_fields(histories),
    )
    adapted = _adapted(model, numbers, assembler)
    fingerprint = hash_of([model.SerializeToString(deterministic=True), numbers.tobytes(), vectors.tobytes()])[:16]
    adapted.metadata_props.add(key=features.ONNX_FINGERPRINT, value=fingerprint)
    item_vectors = _by_row(vectors, numbers[1:], catalogue.item_categories)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(adapted, str(out / ONNX))
    _check(own / ONNX, out / ONNX, assembler, vectors.shape[1])
    return write_tower(assembler, fingerprint, summary.encoder, item_vectors, out), int((numbers[1:] == 0).sum())


def _read_vectors(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    with reading(path, OwnModelError, "item_id VARCHAR, vector FLOAT[]") as query:
        rows = query("SELECT item_id::VARCHAR, vector::FLOAT[] FROM read_parquet(?, file_row_number = true) ORDER BY "
                     "file_row_number").fetchall()  # fmt: skip
    widths = {len(vector or ()) for _, vector in rows}
    if len(widths) != 1 or 0 in widths:
        raise OwnModelError(f"{path}: vector: found lengths {sorted(widths)}, expected one and the same for every item")
    ids = [item_id for item_id, _ in rows]
    if len(set(ids)) < len(ids) or None in ids:
        raise OwnModelError(f"{path}: item_id: found NULL or an id twice, expected every item once")
    vectors = np.array([vector for _, vector in rows], np.float32)
    if not np.isfinite(vectors).all():
        raise OwnModelError(f"{path}: vector: found NULL, NaN or infinity, expected finite numbers")
    return ids, vectors


def _read_model(path: Path) -> tuple[Any, int]:
    """Read an own tower, and how many clicks it is fed; 0 where it takes any number."""
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises whatever its parser and checker meet
        raise OwnModelError(f"{path}: cannot be read ({error}); expected a user tower as ONNX") from error
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _LEAST_OPSET:
        raise OwnModelError(f"{path}: opset: found {opset}, expected {_LEAST_OPSET} or later")
    inputs = {entry.name: entry for entry in _inputs(model)}
    if "history_items" not in inputs or not set(inputs) <= set(_TAKEN):
        raise OwnModelError(
            f"{path}: inputs: found {', '.join(inputs)}, expected history_items, and of {', '.join(_TAKEN[1:])} any"
        )
    outputs = [len(entry.type.tensor_type.shape.dim) for entry in model.graph.output]
    if outputs not in ([2], [3]):
        raise OwnModelError(f"{path}: outputs: found {len(outputs)} of ranks {outputs}, expected one, [B, d] or "
                            "[B, 1 + k, d]")  # fmt: skip
    clicks = inputs["history_items"].type.tensor_type.shape.dim
    if len(clicks) != 2:
        raise OwnModelError(f"{path}: history_items: found rank {len(clicks)}, expected [B, L]")
    return model, int(clicks[1].dim_value)


def _adapted(model: Any, numbers: NDArray[np.int64], assembler: FeatureAssembler) -> Any:
    """Wrap an own tower so that it takes what any tower is fed: catalogue rows become its numbers, and the user alone
    stands for the user with each interest where it knows no interests. numbers: by row + 1."""
    own = compose.add_prefix(model, _PREFIX)
    types = {entry.name.removeprefix(_PREFIX): entry.type.tensor_type.elem_type for entry in _inputs(own)}
    nodes = [
        helper.make_node("Cast", ["history_items"], ["rows"], to=TensorProto.INT64),
        helper.make_node("Gather", ["numbers", "rows"], ["own_numbers"]),
        helper.make_node("Cast", ["own_numbers"], [f"{_PREFIX}history_items"], to=types.pop("history_items")),
        *(helper.make_node("Cast", [name], [_PREFIX + name], to=kind) for name, kind in types.items()),
        *own.graph.node,
    ]
    (output,) = own.graph.output
    constants = {"numbers": numbers, "one": np.array([1], np.int64), "second": np.array([1], np.int64)}
    found = output.name
    if len(output.type.tensor_type.shape.dim) == 2:
        nodes += [
            helper.make_node("Unsqueeze", [found, "one"], ["user"]),
            helper.make_node("Shape", ["interests"], ["interests_shape"]),
            helper.make_node("Gather", ["interests_shape", "second"], ["num_interests"]),
            helper.make_node("Add", ["num_interests", "one"], ["num_rows"]),
            helper.make_node("Concat", ["one", "num_rows", "one"], ["rows_shape"], axis=0),
            helper.make_node("Expand", ["user", "rows_shape"], ["user_rows"]),
        ]
        found = "user_rows"
    nodes.append(helper.make_node("Cast", [found], [features.OUTPUT_NAME], to=TensorProto.FLOAT))
    example = _example(assembler).arrays()
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(column.dtype),
            ["batch", "interests" if name == "interests" else column.shape[1], *column.shape[2:]],
        )
        for name, column in example.items()
    ]
    graph = helper.make_graph(
        nodes,
        "own_user_tower",
        inputs,
        [helper.make_tensor_value_info(features.OUTPUT_NAME, TensorProto.FLOAT, ["batch", "rows", None])],
        [*own.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    adapted = helper.make_model(graph, opset_imports=own.opset_import, functions=own.functions)
    adapted.ir_version = own.ir_version
    return adapted


def _check(path: Path, written: Path, assembler: FeatureAssembler, dim: int) -> None:
    """Ask the wrapped tower for two users. Raises OwnModelError unless it answers [2, 2, dim] finite numbers."""
    one = _example(assembler)
    try:
        found = load_onnx_tower(written)(features.TowerInputs.stack([one, one]))
    except Exception as error:  # ONNX Runtime raises kinds of its own
        raise OwnModelError(f"{path}: cannot be run ({' '.join(str(error).split())})") from error
    if found.shape != (2, 2, dim):
        raise OwnModelError(
            f"{path}: vectors of 2 users with 1 interest: found {list(found.shape)}, expected {[2, 2, dim]}, as wide "
            f"as those of {VECTORS}"
        )
    if not np.isfinite(found).all():
        raise OwnModelError(f"{path}: found NaN or infinity for a user without history, expected finite numbers")


def _example(assembler: FeatureAssembler) -> features.TowerInputs:
    """A user without history and with one interest."""
    return features.canary(
        records_pb2.TowerSpec(
            history_length=assembler.history_length,
            max_long_categories=assembler.max_long_categories,
            max_interests=assembler.max_interests,
            interest_dim=assembler.interest_dim,
            profile_fields=[records_pb2.ProfileField(name=name) for name in assembler.profile_fields],
        )
    )


def _by_row(
    vectors: NDArray[np.float32], places: NDArray[np.int64], categories: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Lay vectors out by catalogue row: [n, d]. places: of each row, from 1, 0 for none; categories: by row."""
    known = places > 0
    laid = np.empty((len(places), vectors.shape[1]), np.float32)
    laid[known] = vectors[places[known] - 1]
    for category in np.unique(categories[~known]):
        alike = known & (categories == category)
        laid[~known & (categories == category)] = laid[alike].mean(axis=0) if alike.any() else vectors.mean(axis=0)
    return laid


def _inputs(model: Any) -> list[Any]:
    """The inputs of a model that are no weights."""
    weights = {entry.name for entry in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in weights]
