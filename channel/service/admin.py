"""What operators do, over gRPC on a port of its own: a call to the workers' shared port would reach only one."""

from __future__ import annotations

import asyncio
from functools import partial

import grpc

from serendipity.channel.service.edge import Edge
from serendipity.channel.service.operations import Operations
from serendipity.channel.service.process_telemetry import CallTelemetry
from serendipity.channel.service.server import Health, bind, server_options
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.worker_status import read_statuses
from serendipity.channel.snapshot.publication import Publications
from serendipity.v1 import admin_pb2, admin_pb2_grpc

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["SerendipityAdmin"].full_name
_LONGEST_WAIT = 60.0


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


def create_admin_server(
    servicer: AdminServicer, settings: ServerSettings, telemetry: CallTelemetry
) -> tuple[grpc.aio.Server, Health, int]:
    """Assemble the admin server and bind it to `admin_address`; it has health and reflection of its own.

    Returns the server, not started, its health and the bound port. Raises OSError when the address cannot be bound.
    """
    server = grpc.aio.server(options=server_options(settings, share_port=False))
    Edge(telemetry).add_service(server, SERVICE, servicer)
    health = Health(SERVICE)
    return server, health, bind(server, health, SERVICE, settings.admin_address)
