"""The command that deploys: what it does in one go, and what it says when a step fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.channel.snapshot.publication import Publications
from serendipity.offline import encoder
from serendipity.tools import cli, deploy
from serendipity.tools.serving.deployment import DeployError, fault_of_server, retained_models
from serendipity.tools.serving.triton_server import launch
from serendipity.v1 import records_pb2
from tests.fixtures.certificates import Authority
from tests.fixtures.example_tower import Training
from tests.fixtures.small_world import SmallWorld
from tests.fixtures.tiny_interest_gpt import make_tiny_interest_gpt
from tests.tools.conftest import Deployment, ready

pytestmark = pytest.mark.integration


def test_one_command_places_loads_checks_and_publishes(
    deployment: Deployment, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["deploy", "--build", str(deployment.build), "--triton", deployment.url, "--no-gate"]
    assert cli.main([*arguments, "--unload-unused"]) == 0
    told = capsys.readouterr()
    assert f"published {deployment.version}" in told.out
    assert "serendip deploy: warning: tritonserver 2.51.0 is for demos and tests, over HTTP" in told.err
    assert Publications(deployment.snapshots).wanted() == deployment.version
    assert ready(deployment.url, small_world.tower.model_name)


def test_a_text_encoder_is_placed_and_loaded_too(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["deploy", "--build", str(deployment.build), "--triton", deployment.url, "--no-gate"]
    assert cli.main([*arguments, "--text-encoder", str(encoder.default_path())]) == 0
    assert capsys.readouterr().out == f"placed text_encoder\npublished {deployment.version}\n"
    assert ready(deployment.url, "text_encoder")


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
    assert cli.main([*arguments, "--llm-threads", "2", "--unload-unused"]) == 0
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


def test_an_admin_service_that_is_away_is_named(deployment: Deployment) -> None:
    with pytest.raises(DeployError, match=r"the admin service at 127\.0\.0\.1:1 did not publish it: UNAVAILABLE"):
        deploy.publish_over("127.0.0.1:1")(deployment.version)


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


def test_credentials_that_nobody_is_shown_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("secret")
    assert cli.main(["deploy", "--build", str(tmp_path), "--token", str(tmp_path / "token")]) == 1
    assert "found no --admin beside them" in capsys.readouterr().err


def test_a_build_without_snapshots_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="holds no snapshot"):
        deploy.newest(tmp_path / "snapshots")


def test_triton_is_reached_over_tls_by_an_address_that_names_its_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server = authority.issue("triton")
    (tmp_path / "models").mkdir()
    tls = ("--grpc-use-ssl=1", f"--grpc-server-cert={server.certificate}", f"--grpc-server-key={server.key}")
    with launch(tmp_path / "models", log_path=tmp_path / "triton.log", arguments=tls) as running:
        assert "2.51" in fault_of_server(f"https://{running.grpc_url}?ca={authority.certificate}")
        for refused in (running.grpc_url, f"https://{running.grpc_url}?ca={stranger.certificate}"):
            with pytest.raises(DeployError, match="refused it"):
                fault_of_server(refused, 10.0)
    with pytest.raises(DeployError, match=r"missing\.pem"):
        fault_of_server(f"https://localhost:1?ca={tmp_path / 'missing.pem'}")
