"""The service over TLS: who is served, who is not, and what changes without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from serendipity.channel.client import AsyncSerendipityClient, Credentials, Unavailable
from serendipity.channel.service.listening import Health, Ports, listening
from serendipity.channel.service.reread import CredentialsUnusable
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.tls import server_credentials
from serendipity.channel.service.worker import running_worker
from serendipity.v1 import channel_pb2, channel_pb2_grpc
from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings
from tests.fixtures.certificates import Authority, Issued
from tests.fixtures.small_world import SmallWorld


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Issued:
    return authority.issue("server")


def tls_settings(directory: Path, server: Issued, **changes: object) -> ServerSettings:
    files = {"tls_certificate": server.certificate, "tls_key": server.key}
    return server_settings(
        directory, health_address="127.0.0.1:0", admin_health_address="127.0.0.1:0", **files, **changes
    )


@contextlib.asynccontextmanager
async def listens(settings: ServerSettings) -> AsyncIterator[Ports]:
    """A server of nothing but health."""
    health = Health("a service")
    await health.set_serving(True)
    addresses = ("127.0.0.1:0", "127.0.0.1:0")
    async with listening(lambda _: None, health, addresses, settings, share_ports=False, drain_seconds=1.0) as ports:
        yield ports


async def asked(port: int, credentials: Credentials) -> str:
    """Ask for health over a new connection; returns the status it says, or why it could not be asked."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with credentials.connect(grpc.aio, f"127.0.0.1:{port}", options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30.0)  # type: ignore[no-untyped-call]
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def test_a_host_that_knows_the_authority_is_answered(
    tmp_path: Path, small_world: SmallWorld, authority: Authority, server: Issued
) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    async with running_worker(tls_settings(tmp_path, server), channel_settings()) as worker:
        address = f"localhost:{worker.port}"
        async with AsyncSerendipityClient(
            address, timeout=30.0, credentials=Credentials(authority.certificate)
        ) as client:
            assert len((await client.recall(small_world.user_ids[0], count=5)).candidates) == 5
        async with AsyncSerendipityClient(address, timeout=30.0) as client:
            with pytest.raises(Unavailable):
                await client.recall(small_world.user_ids[0], count=5)
        assert await asked(worker.health_port, Credentials()) == "SERVING"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.health_port}") as channel:
            stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Recall(channel_pb2.RecallRequest(user_id="a", count=1))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_host_refuses_a_service_that_its_authority_did_not_sign_or_no_longer(
    tmp_path: Path, authority: Authority, stranger: Authority, server: Issued
) -> None:
    async with listens(tls_settings(tmp_path, server)) as ports:
        assert "CERTIFICATE_VERIFY_FAILED" in await asked(ports.main, Credentials(stranger.certificate))
    async with listens(tls_settings(tmp_path, authority.issue("expired", days=-1))) as ports:
        assert "certificate has expired" in await asked(ports.main, Credentials(authority.certificate))
    async with listens(tls_settings(tmp_path, authority.issue("elsewhere", names=["elsewhere.internal"]))) as ports:
        assert "UNAVAILABLE" in await asked(ports.main, Credentials(authority.certificate))


async def test_callers_show_a_certificate_where_one_is_asked_for(
    tmp_path: Path, authority: Authority, stranger: Authority, server: Issued
) -> None:
    nobody = Credentials(authority.certificate)

    def of(issued: Issued) -> Credentials:
        return replace(nobody, certificate=issued.certificate, key=issued.key)

    async with listens(tls_settings(tmp_path, server, tls_client_ca=authority.certificate)) as ports:
        assert await asked(ports.main, of(authority.issue("shop"))) == "SERVING"
        for refused in (nobody, of(stranger.issue("shop")), of(authority.issue("old-shop", days=-1))):
            assert "UNAVAILABLE" in await asked(ports.main, refused)
        assert await asked(ports.health, Credentials()) == "SERVING"


def shown(port: int) -> str:
    """The certificate that a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", port)).strip()


def place(issued: Issued, at: Issued) -> None:
    shutil.copy(issued.certificate, at.certificate)
    shutil.copy(issued.key, at.key)


async def test_a_renewed_certificate_is_shown_to_the_next_connection(
    tmp_path: Path, authority: Authority, server: Issued
) -> None:
    renewed, used = authority.issue("renewed"), Issued(tmp_path / "tls.pem", tmp_path / "tls.key")
    place(server, used)
    async with listens(tls_settings(tmp_path, used)) as ports:
        assert await asked(ports.main, Credentials(authority.certificate)) == "SERVING"
        place(renewed, used)
        assert await asked(ports.main, Credentials(authority.certificate)) == "SERVING"
        assert await asyncio.to_thread(shown, ports.main) == renewed.certificate.read_text().strip()


async def test_a_renewal_that_cannot_be_used_leaves_the_certificate_of_before_and_says_so_once(
    tmp_path: Path, authority: Authority, server: Issued
) -> None:
    renewed, used = authority.issue("half-renewed"), Issued(tmp_path / "tls.pem", tmp_path / "tls.key")
    place(server, used)
    async with listens(tls_settings(tmp_path, used)) as ports:
        with capture_logs() as lines:
            shutil.copy(renewed.certificate, used.certificate)
            for _ in range(3):
                assert await asked(ports.main, Credentials(authority.certificate)) == "SERVING"
        assert [line["log_level"] for line in lines] == ["error"]
        assert "KEY_VALUES_MISMATCH" in lines[0]["error"]
        assert await asyncio.to_thread(shown, ports.main) == server.certificate.read_text().strip()
        shutil.copy(renewed.key, used.key)
        assert await asyncio.to_thread(shown, ports.main) == renewed.certificate.read_text().strip()


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority, server: Issued) -> None:
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    by_password = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.TraditionalOpenSSL
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, by_password))
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    missing = tmp_path / "missing.pem"
    for changes, told in (
        ({"tls_certificate": missing}, f"{missing}: cannot be read"),
        ({"tls_certificate": garbage}, f"{garbage}, {server.key}: found .*, expected a certificate chain and its key"),
        ({"tls_key": authority.issue("other").key}, "found KEY_VALUES_MISMATCH"),
        ({"tls_key": locked}, f"{locked}: found "),
        ({"tls_client_ca": garbage}, f"{garbage}: found no certificates"),
    ):
        with pytest.raises(CredentialsUnusable, match=told):
            server_credentials(tls_settings(tmp_path, server).model_copy(update=changes))


def test_certificates_without_their_keys_are_no_settings(tmp_path: Path, server: Issued) -> None:
    with pytest.raises(ValueError, match="tls_certificate, tls_key: found one of them"):
        server_settings(tmp_path, tls_certificate=server.certificate)
    with pytest.raises(ValueError, match="tls_client_ca: found no tls_certificate"):
        server_settings(tmp_path, tls_client_ca=server.certificate)
