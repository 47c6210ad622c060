"""Health as those who watch it see it."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2

from serendipity.channel.service.listening import Health

STATUS = health_pb2.HealthCheckResponse.ServingStatus


class Watcher:
    """One who watches; deaf: and never reads."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.told: list[str] = []
        self._deaf = deaf

    async def write(self, answer: health_pb2.HealthCheckResponse) -> None:
        if self._deaf:
            await asyncio.Event().wait()
        self.told.append(STATUS.Name(answer.status))


async def test_one_who_watches_and_does_not_read_holds_up_nobody() -> None:
    health, deaf, other = Health("a service"), Watcher(deaf=True), Watcher()
    await health.set_serving(True)
    request = health_pb2.HealthCheckRequest(service="a service")
    watching = [asyncio.create_task(health.servicer.Watch(request, each)) for each in (deaf, other)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await health.set_serving(False)
        await health.set_serving(True)
        await health.stop()
        await watching[1]
    assert other.told == ["SERVING", "NOT_SERVING"]
    watching[0].cancel()
