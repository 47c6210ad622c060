"""Deploying: a snapshot is published only after the model it pins answers on the real tritonserver."""

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
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools import cli, deploy, triton
from serendipity.tools.deploy import DeployError, retained_models
from serendipity.v1 import records_pb2
from tests.fixtures.example_tower import Training, write_training
from tests.fixtures.small_world import SmallWorld
from tests.fixtures.tiny_coevolution import make_tiny_coevolution, make_tiny_group_encoder
from tests.fixtures.tiny_interest_gpt import make_tiny_interest_gpt

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Deployment:
    """A build directory and a tritonserver on its models/."""

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
    with triton.launch(models, log_path=models.parent / "tritonserver.log") as running:
        yield running.url, models


@pytest.fixture
def deployment(small_world: SmallWorld, tmp_path: Path, server: tuple[str, Path]) -> Deployment:
    """A build of the small world, with nothing deployed or published yet."""
    url, models = server
    shutil.copytree(small_world.snapshots_root, tmp_path / "snapshots")
    (tmp_path / "models").symlink_to(models)
    towers = tmp_path / "towers"
    towers.mkdir()
    shutil.copy(small_world.tower_path, towers)
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


def test_one_command_places_loads_checks_and_publishes(
    deployment: Deployment, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["deploy", "--build", str(deployment.build), "--triton", deployment.url, "--no-gate"]
    assert cli.main([*arguments, "--unload-unused"]) == 0
    assert f"published {deployment.version}" in capsys.readouterr().out
    assert Publications(deployment.snapshots).wanted() == deployment.version
    assert ready(deployment.url, small_world.tower.model_name)


def test_the_model_answers_before_the_snapshot_is_published(deployment: Deployment, small_world: SmallWorld) -> None:
    seen: list[tuple[str, bool]] = []
    deploy.deploy(
        deployment.snapshots / deployment.version,
        deployment.models,
        deployment.url,
        lambda version: seen.append((version, ready(deployment.url, small_world.tower.model_name))),
        build_dir=deployment.build,
    )
    assert seen == [(deployment.version, True)]


def test_a_training_the_snapshot_does_not_pin_is_refused_and_nothing_is_published(
    deployment: Deployment, other_training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(deployment.build / "towers")
    shutil.copytree(other_training.directory, deployment.build / "towers")
    assert cli.main(["deploy", "--build", str(deployment.build), "--triton", deployment.url]) == 1
    message = capsys.readouterr().err
    assert f"fingerprint: found {other_training.spec.fingerprint}, expected" in message
    assert "What was published before stays." in message
    assert Publications(deployment.snapshots).wanted() == ""
    assert not (deployment.models / other_training.spec.model_name).exists()


def test_without_triton_nothing_is_published(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy", "--build", str(deployment.build), "--triton", "127.0.0.1:1", "--no-gate"]) == 1
    assert "Triton at 127.0.0.1:1 refused it" in capsys.readouterr().err
    assert Publications(deployment.snapshots).wanted() == ""


def test_a_model_that_was_never_placed_is_not_published(deployment: Deployment, other_training: Training) -> None:
    manifest = layout.read_manifest(deployment.snapshots / deployment.version)
    manifest.tower.CopyFrom(other_training.spec)
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    published: list[str] = []
    with pytest.raises(DeployError, match=f"{other_training.spec.model_name}: Triton at .* refused it"):
        deploy.deploy(deployment.snapshots / deployment.version, deployment.models, deployment.url, published.append)
    assert published == []


@pytest.fixture
def interest_gpt(deployment: Deployment) -> records_pb2.InterestGptSpec:
    """An InterestGPT in the build, pinned by its snapshot."""
    spec = make_tiny_interest_gpt(deployment.build / "interest_gpt", max_new_tokens=80)
    manifest = layout.read_manifest(deployment.snapshots / deployment.version)
    manifest.interest_gpt.CopyFrom(spec)
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    return spec


def test_an_interest_gpt_that_a_snapshot_pins_is_loaded_before_it_is_published_and_unloaded_when_none_does(
    deployment: Deployment, interest_gpt: records_pb2.InterestGptSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["deploy", "--build", str(deployment.build), "--triton", deployment.url, "--no-gate"]
    assert cli.main([*arguments, "--interest-gpt-threads", "2", "--unload-unused"]) == 0
    assert ready(deployment.url, interest_gpt.model_name)
    assert 'string_value: "2"' in (deployment.models / interest_gpt.model_name / "config.pbtxt").read_text()
    assert interest_gpt.model_name in retained_models(deployment.snapshots)
    manifest = layout.read_manifest(deployment.snapshots / deployment.version)
    manifest.ClearField("interest_gpt")
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    assert cli.main([*arguments, "--unload-unused"]) == 0
    assert f"unloaded {interest_gpt.model_name}" in capsys.readouterr().out
    assert not ready(deployment.url, interest_gpt.model_name)


def test_an_interest_gpt_of_another_training_is_refused_and_nothing_is_published(
    deployment: Deployment, interest_gpt: records_pb2.InterestGptSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(deployment.build / "interest_gpt")
    other = make_tiny_interest_gpt(deployment.build / "interest_gpt", seed=1)
    assert cli.main(["deploy", "--build", str(deployment.build), "--triton", deployment.url]) == 1
    expected = f"fingerprint: found {other.fingerprint}, expected {interest_gpt.fingerprint}"
    assert expected in capsys.readouterr().err
    assert Publications(deployment.snapshots).wanted() == ""


def test_the_models_of_groups_and_lists_are_loaded_before_publication_and_unloaded_when_no_snapshot_pins_them(
    deployment: Deployment, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = make_tiny_group_encoder(deployment.build / "groups")
    llms = make_tiny_coevolution(deployment.build / "coevolution")
    names = {groups.model_name, llms.novelty_model_name, llms.relevance_model_name}
    manifest = layout.read_manifest(deployment.snapshots / deployment.version)
    manifest.groups.CopyFrom(groups)
    manifest.coevolution.CopyFrom(llms)
    # What else a snapshot of groups holds is not for deployment to look at.
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    assert retained_models(deployment.snapshots) == names | {small_world.tower.model_name}
    published: list[set[str]] = []
    deploy.deploy(
        deployment.snapshots / deployment.version,
        deployment.models,
        deployment.url,
        lambda _: published.append({name for name in names if ready(deployment.url, name)}),
        build_dir=deployment.build,
    )
    assert published == [names]
    assert deploy.unload_unused(deployment.url, retained_models(deployment.snapshots)) == []
    manifest.ClearField("coevolution")
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    unused = deploy.unload_unused(deployment.url, retained_models(deployment.snapshots))
    assert unused == sorted(names - {groups.model_name})
    assert ready(deployment.url, groups.model_name)


def test_an_admin_service_that_is_away_is_named(deployment: Deployment) -> None:
    with pytest.raises(DeployError, match=r"the admin service at 127\.0\.0\.1:1 refused it"):
        deploy.publish_over("127.0.0.1:1")(deployment.version)


def test_every_retained_snapshot_pins_its_model(deployment: Deployment, small_world: SmallWorld) -> None:
    (deployment.snapshots / layout.CURRENT).symlink_to(deployment.version)
    (deployment.snapshots / ".building").mkdir()
    assert retained_models(deployment.snapshots) == {small_world.tower.model_name}


def test_a_snapshot_that_cannot_be_read_may_pin_anything_so_nothing_is_unloaded(
    deployment: Deployment, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = deployment.snapshots / "broken"
    broken.mkdir()
    (broken / layout.MANIFEST).write_text('{"layout_version": 99}')
    arguments = ["deploy", deployment.version, "--build", str(deployment.build), "--triton", deployment.url]
    assert cli.main([*arguments, "--no-gate", "--unload-unused"]) == 1
    assert f"{deployment.version} is published, but unused models stay loaded" in capsys.readouterr().err
    assert ready(deployment.url, small_world.tower.model_name)


def test_a_build_without_snapshots_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="holds no snapshot"):
        deploy.newest(tmp_path / "snapshots")
