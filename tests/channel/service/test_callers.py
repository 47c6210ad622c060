"""Who may call what, and how much of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from serendipity.channel.client import AdminClient, AsyncSerendipityClient, ClientError, Credentials, Overloaded
from serendipity.channel.errors import Overloaded as TooMuch
from serendipity.channel.service.admin import AdminServicer, serving_admin
from serendipity.channel.service.callers import Caller, Callers, Rights
from serendipity.channel.service.process_telemetry import CallTelemetry
from serendipity.channel.service.reread import CredentialsUnusable
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.worker import running_worker
from serendipity.channel.snapshot.publication import Publications
from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings, until
from tests.fixtures.certificates import Authority
from tests.fixtures.small_world import SmallWorld

HOST, OPERATOR = Credentials(token="the shop's own token"), Credentials(token="the release's own token")


def digest(credentials: Credentials) -> str:
    return hashlib.sha256(credentials.token.encode()).hexdigest()


FILE = f"""
[shop]
role = "host"
tokens = ["{digest(HOST)}"]

[release]
role = "operator"
tokens = ["{digest(OPERATOR)}"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "callers.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def settings(tmp_path: Path, file: Path, small_world: SmallWorld) -> ServerSettings:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    return server_settings(tmp_path, callers=file)


@contextlib.asynccontextmanager
async def served(settings: ServerSettings) -> AsyncIterator[str]:
    async with running_worker(settings, channel_settings()) as worker:
        yield f"127.0.0.1:{worker.port}"


async def outcome(address: str, credentials: Credentials) -> str:
    """How a call of a host ends."""
    async with AsyncSerendipityClient(address, timeout=30.0, credentials=credentials) as client:
        try:
            await client.list_categories()
        except ClientError as error:
            return str(error)
    return "OK"


async def test_hosts_call_the_channel_and_nobody_else_does(settings: ServerSettings) -> None:
    async with served(settings) as address:
        assert await outcome(address, HOST) == "OK"
        for unknown, told in (
            (Credentials(), "UNAUTHENTICATED: found no token, expected 'Bearer TOKEN' in the metadata's authorization"),
            (Credentials(token="a guess"), "UNAUTHENTICATED: found a token that is nobody's"),
            (Credentials(token=digest(HOST)), "UNAUTHENTICATED: found a token that is nobody's"),
        ):
            assert (await outcome(address, unknown)).startswith(told)
        assert (await outcome(address, OPERATOR)).startswith(
            "PERMISSION_DENIED: release: found role operator, expected host"
        )


async def test_another_scheme_than_a_token_is_refused_as_such(settings: ServerSettings) -> None:
    async with served(settings) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/serendipity.v1.SerendipityChannel/Recall")(
                b"", metadata=(("authorization", "Basic c2hvcDpzaG9w"),)
            )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "found another authorization" in str(caught.value.details())


async def test_operators_publish_and_hosts_do_not(settings: ServerSettings) -> None:
    servicer = AdminServicer(Publications(settings.snapshots), settings)
    async with serving_admin(servicer, settings, CallTelemetry()) as ports:

        def state(credentials: Credentials) -> str:
            with AdminClient(f"127.0.0.1:{ports.main}", timeout=30.0, credentials=credentials) as admin:
                try:
                    return admin.follow(admin.publish("v1").id).error
                except ClientError as error:
                    return str(error)

        assert await asyncio.to_thread(state, OPERATOR) == ""
        assert "PERMISSION_DENIED: shop: found role host" in await asyncio.to_thread(state, HOST)
        assert "UNAUTHENTICATED" in await asyncio.to_thread(state, Credentials())


async def test_a_token_is_replaced_without_a_restart(settings: ServerSettings, file: Path) -> None:
    renewed = Credentials(token="the shop's next token")
    async with served(settings) as address:

        async def is_known(credentials: Credentials) -> bool:
            return await outcome(address, credentials) == "OK"

        file.write_text(FILE.replace(f'["{digest(HOST)}"]', f'["{digest(HOST)}", "{digest(renewed)}"]'))
        await until(lambda: is_known(renewed))
        assert await is_known(HOST)
        file.write_text(FILE.replace(digest(HOST), digest(renewed)))

        async def is_gone() -> bool:
            return not await is_known(HOST)

        await until(is_gone)
        assert await is_known(renewed)


class NoConnection:
    """A call over plain text: no certificate was shown."""

    def peer_identities(self) -> None:
        return None


def test_a_file_that_cannot_be_used_leaves_the_callers_of_before(file: Path) -> None:
    now = [0.0]
    callers = Callers(file, "host", lambda: now[0])
    for broken in ("[shop", FILE.replace("host", "hots"), None):
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        with capture_logs() as lines:
            for _ in range(2):
                now[0] += 2.0
                assert callers.of(dict(HOST.metadata), NoConnection()).name == "shop"
        assert [line["event"] for line in lines] == ["credentials not renewed: those of before stay in use"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[shop", "found no TOML"),
        ('[shop]\nrole = "guest"\ntokens = []', "shop.role: Input should be 'host' or 'operator'"),
        ('[shop]\nrole = "host"', "shop: found neither tokens nor certificates"),
        ('[shop]\nrole = "host"\ntokens = ["my secret"]', r"shop.tokens.0: String should match pattern"),
        ('[shop]\nrole = "host"\ncertificates = ["a"]\nlimit = 3', "shop.limit: Extra inputs"),
        ('[shop]\nrole = "host"\ncertificates = ["a"]\ncalls_per_second = 0', "shop.calls_per_second: "),
        ('[a]\nrole = "host"\ncertificates = ["x"]\n[b]\nrole = "operator"\ncertificates = ["x"]', "found x more than"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line_that_tells_no_token(file: Path, content: str, told: str) -> None:
    file.write_text(content)
    with pytest.raises(CredentialsUnusable, match=told) as caught:
        Callers(file, "host")
    assert str(caught.value).startswith(f"{file}: ")
    assert "my secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_certificate_tells_who_calls(settings: ServerSettings, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server")
    (tmp_path / "callers.toml").write_text(
        '[shop]\nrole = "host"\ncertificates = ["shop.internal"]\n'
        '[kiosk]\nrole = "host"\ncertificates = ["kiosk"]\n'
        '[release]\nrole = "operator"\ncertificates = ["release.internal"]'
    )
    files = {"tls_certificate": server.certificate, "tls_key": server.key, "tls_client_ca": authority.certificate}
    over_tls = server_settings(tmp_path, callers=settings.callers, health_address="127.0.0.1:0", **files)

    def of(name: str, *names: str) -> Credentials:
        issued = authority.issue(name, names=names)
        return Credentials(authority.certificate, issued.certificate, issued.key)

    shop = of("any", "other.internal", "shop.internal")
    async with served(over_tls) as address:
        assert await outcome(address, shop) == "OK"
        assert await outcome(address, of("kiosk")) == "OK"
        assert (await outcome(address, of("release", "release.internal"))).startswith("PERMISSION_DENIED: release")
        # A common name counts only where there are no others.
        assert "found the certificate of guest.internal" in await outcome(address, of("kiosk", "guest.internal"))
        assert "a token that is nobody's" in await outcome(address, replace(shop, token="a guess"))


async def test_a_caller_beyond_its_limit_is_told_when_to_come_again(settings: ServerSettings, file: Path) -> None:
    file.write_text(FILE.replace('role = "host"', 'role = "host"\ncalls_per_second = 0.01'))
    async with served(settings) as address, AsyncSerendipityClient(address, timeout=30.0, credentials=HOST) as client:
        await client.list_categories()
        with pytest.raises(Overloaded, match=r"RESOURCE_EXHAUSTED: shop: called more often than 0\.01 times") as caught:
            await client.list_categories()
    assert 0 < caught.value.retry_after <= 100


def caller(now: list[float], **limits: float) -> Caller:
    rights = Rights.model_validate({"role": "host", "certificates": ["a"], **limits})
    return Caller("a", rights, lambda: now[0])


def test_calls_of_a_second_may_come_at_once_and_no_more_than_these_in_the_long_run() -> None:
    now = [0.0]
    limited = caller(now, calls_per_second=20)
    let_in = 0
    for _ in range(1_000):
        with contextlib.suppress(TooMuch), limited:
            let_in += 1
        now[0] += 0.01
    assert let_in == 20 + 10 * 20 - 1
    now[0] += 60.0
    for _ in range(20):
        with limited:
            pass
    with pytest.raises(TooMuch) as caught, limited:
        pass
    assert caught.value.retry_after == pytest.approx(0.05)


def test_calls_at_once_are_counted_until_they_end() -> None:
    limited = caller([0.0], calls_at_once=2)
    with limited, contextlib.suppress(KeyError), limited:
        with pytest.raises(TooMuch, match="a: 2 calls are being answered"), limited:
            pass
        raise KeyError
    with limited, limited:
        pass
