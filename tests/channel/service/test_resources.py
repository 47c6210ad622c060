"""What the service needs for itself is looked at before it starts, and told in a line."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serendipity.channel.service.resources import expect_privacy, reserved
from tests.channel.served import server_settings


def a_workers_socket(address: str) -> socket.socket:
    host, port = address.split(":")
    listener = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind((host, int(port)))
    listener.listen()
    return listener


def test_workers_share_a_port_that_no_other_service_gets() -> None:
    taken = r"127.0.0.1:\d+: cannot be bound"
    with reserved("127.0.0.1:0") as address:
        with pytest.raises(OSError, match=taken), reserved(address):
            pass
        sharing = [a_workers_socket(address) for _ in range(2)]
        with pytest.raises(OSError, match=taken), reserved(address):
            pass
        for worker in sharing:
            worker.close()
    with reserved(address) as again:
        assert again == address


_ALLOW = """
import resource
from serendipity.channel.service.resources import allow_open_files
allow_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "told"), [(64, 2_048, "^2048$"), (64, 64, "found a limit of 64, expected")])
def test_as_many_files_as_may_be_opened_are_allowed_and_too_few_are_refused(soft: int, hard: int, told: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _ALLOW],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    assert re.search(told, said.stdout + said.stderr, re.MULTILINE)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.1.2.3:50051", "recall.internal:50051"])
def test_plain_text_beyond_the_loopback_is_refused_unless_it_is_meant(address: str, tmp_path: Path) -> None:
    expect_privacy(server_settings(tmp_path, address=address, plaintext=True))
    expect_privacy(server_settings(tmp_path, address=address, tls_certificate="tls.pem", tls_key="tls.key"))
    for name in ("address", "admin_address"):
        with pytest.raises(OSError, match=rf"^{name}: found {re.escape(address)} without TLS, expected a loopback"):
            expect_privacy(server_settings(tmp_path, **{name: address}))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1.2.3:50051", "[::1]:50051", "localhost:50051"])
def test_the_loopback_needs_no_tls(address: str, tmp_path: Path) -> None:
    expect_privacy(server_settings(tmp_path, address=address, admin_address=address))


def test_every_process_has_a_port_for_its_metrics(tmp_path: Path) -> None:
    server_settings(tmp_path, metrics_port=65_532, workers=2)
    with pytest.raises(ValueError, match="metrics_port: found 65533, which leaves the supervisor 65536, no port"):
        server_settings(tmp_path, metrics_port=65_533, workers=2)
