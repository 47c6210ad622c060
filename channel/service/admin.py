"""What operators do, over gRPC on a port of its own: a call to the workers' shared port would reach only one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import grpc

from serendipity.channel.service.callers import Callers
from serendipity.channel.service.edge import Edge
from serendipity.channel.service.listening import Health, Ports, listening
from serendipity.channel.service.operations import Operations
from serendipity.channel.service.process_telemetry import CallTelemetry
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.worker_status import read_statuses
from serendipity.channel.snapshot.publication import Publications
from serendipity.v1 import admin_pb2, admin_pb2_grpc

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["SerendipityAdmin"].full_name
_LONGEST_WAIT = 60.0
_DRAIN_SECONDS = 1.0


class AdminServicer(admin_pb2_grpc.SerendipityAdminServicer):
    """SerendipityAdmin: changes which snapshot is wanted, and tells what each worker serves."""

    def __init__(self, publications: Publications, settings: ServerSettings) -> None:
        self._publications = publications
        self._settings = settings
        self._operations = Operations()

    async def PublishSnapshot(  # noqa: N802
        self, request: admin_pb2.PublishSnapshotRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.PublishSnapshotResponse:
        """Begin to verify a snapshot and make it the wanted one."""
        wanted, publish = self._publications.wanted(), partial(self._publications.publish, request.version)
        operation = self._operations.begin(request.version, wanted, publish)
        return admin_pb2.PublishSnapshotResponse(operation=operation)

    async def RollbackSnapshot(  # noqa: N802
        self, _request: admin_pb2.RollbackSnapshotRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.RollbackSnapshotResponse:
        """Begin to make the snapshot wanted before the wanted one again."""
        before = next(iter(self._publications.earlier()), "")
        operation = self._operations.begin(before, self._publications.wanted(), self._publications.rollback)
        return admin_pb2.RollbackSnapshotResponse(operation=operation)

    async def GetOperation(  # noqa: N802
        self, request: admin_pb2.GetOperationRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.GetOperationResponse:
        """Tell how an operation fares, once it has ended or after a while."""
        seconds = min(max(0.0, request.wait.ToMilliseconds() / 1e3), _LONGEST_WAIT)
        return admin_pb2.GetOperationResponse(operation=await self._operations.wait(request.id, seconds))

    async def CancelOperation(  # noqa: N802
        self, request: admin_pb2.CancelOperationRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.CancelOperationResponse:
        """End an operation unless it takes effect before."""
        return admin_pb2.CancelOperationResponse(operation=self._operations.cancel(request.id))

    async def GetSnapshot(  # noqa: N802
        self, _request: admin_pb2.GetSnapshotRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.GetSnapshotResponse:
        """Tell the wanted snapshot, and what each worker serves."""
        response = admin_pb2.GetSnapshotResponse(desired_version=self._publications.wanted())
        for status in await asyncio.to_thread(read_statuses, self._settings.workers_path):
            worker = response.workers.add(
                worker=status.worker, pid=status.pid, version=status.version, error=status.error
            )
            if status.version:
                worker.since.FromMilliseconds(int(status.since * 1_000))
        return response


@contextlib.asynccontextmanager
async def serving_admin(
    servicer: AdminServicer, settings: ServerSettings, telemetry: CallTelemetry
) -> AsyncIterator[Ports]:
    """Serve operators, with health of the supervisor's own. See `listening`."""
    callers = Callers(settings.callers, "operator") if settings.callers else None
    add = partial(Edge(telemetry, callers).add_service, service=SERVICE, servicer=servicer)
    health = Health(SERVICE)
    await health.set_serving(True)
    addresses = settings.admin_address, settings.admin_health_address
    async with listening(add, health, addresses, settings, share_ports=False, drain_seconds=_DRAIN_SECONDS) as ports:
        yield ports
