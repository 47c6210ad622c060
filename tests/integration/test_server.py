"""The whole service: a supervisor and two worker processes, called, published to, wounded and told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.errors import DeadlineExceeded, Unavailable
from serendipity.channel.client.messages import Feedback
from serendipity.channel.service.worker_status import read_statuses
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.v1 import admin_pb2, admin_pb2_grpc
from tests.channel.served import NO_TRITON, copy_snapshot, damage, hung_triton, publish, scrape
from tests.fixtures.serving_log import read_serving_log
from tests.fixtures.small_world import SmallWorld

pytestmark = pytest.mark.integration

WORKERS = 2
SERVE = """
import sys
from pathlib import Path
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.workers import serve

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    sys.exit(serve(ServerSettings(snapshots=directory / "snapshots", state=directory / "state")))
"""


@dataclass(frozen=True)
class Running:
    """A service's processes and where to reach them."""

    directory: Path
    process: subprocess.Popen[bytes]
    address: str
    admin_address: str

    def workers(self) -> dict[int, int]:
        """Worker number → process id, of those that serve."""
        return {s.worker: s.pid for s in read_statuses(self.directory / "state" / "workers") if s.version}

    def log(self) -> str:
        return (self.directory / "log").read_text()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def started(directory: Path, triton_url: str = NO_TRITON, **environment: str) -> AsyncIterator[Running]:
    """Run the service as a process; it is told to stop, if it still runs, at the end."""
    (directory / "serve.py").write_text(SERVE)
    variables = {
        "SERENDIPITY_ADDRESS": "127.0.0.1:0",
        "SERENDIPITY_ADMIN_ADDRESS": "127.0.0.1:0",
        "SERENDIPITY_METRICS_PORT": "0",
        "SERENDIPITY_WORKERS": str(WORKERS),
        "SERENDIPITY_CLOCK": "snapshot",
        "SERENDIPITY_TRITON_URL": triton_url,
        "SERENDIPITY_REQUIRE_READY_MODEL": "false",
        # This machine may be busy, and a late answer would be none.
        "SERENDIPITY_DEFAULT_DEADLINE_MS": "30000",
        "SERENDIPITY_MAX_DEADLINE_MS": "30000",
        **environment,
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(directory / "serve.py"), str(directory)], env={**os.environ, **variables}, stderr=log
        )
    try:

        def lines() -> list[str]:
            return (directory / "log").read_text().splitlines()

        async def serves() -> bool:
            if process.poll() is not None:
                raise AssertionError("\n".join(lines()))
            return sum('"event": "worker serves"' in line for line in lines()) >= WORKERS

        await until(serves, 90.0)
        found = next(json.loads(line) for line in lines() if '"event": "service serves"' in line)
        running = Running(directory, process, found["address"], found["admin_address"])
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, 30)
        if process.poll() is None:
            process.kill()
            process.wait()


async def metrics(running: Running) -> list[str]:
    """Every worker's metrics."""

    def get(port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            return str(response.read().decode())

    ports = [status.metrics_port for status in read_statuses(running.directory / "state" / "workers")]
    return [await asyncio.to_thread(get, port) for port in ports]


@contextlib.asynccontextmanager
async def admin_of(running: Running) -> AsyncIterator[admin_pb2_grpc.SerendipityAdminStub]:
    async with grpc.aio.insecure_channel(running.admin_address) as channel:
        yield admin_pb2_grpc.SerendipityAdminStub(channel)  # type: ignore[no-untyped-call]


@pytest.fixture
def directory(small_world: SmallWorld, tmp_path: Path) -> Path:
    for version in ("v1", "v2", "v3"):
        copy_snapshot(small_world, tmp_path / "snapshots", version)
    publish(tmp_path, "v1")
    return tmp_path


async def test_a_day_of_operation(directory: Path, small_world: SmallWorld) -> None:
    """One service lives through all of it, since starting one takes seconds."""
    async with started(directory) as running, admin_of(running) as admin:
        # Many connections, so that both workers are reached.
        async with AsyncSerendipityClient(running.address, timeout=10.0, connections=16) as client:
            await _publishing_under_load_fails_no_call(client, admin)
            await _bad_snapshot_is_refused(directory, client, admin)
            await _rollback_reaches_all_workers(client, admin)
            await _sold_out_items_leave_both_workers(running, client, small_world)
            await _feedback_counts_in_both_workers(client, small_world)
            await _a_killed_worker_is_replaced(running, client)
            await _a_stopped_worker_is_replaced(running, client)
        health = health_pb2_grpc.HealthStub(grpc.aio.insecure_channel(running.admin_address))  # type: ignore[no-untyped-call]
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, 30) == 0
    assert not (directory / "state" / "endpoints.json").exists()
    # What was acknowledged before workers were killed and told to stop is there.
    with FeedbackStore(directory / "state" / "feedback") as store:
        assert [record.event.event_id for _, record in store.log()] == ["only-click", "before the kill"]
    assert len(list(read_serving_log(directory / "state" / "serving_log"))) > 100


async def _publishing_under_load_fails_no_call(
    client: AsyncSerendipityClient, admin: admin_pb2_grpc.SerendipityAdminStub
) -> None:
    answered: list[str] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            answered.append((await client.recall("anyone", count=10)).snapshot)

    def has_answered(version: str) -> Callable[[], Awaitable[bool]]:
        async def condition() -> bool:
            return version in answered

        return condition

    callers = [asyncio.create_task(load()) for _ in range(6)]
    await until(has_answered("v1"))
    for version, before in (("v2", "v1"), ("v3", "v2")):
        published = await _ended((await admin.PublishSnapshot(_publish(version))).operation, admin)
        assert (published.state, published.previous_version) == (admin_pb2.OPERATION_STATE_DONE, before)

        async def converged(version: str = version) -> bool:
            state = await admin.GetSnapshot(admin_pb2.GetSnapshotRequest())
            return [w.version for w in state.workers] == [version] * WORKERS

        await until(converged)
    await until(has_answered("v3"))
    stop.set()
    await asyncio.gather(*callers)
    assert {(await client.recall("anyone", count=1)).snapshot for _ in range(16)} == {"v3"}


def _publish(version: str) -> admin_pb2.PublishSnapshotRequest:
    return admin_pb2.PublishSnapshotRequest(version=version)


async def _ended(operation: admin_pb2.Operation, admin: admin_pb2_grpc.SerendipityAdminStub) -> admin_pb2.Operation:
    request = admin_pb2.GetOperationRequest(id=operation.id)
    request.wait.FromSeconds(60)
    ended: admin_pb2.Operation = (await admin.GetOperation(request)).operation
    return ended


async def _bad_snapshot_is_refused(
    directory: Path, client: AsyncSerendipityClient, admin: admin_pb2_grpc.SerendipityAdminStub
) -> None:
    damage(directory / "snapshots" / "v2")
    refused = await _ended((await admin.PublishSnapshot(_publish("v2"))).operation, admin)
    assert refused.state == admin_pb2.OPERATION_STATE_REFUSED
    assert f"{layout.ITEM_VECTORS}: SHA-256" in refused.error
    state = await admin.GetSnapshot(admin_pb2.GetSnapshotRequest())
    assert state.desired_version == "v3"
    assert (await client.recall("anyone", count=1)).snapshot == "v3"


async def _rollback_reaches_all_workers(
    client: AsyncSerendipityClient, admin: admin_pb2_grpc.SerendipityAdminStub
) -> None:
    # v2, which was wanted before v3, is damaged: a rollback to it is refused as well.
    refused = await _ended((await admin.RollbackSnapshot(admin_pb2.RollbackSnapshotRequest())).operation, admin)
    assert "SHA-256" in refused.error
    await _ended((await admin.PublishSnapshot(_publish("v1"))).operation, admin)
    rolled_back = await _ended((await admin.RollbackSnapshot(admin_pb2.RollbackSnapshotRequest())).operation, admin)
    assert (rolled_back.version, rolled_back.previous_version) == ("v3", "v1")

    async def converged() -> bool:
        state = await admin.GetSnapshot(admin_pb2.GetSnapshotRequest())
        return [(w.version, w.error) for w in state.workers] == [("v3", "")] * WORKERS

    await until(converged)


async def _sold_out_items_leave_both_workers(
    running: Running, client: AsyncSerendipityClient, small_world: SmallWorld
) -> None:
    user = small_world.user_ids[3]
    best = (await client.recall(user, count=5)).candidates[0].item_id
    start = time.monotonic()
    await client.update_items({best: False})

    async def both_know() -> bool:
        generations = [scrape(text, "serendipity_availability_generation")[""] for text in await metrics(running)]
        return generations == [1.0] * WORKERS

    await until(both_know, 5.0)
    assert time.monotonic() - start < 5.0
    for _ in range(32):
        assert best not in {c.item_id for c in (await client.recall(user, count=5)).candidates}
    answered = [scrape(text, "serendipity_answers_total")[""] for text in await metrics(running)]
    assert min(answered) > 0.0, "the calls did not reach both workers"


async def _feedback_counts_in_both_workers(client: AsyncSerendipityClient, small_world: SmallWorld) -> None:
    user = small_world.user_ids[1]
    clicked = (await client.recall(user, count=30)).candidates[0]
    await client.record_feedback([Feedback(user, clicked.item_id, "click", event_id="only-click")])
    for _ in range(32):
        result = await client.recall(user, count=30)
        assert clicked.category not in {candidate.category for candidate in result.candidates}


async def _a_killed_worker_is_replaced(running: Running, client: AsyncSerendipityClient) -> None:
    await client.record_feedback([Feedback("anna", "tea", event_id="before the kill")])
    victim = running.workers()[0]
    os.kill(victim, signal.SIGKILL)

    async def replaced() -> bool:
        # The one that is left answers meanwhile; calls on connections of the dead one are retried on others.
        with contextlib.suppress(Unavailable):
            await client.recall("anyone", count=5)
        workers = running.workers()
        return len(workers) == WORKERS and workers[0] != victim

    await until(replaced, 60.0)
    assert (await client.record_feedback([Feedback("anna", "tea", event_id="before the kill")])).duplicates == 1


async def _a_stopped_worker_is_replaced(running: Running, client: AsyncSerendipityClient) -> None:
    victim = running.workers()[0]
    os.kill(victim, signal.SIGSTOP)

    async def replaced() -> bool:
        with contextlib.suppress(Unavailable, DeadlineExceeded):
            await client.recall("anyone", count=5, timeout=0.5)
        return running.workers().get(0, victim) != victim

    await until(replaced, 60.0)
    assert '"event": "process hangs: killed"' in running.log()


async def test_sigterm_lets_calls_in_flight_finish_and_refuses_new_ones(directory: Path) -> None:
    # Longer than all that is waited for here: calls are in flight until Triton is gone.
    environment = {
        "SERENDIPITY_BREAKER_FAILURES": "1000",
        "SERENDIPITY_MAX_DEADLINE_MS": "120000",
        "SERENDIPITY_DRAIN_SECONDS": "30",
    }
    with contextlib.ExitStack() as triton:
        url = triton.enter_context(hung_triton())
        async with (
            started(directory, url, **environment) as running,
            AsyncSerendipityClient(running.address, timeout=120.0, connections=8) as client,
        ):
            calls = [asyncio.create_task(client.recall("anyone", count=5)) for _ in range(8)]

            async def in_flight() -> bool:
                texts = await metrics(running)
                return sum(scrape(text, "serendipity_requests_in_flight")[""] for text in texts) == len(calls)

            async def drain() -> bool:
                return running.log().count('"event": "worker drains"') == WORKERS

            await until(in_flight)
            running.process.send_signal(signal.SIGTERM)
            await until(drain)
            assert not any(call.done() for call in calls)
            triton.close()
            results = await asyncio.gather(*calls)
            assert all(len(result.candidates) == 5 for result in results)
            assert await asyncio.to_thread(running.process.wait, 30) == 0
            with pytest.raises(Unavailable):
                await client.recall("anyone", count=5)
        assert len(list(read_serving_log(directory / "state" / "serving_log"))) == len(results)


async def test_workers_end_when_their_supervisor_is_killed(directory: Path) -> None:
    async with started(directory) as running:
        workers = list(running.workers().values())
        running.process.kill()

        async def gone() -> bool:
            return running.log().count('"event": "worker ends"') == len(workers)

        await until(gone)
        with pytest.raises(Unavailable):
            async with AsyncSerendipityClient(running.address, timeout=10.0) as client:
                await client.recall("anyone", count=1)


async def test_a_second_service_on_the_same_state_is_refused(directory: Path) -> None:
    async with started(directory):
        second = await asyncio.create_subprocess_exec(
            sys.executable, str(directory / "serve.py"), str(directory), stderr=asyncio.subprocess.PIPE
        )
        _, error = await second.communicate()
        assert second.returncode == 1
        assert b"another service uses this state directory" in error


async def test_a_second_service_on_the_same_port_is_refused(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with started(directory) as running:
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            str(directory / "serve.py"),
            str(tmp_path_factory.mktemp("another")),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SERENDIPITY_ADDRESS": running.address, "SERENDIPITY_ADMIN_ADDRESS": "127.0.0.1:0"},
        )
        _, error = await second.communicate()
        assert second.returncode == 1
        assert f"{running.address}: cannot be bound".encode() in error


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own can be mounted by root alone")
async def test_a_service_that_starts_on_a_full_disk_answers_and_says_what_it_lacks(directory: Path) -> None:
    state = directory / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(state)], check=True)
    try:
        with (state / "filling").open("wb", buffering=0) as filling, contextlib.suppress(OSError):
            while True:
                filling.write(bytes(4_096))
        async with started(directory) as running:
            async with AsyncSerendipityClient(running.address, timeout=10.0) as client:
                result = await client.recall("anyone", count=5)
            assert len(result.candidates) == 5
            lacking = {reason.partition(":")[0] for reason in result.degraded_reasons}
            assert lacking >= {"erasures", "availability"}
            assert "died" not in "".join(line for line in running.log().splitlines() if '"worker-' in line)
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)
