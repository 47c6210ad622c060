"""A build to deploy, and a tritonserver to deploy it on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from google.protobuf import json_format

from serendipity import layout
from serendipity.tools.serving.triton_server import launch
from tests.fixtures.example_tower import Training, write_training
from tests.fixtures.small_world import SmallWorld


@dataclass(frozen=True)
class Deployment:
    """A build directory and a tritonserver on its models/; url: host:port of its gRPC endpoint."""

    build: Path
    version: str
    url: str

    @property
    def snapshots(self) -> Path:
        return self.build / "snapshots"

    @property
    def models(self) -> Path:
        return self.build / "models"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    models = tmp_path_factory.mktemp("models")
    with launch(models, log_path=models.parent / "tritonserver.log") as running:
        yield running.grpc_url, models


@pytest.fixture
def deployment(small_world: SmallWorld, tmp_path: Path, server: tuple[str, Path]) -> Deployment:
    """A build of the small world, with nothing deployed or published yet."""
    url, models = server
    shutil.copytree(small_world.snapshots_root, tmp_path / "snapshots")
    (tmp_path / "models").symlink_to(models)
    towers = tmp_path / "towers"
    towers.mkdir()
    for suffix in (".pt2", ".onnx"):
        shutil.copy(small_world.tower_path.with_suffix(suffix), towers)
    (towers / "tower.json").write_text(json_format.MessageToJson(small_world.tower))
    np.save(towers / "item_vectors.npy", np.load(small_world.snapshot_dir / layout.ITEM_VECTORS))
    return Deployment(tmp_path, small_world.version, url)


@pytest.fixture(scope="module")
def other_training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return write_training(tmp_path_factory.mktemp("other") / "towers")


def ready(url: str, name: str) -> bool:
    client = triton_grpc.InferenceServerClient(url)
    try:
        return bool(client.is_model_ready(name))
    finally:
        client.close()
