"""The whole service over TLS, with callers that it knows: its processes, its ports and the commands that call it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serendipity.channel.client import Credentials
from serendipity.tools import cli
from serendipity.tools.deploy import publish_over
from serendipity.tools.service import Service, launch_service
from serendipity.tools.serving.deployment import DeployError
from tests.channel.served import NO_TRITON, copy_snapshot, publish
from tests.fixtures.certificates import Authority
from tests.fixtures.small_world import SmallWorld

pytestmark = pytest.mark.integration

TOKENS = {"host": "token of a host", "operator": "token of an operator"}


@dataclass(frozen=True)
class Secured:
    service: Service
    directory: Path
    authority: Authority

    def credentials(self, role: str) -> Credentials:
        return Credentials(self.authority.certificate, token=TOKENS[role])

    def endpoints(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.directory / "state" / "endpoints.json").read_text())
        return found


@pytest.fixture(scope="module")
def secured(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    copy_snapshot(small_world, directory / "snapshots", "v1")
    publish(directory, "v1")
    authority = Authority(directory)
    server = authority.issue("server")
    tables = []
    for role, token in TOKENS.items():
        (directory / f"{role}.token").write_text(f"{token}\n")
        digest = hashlib.sha256(token.encode()).hexdigest()
        tables.append(f'[the-{role}]\nrole = "{role}"\ntokens = ["{digest}"]')
    (directory / "callers.toml").write_text("\n".join(tables))
    options = {
        "tls_certificate": str(server.certificate),
        "tls_key": str(server.key),
        "callers": str(directory / "callers.toml"),
        "health_address": "127.0.0.1:0",
        "admin_health_address": "127.0.0.1:0",
        "require_ready_model": "false",
        "clock": "snapshot",
        "max_deadline_ms": "30000",
        "nearline": "false",
    }
    with launch_service(directory, NO_TRITON, workers=2, options=options) as service:
        yield Secured(service, directory, authority)


@pytest.mark.parametrize(
    ("tokens", "status", "told"),
    [(["host.token"], 0, '"item_ids"'), (["operator.token"], 1, "PERMISSION_DENIED"), ([], 1, "UNAUTHENTICATED")],
)
def test_the_command_that_recalls_shows_a_token(
    secured: Secured, capsys: pytest.CaptureFixture[str], tokens: list[str], status: int, told: str
) -> None:
    words = ["recall", "--user", "a", "--json", "--timeout", "30", "--target", secured.service.address]
    words += ["--ca", str(secured.authority.certificate)]
    for token in tokens:
        words += ["--token", str(secured.directory / token)]
    assert cli.main(words) == status
    output = capsys.readouterr()
    assert told in output.out + output.err


def test_what_an_operator_publishes_is_judged_and_what_a_host_publishes_is_not_begun(secured: Secured) -> None:
    with pytest.raises(DeployError, match="quality: nothing was measured"):
        publish_over(secured.service.admin_address, secured.credentials("operator"))("v1")
    with pytest.raises(DeployError, match="PERMISSION_DENIED: the-host: found role host, expected operator"):
        publish_over(secured.service.admin_address, secured.credentials("host"))("v1")


def test_probes_ask_workers_and_supervisor_in_plain_text(secured: Secured) -> None:
    for name in ("health_address", "admin_health_address"):
        with grpc.insecure_channel(secured.endpoints()[name]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30.0)  # type: ignore[no-untyped-call]
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--address", "0.0.0.0:0"],
            "serendip serve: address: found 0.0.0.0:0 without TLS, expected a loopback address;",
        ),
        (["--tls-certificate", "tls.pem"], "tls_certificate, tls_key: found one of them, expected both or none"),
        (["--tls-certificate", "tls.pem", "--tls-key", "tls.key"], "serendip serve: tls.key: cannot be read"),
        (["--callers", "callers.toml"], "serendip serve: callers.toml: cannot be read"),
        (["--address", "nowhere"], "--address: found 'nowhere', expected host:port"),
    ],
)
def test_a_service_that_cannot_be_kept_safe_does_not_start_and_says_why_in_a_line(
    tmp_path: Path, options: list[str], told: str
) -> None:
    (tmp_path / "snapshots").mkdir()
    words = ["serve", "--build", ".", "--no-gate", "--admin-address", "127.0.0.1:0", *options]
    if "--address" not in options:
        words += ["--address", "127.0.0.1:0"]
    said = subprocess.run(
        [sys.executable, "-m", "serendipity.tools.cli", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert said.returncode == 1
    assert said.stderr.splitlines()[0].startswith(told)
    assert len(said.stderr.splitlines()) == 1
