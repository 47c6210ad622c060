"""The client of operators: publishing, rolling back, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

import grpc

from serendipity.channel.client.credentials import NO_CREDENTIALS, Credentials
from serendipity.channel.client.errors import Unavailable, error_of
from serendipity.v1 import admin_pb2, admin_pb2_grpc

_STEP_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0


class AdminClient:
    """Calls the admin service of one host. address: host:port; timeout: seconds a call may take.

    credentials: an operator's, where it asks for them. All methods raise ClientError; no call waits for a publication
    to end but `follow`.
    """

    def __init__(self, address: str, *, timeout: float = 10.0, credentials: Credentials = NO_CREDENTIALS) -> None:
        self._channel = credentials.connect(grpc, address)
        self._metadata = credentials.metadata
        self._stub = admin_pb2_grpc.SerendipityAdminStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout = timeout

    def publish(self, version: str) -> admin_pb2.Operation:
        """Begin to make a snapshot the wanted one; calling again while that runs begins nothing else."""
        return self._call(self._stub.PublishSnapshot, admin_pb2.PublishSnapshotRequest(version=version))

    def rollback(self) -> admin_pb2.Operation:
        """Begin to make the snapshot wanted before the wanted one again."""
        return self._call(self._stub.RollbackSnapshot, admin_pb2.RollbackSnapshotRequest())

    def operation(self, operation_id: str = "", *, wait: float = 0.0) -> admin_pb2.Operation:
        """Ask for an operation, the latest by default. wait: seconds to wait for its end."""
        request = admin_pb2.GetOperationRequest(id=operation_id)
        request.wait.FromMilliseconds(int(wait * 1e3))
        return self._call(self._stub.GetOperation, request)

    def cancel(self, operation_id: str) -> admin_pb2.Operation:
        """End an operation unless it takes effect before."""
        return self._call(self._stub.CancelOperation, admin_pb2.CancelOperationRequest(id=operation_id))

    def follow(
        self, operation_id: str, on_progress: Callable[[admin_pb2.Operation], None] = lambda _: None
    ) -> admin_pb2.Operation:
        """Wait until an operation has ended, however long that takes, and return it; on_progress: told of every change.

        A service that does not answer is asked again for half a minute.
        """
        last, told = time.monotonic(), None
        while True:
            try:
                operation = self.operation(operation_id, wait=_STEP_SECONDS)
            except Unavailable:
                if time.monotonic() - last > _PATIENCE_SECONDS:
                    raise
                time.sleep(_STEP_SECONDS)
                continue
            last = time.monotonic()
            if operation != told:
                on_progress(operation)
                told = operation
            if operation.state != admin_pb2.OPERATION_STATE_RUNNING:
                return operation

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, method: Any, request: Any) -> admin_pb2.Operation:
        try:
            operation: admin_pb2.Operation = method(request, timeout=self._timeout, metadata=self._metadata).operation
            return operation
        except grpc.RpcError as error:
            raise error_of(error) from error
