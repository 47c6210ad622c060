"""A snapshot's models: all of one build or none placed, each answering on the real tritonserver before publication."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.groups import model as group_model
from serendipity.interests import model
from serendipity.tools.serving.deployment import (
    DeployError,
    deploy,
    pinned_models,
    place_pinned,
    retained_models,
    unload_unused,
)
from serendipity.tools.serving.kinds import PINNED, Serving
from serendipity.tools.serving.trainings import PlacementError, read_tower
from serendipity.v1 import records_pb2
from tests.fixtures.example_tower import Training
from tests.fixtures.small_world import SmallWorld
from tests.fixtures.tiny_coevolution import make_tiny_coevolution
from tests.tools.conftest import Deployment, ready
from tests.tools.serving.conftest import read


def manifest_of(build: Path) -> records_pb2.Manifest:
    return records_pb2.Manifest(
        version="v1",
        tower=read_tower(build / "towers")[0],
        interest_gpt=model.read_spec(build / "interest_gpt"),
        coevolution=group_model.read_coevolution_spec(build / "coevolution"),
    )


def test_every_model_that_a_manifest_pins_is_placed_and_none_that_it_does_not(build: Path) -> None:
    manifest = manifest_of(build)
    names = place_pinned(manifest, build, build / "models", Serving(instances=3))
    assert sorted(path.name for path in (build / "models").iterdir()) == sorted(names)
    assert [name.startswith(kind.prefix) for name, kind in zip(names, PINNED, strict=True)] == [True] * 4
    counts = [read(build / "models" / name / "config.pbtxt").instance_group[0].count for name in names]
    assert counts == [3, 1, 1, 1]
    older = records_pb2.Manifest(tower=manifest.tower)
    assert place_pinned(older, build, build / "older") == [manifest.tower.model_name]
    assert [path.name for path in (build / "older").iterdir()] == [manifest.tower.model_name]


@pytest.mark.parametrize("part", ["tower", "interest_gpt", "coevolution"])
def test_a_training_that_is_not_the_one_that_is_pinned_is_refused(build: Path, part: str) -> None:
    manifest = manifest_of(build)
    spec = getattr(manifest, part)
    for field in spec.DESCRIPTOR.fields:
        if field.name.endswith("model_name"):
            setattr(spec, field.name, getattr(spec, field.name)[:-16] + "0" * 16)
        if field.name.endswith("fingerprint"):
            setattr(spec, field.name, "0" * 16)
    directory = {"tower": "towers"}.get(part, part)
    with pytest.raises(PlacementError, match=rf"{directory}: fingerprint: found [0-9a-f]{{16}}, expected {'0' * 16}"):
        place_pinned(manifest, build, build / "models")
    assert not (build / "models").exists()


def test_every_pinned_model_is_told_by_its_fingerprint_and_asked_something(build: Path) -> None:
    for pinned in pinned_models(manifest_of(build)):
        assert pinned.name.endswith(pinned.reported["fingerprint"])
        assert pinned.question
        assert pinned.answer


@pytest.mark.integration
def test_the_model_answers_before_the_snapshot_is_published(deployment: Deployment, small_world: SmallWorld) -> None:
    seen: list[tuple[str, bool]] = []
    deploy(
        deployment.snapshots / deployment.version,
        deployment.build,
        deployment.models,
        deployment.url,
        lambda version: seen.append((version, ready(deployment.url, small_world.tower.model_name))),
    )
    assert seen == [(deployment.version, True)]


@pytest.mark.integration
def test_a_model_that_triton_does_not_see_is_not_published(
    deployment: Deployment, other_training: Training, tmp_path: Path
) -> None:
    shutil.rmtree(deployment.build / "towers")
    shutil.copytree(other_training.directory, deployment.build / "towers")
    manifest = layout.read_manifest(deployment.snapshots / deployment.version)
    manifest.tower.CopyFrom(other_training.spec)
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    published: list[str] = []
    with pytest.raises(DeployError, match=f"{other_training.spec.model_name}: Triton at .* refused it"):
        deploy(
            deployment.snapshots / deployment.version,
            deployment.build,
            tmp_path / "elsewhere",
            deployment.url,
            published.append,
        )
    assert published == []


@pytest.mark.integration
def test_the_models_of_lists_are_loaded_before_publication_and_unloaded_when_no_snapshot_pins_them(
    deployment: Deployment, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    llms = make_tiny_coevolution(deployment.build / "coevolution")
    names = {llms.novelty_model_name, llms.relevance_model_name}
    manifest = layout.read_manifest(deployment.snapshots / deployment.version)
    manifest.coevolution.CopyFrom(llms)
    # What else a snapshot of lists holds is not for deployment to look at.
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    assert retained_models(deployment.snapshots) == names | {small_world.tower.model_name}
    published: list[set[str]] = []
    deploy(
        deployment.snapshots / deployment.version,
        deployment.build,
        deployment.models,
        deployment.url,
        lambda _: published.append({name for name in names if ready(deployment.url, name)}),
    )
    assert published == [names]
    assert unload_unused(deployment.url, retained_models(deployment.snapshots)) == []
    manifest.ClearField("coevolution")
    layout.write_manifest(deployment.snapshots / deployment.version, manifest)
    unused = unload_unused(deployment.url, retained_models(deployment.snapshots))
    assert unused == sorted(names)


@pytest.mark.integration
def test_every_retained_snapshot_pins_its_model(deployment: Deployment, small_world: SmallWorld) -> None:
    (deployment.snapshots / layout.CURRENT).symlink_to(deployment.version)
    (deployment.snapshots / ".building").mkdir()
    assert retained_models(deployment.snapshots) == {small_world.tower.model_name}
