"""The service: one process that supervises the workers and answers operators.

    serve(ServerSettings(snapshots=…, state=…))        returns when SIGTERM or SIGINT has been obeyed

Workers share one port (SO_REUSEPORT). Beside them runs the near-line process. Whichever dies or hangs is replaced, see
`Child`; a supervisor that cannot do that ends with status 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator, Sequence

import structlog

from serendipity import layout
from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.process import run_nearline
from serendipity.channel.service.admin import AdminServicer, serving_admin
from serendipity.channel.service.child import Child
from serendipity.channel.service.logs import configure_logs
from serendipity.channel.service.process_telemetry import SupervisorTelemetry
from serendipity.channel.service.processes import held, logged_failures, told_to_stop
from serendipity.channel.service.readiness import model_answers
from serendipity.channel.service.resources import allow_open_files, expect_privacy, reserved
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.worker import run_worker
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.publication import Check, Publications
from serendipity.channel.snapshot.trial_opening import can_be_opened

_NEARLINE_PATIENCE = 10

_log = structlog.stdlib.get_logger(__name__)


def serve(
    settings: ServerSettings, channel_settings: ChannelSettings | None = None, gates: Sequence[Check] = ()
) -> int:
    """Run the service until it is told to stop; returns the exit status, 0 after a clean drain.

    gates: asked, after whether the model is ready, before the admin service publishes a snapshot; not to roll back.
    Raises StateUnavailable when another service uses the state directory, OSError when a port cannot be bound or would
    be open to listeners, credentials cannot be used, or too few files may be open.
    """
    # What gRPC's C code writes by itself is no JSON, and waits for whoever reads it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    configure_logs(settings.log_level, settings.log_format)
    allow_open_files()
    expect_privacy(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone_on(settings))
        shared = ["address", "health_address"] if settings.tls_certificate else ["address"]
        bound = {name: stack.enter_context(reserved(getattr(settings, name))) for name in shared}
        settings = settings.model_copy(update=bound)
        return asyncio.run(_supervise(settings, channel_settings or ChannelSettings(), gates))


async def _supervise(settings: ServerSettings, channel_settings: ChannelSettings, gates: Sequence[Check]) -> int:
    publications = Publications(settings.snapshots, checks=_checks(settings, channel_settings), gates=gates)
    telemetry = SupervisorTelemetry()
    # The workers and the near-line process have the ports before it.
    port = settings.metrics_port and settings.metrics_port + settings.workers + 1
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(telemetry.serve(settings.metrics_host, port))
        admin = serving_admin(AdminServicer(publications, settings), settings, telemetry)
        ports = await stack.enter_async_context(admin)
        endpoints = {"address": settings.address, "admin_address": _with_port(settings.admin_address, ports.main)}
        if ports.health:
            endpoints["health_address"] = settings.health_address
            endpoints["admin_health_address"] = _with_port(settings.admin_health_address, ports.health)
        numbers = {"metrics_port": telemetry.metrics_port, "pid": os.getpid()}
        try:
            with told_to_stop() as stop:
                async with asyncio.TaskGroup() as supervision:
                    children = _children(settings, channel_settings, telemetry)
                    kept = [supervision.create_task(child.keep_alive(stop)) for child in children]
                    with logged_failures("endpoints"):
                        found = json.dumps({**endpoints, **numbers})
                        layout.write_atomically(settings.endpoints_path, found.encode())
                    _log.info("service serves", **endpoints, **numbers, workers=settings.workers)
            statuses = [task.result() for task in kept]
        except ExceptionGroup:
            # A supervisor that does not supervise must not look alive: whoever started it starts it again.
            _log.exception("supervision failed")
            statuses = [1]
        finally:
            with logged_failures("endpoints"):
                settings.endpoints_path.unlink(missing_ok=True)
    _log.info("service ends", exit_statuses=statuses)
    return max(map(abs, statuses), default=0)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def _children(
    settings: ServerSettings, channel_settings: ChannelSettings, telemetry: SupervisorTelemetry
) -> list[Child]:
    children = [
        Child(
            f"worker-{number}",
            run_worker,
            (settings, channel_settings, number),
            settings.hung_seconds,
            settings.drain_seconds,
            telemetry.told_of(f"worker-{number}"),
        )
        for number in range(settings.workers)
    ]
    if settings.nearline:
        # Nobody waits for it.
        patience = _NEARLINE_PATIENCE * settings.hung_seconds
        run, told = (settings, channel_settings), telemetry.told_of("nearline")
        children.append(Child("nearline", run_nearline, run, patience, settings.drain_seconds, told))
    return children


@contextlib.contextmanager
def _alone_on(settings: ServerSettings) -> Iterator[None]:
    """Hold the state directory. Raises StateUnavailable when another service does."""
    with contextlib.ExitStack() as stack:
        try:
            alone = stack.enter_context(held(settings.state / ".lock"))
        except StateUnavailable as error:
            # Answers say so as well, and go on.
            _log.error("serving without state until it can be written", error=str(error))
        else:
            if not alone:
                # Two services would overwrite each other's workers' states.
                raise StateUnavailable(f"{settings.state}: another service uses this state directory")
        yield


def _checks(settings: ServerSettings, channel_settings: ChannelSettings) -> list[Check]:
    checks = [can_be_opened(settings.snapshots)]
    if settings.require_ready_model and settings.user_tower_path is None:
        checks.append(model_answers(channel_settings.triton_url))
    return checks
