"""What operators do, over gRPC on a port of its own: a call to the workers' shared port would reach only one."""

from __future__ import annotations

import asyncio

import grpc
import structlog

from serendipity.channel.service.edge import Edge
from serendipity.channel.service.server import Health, bind, server_options
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.telemetry import Telemetry
from serendipity.channel.service.worker_status import read_statuses
from serendipity.channel.snapshot.publication import Publication, Publications
from serendipity.v1 import admin_pb2, admin_pb2_grpc

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["SerendipityAdmin"].full_name
_log = structlog.stdlib.get_logger(__name__)


class AdminServicer(admin_pb2_grpc.SerendipityAdminServicer):
    """SerendipityAdmin: changes which snapshot is wanted, and tells what each worker serves."""

    def __init__(self, publications: Publications, settings: ServerSettings) -> None:
        self._publications = publications
        self._settings = settings

    async def PublishSnapshot(  # noqa: N802
        self, request: admin_pb2.PublishSnapshotRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.PublishSnapshotResponse:
        """Verify a snapshot and make it the wanted one."""
        publication = await asyncio.to_thread(self._publications.publish, request.version)
        _tell(publication)
        return admin_pb2.PublishSnapshotResponse(version=publication.version, previous_version=publication.previous)

    async def RollbackSnapshot(  # noqa: N802
        self, _request: admin_pb2.RollbackSnapshotRequest, _: grpc.aio.ServicerContext
    ) -> admin_pb2.RollbackSnapshotResponse:
        """Make the snapshot wanted before the wanted one again."""
        publication = await asyncio.to_thread(self._publications.rollback)
        _tell(publication)
        return admin_pb2.RollbackSnapshotResponse(version=publication.version, previous_version=publication.previous)

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


def create_admin_server(servicer: AdminServicer, settings: ServerSettings) -> tuple[grpc.aio.Server, Health, int]:
    """Assemble the admin server and bind it to `admin_address`; it has health and reflection of its own.

    Returns the server, not started, its health and the bound port. Raises OSError when the address cannot be bound.
    """
    server = grpc.aio.server(options=server_options(settings, share_port=False))
    Edge(Telemetry()).add_service(server, SERVICE, servicer)
    health = Health(SERVICE)
    return server, health, bind(server, health, SERVICE, settings.admin_address)


def _tell(publication: Publication) -> None:
    _log.info("snapshot wanted", version=publication.version, before=publication.previous)
