"""Recall over gRPC against its floor: the same reads, one Triton call and the same searches in one bare process.

Both run in turn, block by block, so that a machine whose speed drifts slows both alike; the ratio is what counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.snapshot.vectors import Hits, RowRanges
from serendipity.features import INPUT_NAMES, OUTPUT_NAME, TowerInputs
from serendipity.novelty import clicked_categories


@dataclass(frozen=True)
class Latencies:
    """Times of single calls. milliseconds: [n]; seconds: wall time of all; calls may overlap."""

    name: str
    milliseconds: NDArray[np.float64]
    seconds: float

    @property
    def p50(self) -> float:
        """Median, milliseconds."""
        return float(np.percentile(self.milliseconds, 50))

    @property
    def p99(self) -> float:
        """99th percentile, milliseconds."""
        return float(np.percentile(self.milliseconds, 99))

    @property
    def throughput(self) -> float:
        """Calls a second."""
        return len(self.milliseconds) / self.seconds


class Floor:
    """The least work an answer can be made of: no gRPC edge, no filters, scores, reasons or log."""

    def __init__(self, snapshot: Snapshot, triton_url: str, interests_used: int) -> None:
        self._snapshot = snapshot
        self._client = triton_grpc.InferenceServerClient(triton_url)
        self._interests_used = interests_used

    def recall(self, user_id: str, count: int, now: int) -> list[Hits]:
        """Read, call Triton once, search; returns the hits of every query."""
        snapshot = self._snapshot
        key = layout.user_key(user_id)
        user = snapshot.users.read(key)
        interests = snapshot.interests.read(key)
        if user is None or interests is None:
            raise ValueError(f"{user_id}: the floor is measured on users with a record and interests")
        allowed = ~clicked_categories(user.clicks, snapshot.num_categories)
        ranges = RowRanges.of_categories(allowed, snapshot.category_offsets)
        nodes = [snapshot.nodes.read(node) for node in interests.node_ids[: self._interests_used].tolist()]
        grounded = [ranges.within(node.rows) for node in nodes if node is not None]
        vectors = np.array(snapshot.interest_vectors[interests.node_ids[: self._interests_used]])
        inputs = snapshot.assembler.assemble(user.clicks, user.long_history, user.profile, vectors, now)
        answer = self._user_vectors(inputs)[0]
        rows = answer[1 : 1 + len(grounded)]
        search = snapshot.vectors
        # As many as the service asks of its sources; see channel.sources.interest.
        most = min(2 * count, max(50, 4 * 2 * count // max(1, len(grounded))))
        hits = search.search_openly(answer[:1], 2 * count, ranges, snapshot.unavailable)
        for vector, inside in zip(rows, grounded, strict=True):
            hits += search.search_exactly(vector[None], most, inside, snapshot.unavailable)
        return hits + search.search_openly(rows, most, ranges, snapshot.unavailable)

    def close(self) -> None:
        """Close the connection to Triton."""
        self._client.close()

    def _user_vectors(self, inputs: TowerInputs) -> NDArray[np.float32]:
        tensors = []
        for name in INPUT_NAMES:
            array = getattr(inputs, name)
            tensor = triton_grpc.InferInput(name, array.shape, "FP32" if array.dtype == np.float32 else "INT32")
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        vectors: NDArray[np.float32] = self._client.infer(self._snapshot.tower_model, tensors).as_numpy(OUTPUT_NAME)
        return vectors


def bench_recall(
    snapshot_dir: Path,
    address: str,
    triton_url: str,
    users: Sequence[str],
    *,
    count: int,
    interests_used: int,
    concurrency: int,
    block: int = 50,
) -> list[Latencies]:
    """Measure the floor, the service called by one caller, and the service called by `concurrency` callers.

    users: asked once each by the floor and by one caller, in alternating blocks, after one block of warm-up.
    """
    faiss.omp_set_num_threads(1)
    snapshot = open_snapshot(snapshot_dir)
    floor = Floor(snapshot, triton_url, interests_used)
    now = snapshot.versions.events_until
    try:
        alone, called = asyncio.run(_in_turn(floor, address, users, count, now, block))
        together = asyncio.run(_together(address, users, count, concurrency))
    finally:
        floor.close()
        snapshot.close()
    return [alone, called, together]


async def _in_turn(
    floor: Floor, address: str, users: Sequence[str], count: int, now: int, block: int
) -> tuple[Latencies, Latencies]:
    alone: list[float] = []
    called: list[float] = []
    async with AsyncSerendipityClient(address, timeout=5.0) as client:
        for user in users[:block]:
            floor.recall(user, count, now)
            await client.recall(user, count=count)
        for at in range(0, len(users), block):
            for user in users[at : at + block]:
                begin = time.perf_counter()
                floor.recall(user, count, now)
                alone.append(time.perf_counter() - begin)
            for user in users[at : at + block]:
                begin = time.perf_counter()
                await client.recall(user, count=count)
                called.append(time.perf_counter() - begin)
    return (
        Latencies("floor, 1 caller", np.array(alone) * 1e3, sum(alone)),
        Latencies("Recall over gRPC, 1 caller", np.array(called) * 1e3, sum(called)),
    )


async def _together(address: str, users: Sequence[str], count: int, concurrency: int) -> Latencies:
    times: list[float] = []
    waiting = iter(users)
    async with AsyncSerendipityClient(address, timeout=30.0) as client:

        async def caller() -> None:
            for user in waiting:
                begin = time.perf_counter()
                await client.recall(user, count=count, timeout=30.0)
                times.append(time.perf_counter() - begin)

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        seconds = time.perf_counter() - begin
    return Latencies(f"Recall over gRPC, {concurrency} callers", np.array(times) * 1e3, seconds)
