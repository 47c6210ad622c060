"""How a server of the service listens: its port and TLS, its health, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.tls import server_credentials

_PENDING_CALLS = 100_000
_WATCH_SECONDS = 0.5
"""Between looks at what those who watch are told."""


class _HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]
    """gRPC's own writes to those who watch while it holds what `set` waits for: one who does not read, and anybody may
    watch, would keep a worker from another snapshot and from its end."""

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        """Tell the status of a service now and whenever it changes, until the server ends."""
        told = None
        while True:
            ends = self._gracefully_shutting_down
            status = self._server_status.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            if ends:
                return
            await asyncio.sleep(_WATCH_SECONDS)


class Health:
    """grpc.health.v1 for one server of a service, given by its full name."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.servicer = _HealthServicer()

    async def set_serving(self, serving: bool) -> None:
        """Tell whoever asks or watches."""
        state = health_pb2.HealthCheckResponse.ServingStatus
        for name in ("", self.service):
            await self.servicer.set(name, state.SERVING if serving else state.NOT_SERVING)

    async def stop(self) -> None:
        """Say NOT_SERVING from now on, whatever is set later."""
        await self.servicer.enter_graceful_shutdown()


@dataclass(frozen=True)
class Ports:
    """Those bound. health: the one in plain text for probes, 0 without TLS, where `main` answers them."""

    main: int
    health: int


@contextlib.asynccontextmanager
async def listening(
    add: Callable[[grpc.aio.Server], None],
    health_of: Health,
    addresses: tuple[str, str],
    settings: ServerSettings,
    *,
    share_ports: bool,
    drain_seconds: float,
) -> AsyncIterator[Ports]:
    """Serve what `add` adds to a server, with health and reflection, at the first address until the context ends.

    With TLS another server answers health in plain text at the second address: whoever probes may have no certificate.
    share_ports: with other processes; drain_seconds: for calls in flight in the end. Raises OSError when an address
    cannot be bound or a file cannot be used.
    """
    credentials, options = server_credentials(settings), _options(settings, share_ports)
    servers = [grpc.aio.server(options=options) for _ in range(2 if credentials else 1)]
    add(servers[0])
    reflection.enable_server_reflection((health_of.service, health.SERVICE_NAME, reflection.SERVICE_NAME), servers[0])
    bound = [_bind(servers[0], addresses[0], credentials)]
    bound.append(_bind(servers[1], addresses[1], None) if credentials else 0)
    for server in servers:
        health_pb2_grpc.add_HealthServicer_to_server(health_of.servicer, server)
        await server.start()
    try:
        yield Ports(*bound)
    finally:
        await health_of.stop()
        await asyncio.gather(*(server.stop(drain_seconds) for server in servers))


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"{address}: cannot be bound ({error})") from error
    if not port:
        raise OSError(f"{address}: cannot be bound")
    return int(port)


def _options(settings: ServerSettings, share_ports: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(share_ports)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Clients ping idle connections too; more often than this is abuse.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # With more calls not yet taken than the default of 1,000, gRPC ends some at random as CANCELLED, unseen by us.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING_CALLS),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1_000)),
        # Calls in flight on an old connection may finish.
        ("grpc.max_connection_age_grace_ms", int(settings.drain_seconds * 1_000) or 1),
    ]
