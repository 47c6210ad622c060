"""The towers' output directory: what the snapshot and Triton take over.

user_tower.pt2        exported program (inputs and output of serendipity.features)
user_tower.onnx       the same as ONNX, checked equal
item_vectors.npy      [n, d] float32 by item row; the inner product with a user vector is the score
tower.json            TowerSpec, written last
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf import json_format
from numpy.typing import NDArray

from serendipity.features import ONNX_FINGERPRINT, OUTPUT_NAME, FeatureAssembler, TowerInputs, tower_fingerprint
from serendipity.layout import write_atomically
from serendipity.offline.export import check_onnx, export_onnx, export_program, load_program
from serendipity.offline.towers.dual_tower import DualTower
from serendipity.offline.towers.rows import Moment
from serendipity.offline.towers.user_tower import tensors
from serendipity.v1 import records_pb2

PROGRAM = "user_tower.pt2"
ONNX = "user_tower.onnx"
ITEM_VECTORS = "item_vectors.npy"
SPEC = "tower.json"


def export_towers(
    towers: DualTower,
    assembler: FeatureAssembler,
    now: Moment,
    node_vectors: NDArray[np.float32],
    text_encoder: str,
    out: Path,
) -> records_pb2.TowerSpec:
    """Write both towers as of a moment and return the spec of what was written.

    now: the moment that is served from, with some users to compare the exports with the module on.
    Raises ExportError when an export answers differently from the module.
    """
    out.mkdir(parents=True, exist_ok=True)
    towers.user.load_factors(torch.from_numpy(now.items.factors.clicked))
    inputs = tensors(now.take(np.arange(len(now)), node_vectors))
    fingerprint = export_program(towers.user, inputs, out / PROGRAM)
    export_onnx(towers.user, inputs, out / ONNX, fingerprint)
    check_onnx(towers.user, inputs, out / ONNX)
    return write_tower(assembler, fingerprint, text_encoder, towers.item_vectors(now.items), out)


def write_tower(
    assembler: FeatureAssembler, fingerprint: str, text_encoder: str, item_vectors: NDArray[np.float32], out: Path
) -> records_pb2.TowerSpec:
    """Write item vectors, [n, d] by row, and the spec of the user tower beside them; returns the spec."""
    content = io.BytesIO()
    np.save(content, item_vectors)
    write_atomically(out / ITEM_VECTORS, content.getvalue())
    spec = records_pb2.TowerSpec(
        model_name=f"user_tower_{fingerprint}",
        fingerprint=fingerprint,
        history_length=assembler.history_length,
        max_interests=assembler.max_interests,
        interest_dim=assembler.interest_dim,
        max_long_categories=assembler.max_long_categories,
        text_encoder=text_encoder,
        profile_fields=[
            records_pb2.ProfileField(name=name, values=sorted(values, key=values.__getitem__))
            for name, values in assembler.profile_fields.items()
        ],
    )
    text = json_format.MessageToJson(spec, preserving_proto_field_name=True)
    write_atomically(out / SPEC, text.encode())
    return spec


def read_spec(towers: Path) -> records_pb2.TowerSpec:
    """Read tower.json below a towers directory."""
    return json_format.Parse((towers / SPEC).read_text(encoding="utf-8"), records_pb2.TowerSpec())


def load_user_tower(towers: Path) -> Callable[[TowerInputs], NDArray[np.float32]]:
    """Load the exported user tower of a towers directory (or the file itself): inputs → [B, 1 + k, d] float32.

    A host's own tower is ONNX alone. Raises ExportError when it cannot be read.
    """
    path = towers / PROGRAM if towers.is_dir() else towers
    if not path.exists() and (towers / ONNX).exists():
        return load_onnx_tower(towers / ONNX)
    program = load_program(path)

    def vectors(inputs: TowerInputs) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = program(*tensors(inputs)).numpy()
        return found

    return vectors


def load_onnx_tower(path: Path) -> Callable[[TowerInputs], NDArray[np.float32]]:
    """Load a user tower as ONNX: inputs → [B, 1 + k, d] float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def vectors(inputs: TowerInputs) -> NDArray[np.float32]:
        (found,) = session.run([OUTPUT_NAME], inputs.arrays())
        return np.asarray(found, np.float32)

    return vectors


def read_fingerprint(towers: Path) -> str:
    """Tell which training the user tower in a towers directory is of: the exported program's, or what a host's own
    tower says of itself."""
    if (towers / PROGRAM).exists():
        return tower_fingerprint(towers / PROGRAM)
    properties = onnx.load(str(towers / ONNX), load_external_data=False).metadata_props
    return next((entry.value for entry in properties if entry.key == ONNX_FINGERPRINT), "none")
