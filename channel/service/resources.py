"""What the service needs of its machine, seen to before it starts: open files, and ports that strangers cannot read."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import socket
from collections.abc import Iterator

from serendipity.channel.service.settings import ServerSettings, split_address

_LEAST_FILES = 1_024
"""A worker needs some 60 files, and one for each connection of a host."""
_ENOUGH_FILES = 65_536


def allow_open_files() -> None:
    """Let this process and its children open as many files as they may. Raises OSError where that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if allowed < _LEAST_FILES:
        raise OSError(
            f"open files: found a limit of {hard}, expected at least {_LEAST_FILES}, since every connection is one; "
            "raise it (`ulimit -n`, LimitNOFILE of systemd)"
        )
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def expect_privacy(settings: ServerSettings) -> None:
    """Refuse to listen in plain text where others could listen in. Raises OSError."""
    if settings.tls_certificate or settings.plaintext:
        return
    for name in ("address", "admin_address"):
        address = getattr(settings, name)
        if not _is_loopback(split_address(address)[0]):
            raise OSError(
                f"{name}: found {address} without TLS, expected a loopback address; set tls_certificate and tls_key, "
                "or plaintext behind a mesh that encrypts"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """Hold the workers' port while they come and go, and yield the address with its port. Raises OSError.

    The socket is bound and never listens, so that no connection reaches it. While it is held no other service gets the
    port, which would split the calls between the two; workers do, since they bind it with SO_REUSEPORT.
    """
    host, port = split_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as holder:
        try:
            # Connections of a service that has ended must not keep its port.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((host, port))
        except OSError as error:
            raise OSError(f"{address}: cannot be bound ({error.strerror})") from error
        # Only now: others that bind it with this option from the beginning may share it from now on.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield f"{address.rpartition(':')[0]}:{holder.getsockname()[1]}"
