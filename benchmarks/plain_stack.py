"""What a good engineer would serve in a day instead of the channel: the same answers' core from the same snapshot.

    python -m benchmarks.plain_stack --snapshot DIR --triton HOST:PORT --state DIR [--port 0]

One process: grpc.aio on uvloop, LMDB reads, one Triton call, one matrix product of all vectors of a user against all
items, NumPy for the rest, and a log of answers. It serves `Recall` for known users, STRICT, without request events,
feedback, lists or quotas, and refuses nothing. It prints its port when it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
import uvloop
from google.protobuf import proto
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tritonclient.utils import np_to_triton_dtype

from benchmarks import plain_tower
from benchmarks.best import best
from benchmarks.plain_merge import GRAPH, GROUP, INTEREST, PlainMerge, select
from benchmarks.stored import Node, NovelCategory, Stored, StoredUser
from serendipity.features import OUTPUT_NAME, TowerInputs
from serendipity.v1 import channel_pb2, channel_pb2_grpc, records_pb2

OVER_FETCH = 2
"""As the channel's settings have it."""

_SPARE = 3
_GROUNDED = 64
"""As the channel's sources search."""

Tower = Callable[[TowerInputs], Awaitable[NDArray[np.float32]]]
"""User tower: one user → [1, 1 + K, d] float32."""


class PlainStack:
    """Answers requests: reads, asks the tower, multiplies, sorts."""

    def __init__(self, stored: Stored, tower: Tower) -> None:
        self._stored = stored
        self._tower = tower
        self._merge = PlainMerge(stored)

    async def recall(self, request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        """Answer a request."""
        user = self._stored.user(request.user_id)
        vectors = (await self._tower(user.inputs))[0, : 1 + len(user.interests)]
        return self._answer(user, vectors, request.count)

    def _answer(self, user: StoredUser, vectors: NDArray[np.float32], count: int) -> channel_pb2.RecallResponse:
        """Search and rank. vectors: [1 + interests, d], the user alone first."""
        stored, most = self._stored, OVER_FETCH * count
        shown = np.flatnonzero(user.allowed[stored.item_categories] & stored.available)
        scores = (stored.item_vectors @ vectors.T)[shown]
        of_user = np.ascontiguousarray(scores[:, 0])
        is_popular = user.allowed[stored.item_categories[stored.popular]] & stored.available[stored.popular]
        pool = [best(of_user, _SPARE * most), np.searchsorted(shown, stored.popular[is_popular][:most])]
        if INTEREST not in stored.unearned:
            pool += _of_interests(scores[:, 1:], user.interests, shown, max(_GROUNDED, most // 3))
        if GROUP not in stored.unearned:
            pool += _of_group(of_user, user.novel, shown, most)
        if GRAPH not in stored.unearned and user.of_graph is not None:
            of_graph = (stored.graph_vectors @ user.of_graph)[shown]
            near = best(of_graph, most)
            pool.append(near[of_graph[near] > 0])
        at = np.unique(np.concatenate(pool))
        ranked = self._merge.rank(user, shown[at], scores[at], most)
        chosen = select(stored.item_categories[ranked.rows], count)
        rows = ranked.rows[chosen]
        names, indexes = np.unique(stored.item_categories[rows], return_inverse=True)
        return channel_pb2.RecallResponse(
            recall_id=uuid.uuid4().hex,
            item_ids=[stored.item_ids[row] for row in rows.tolist()],
            scores=ranked.scores[chosen].tolist(),
            sources=ranked.sources[chosen].tolist(),
            relevance=ranked.raw[chosen].tolist(),
            category_indexes=indexes.tolist(),
            categories=[stored.manifest.categories[number - 1] for number in names.tolist()],
        )


def _of_interests(
    scores: NDArray[np.float32], nodes: list[Node], shown: NDArray[np.int64], most: int
) -> list[NDArray[np.int64]]:
    """Find the positions of the best for each interest, [m, interests], of the rows that it is grounded in."""
    found = []
    for node, of_node in zip(nodes, scores.T, strict=True):
        ranges = np.searchsorted(shown, [node.starts, node.ends]).T
        at = np.concatenate([np.arange(*edges) for edges in ranges])
        found.append(at[best(of_node[at], most)])
    return found


def _of_group(
    scores: NDArray[np.float32], novel: list[NovelCategory], shown: NDArray[np.int64], most: int
) -> list[NDArray[np.int64]]:
    """Find the positions of each category's best by the user's scores, [m], none filling the answer."""
    found = []
    for category in novel:
        start, end = np.searchsorted(shown, [category.start, category.end])
        found.append(start + best(scores[start:end], math.ceil(2 * most / (len(novel) + 1))))
    return found


class AnswerLog:
    """Appends answers to a file, each preceded by its length, once a second and at the end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._waiting: deque[records_pb2.ServingRecord] = deque()
        self._ending = threading.Event()
        self._writer = threading.Thread(target=self._write)
        self._writer.start()

    def append(self, user_id: str, response: channel_pb2.RecallResponse) -> None:
        """Log an answer."""
        record = records_pb2.ServingRecord(user_id=user_id, response=response)
        record.time.FromNanoseconds(time.time_ns())
        self._waiting.append(record)

    def close(self) -> None:
        """Write what waits."""
        self._ending.set()
        self._writer.join()
        self._file.close()

    def _write(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(1.0)
            while self._waiting:
                proto.serialize_length_prefixed(self._waiting.popleft(), self._file)  # type: ignore[arg-type]
            self._file.flush()


class Servicer(channel_pb2_grpc.SerendipityChannelServicer):
    """`Recall`, and nothing else."""

    def __init__(self, stack: PlainStack, log: AnswerLog) -> None:
        self._stack = stack
        self._log = log

    async def Recall(  # noqa: N802
        self,
        request: channel_pb2.RecallRequest,
        context: grpc.aio.ServicerContext,  # noqa: ARG002
    ) -> channel_pb2.RecallResponse:
        """Answer and log."""
        response = await self._stack.recall(request)
        self._log.append(request.user_id, response)
        return response


async def serve(snapshot: Path, triton: str, state: Path, port: int, channels_tower: bool) -> None:
    """Serve on the loopback until SIGTERM."""
    stored = Stored(snapshot)
    spec = stored.manifest.tower
    client = triton_aio.InferenceServerClient(triton)

    async def tower(inputs: TowerInputs) -> NDArray[np.float32]:
        arrays = inputs.arrays() if channels_tower else plain_tower.padded(inputs, spec.max_interests)
        tensors = []
        for name, array in arrays.items():
            tensors.append(triton_grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array)
        answer = await client.infer(spec.model_name if channels_tower else plain_tower.NAME, tensors)
        vectors: NDArray[np.float32] = answer.as_numpy(OUTPUT_NAME)
        return vectors

    log = AnswerLog(state / "answers.log")
    server = grpc.aio.server()
    channel_pb2_grpc.add_SerendipityChannelServicer_to_server(  # type: ignore[no-untyped-call]
        Servicer(PlainStack(stored, tower), log), server
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()
    await server.stop(grace=1.0)
    await client.close()
    log.close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser("python -m benchmarks.plain_stack", description="Serve the plain stack.")
    parser.add_argument("--snapshot", type=Path, required=True, metavar="DIR")
    parser.add_argument("--triton", required=True, metavar="HOST:PORT")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where answers are logged")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--channels-tower", action="store_true", help="call the channel's user tower, not its own")
    args = parser.parse_args()
    threadpool_limits(limits=1)
    uvloop.run(serve(args.snapshot, args.triton, args.state, args.port, args.channels_tower))


if __name__ == "__main__":
    main()
