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
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
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
from benchmarks.stored import Curves, NovelCategory, Stored, StoredUser
from serendipity.features import OUTPUT_NAME, TowerInputs
from serendipity.v1 import channel_pb2, channel_pb2_grpc, records_pb2

OVER_FETCH = 2
CATEGORY_SHARE = 0.3
CONVERSION_SHARE = 0.25
SERENDIPITY_SHARE = 0.1
"""As the channel's settings have them."""

INTEREST = channel_pb2.SOURCE_INTEREST
COLLABORATIVE = channel_pb2.SOURCE_COLLABORATIVE
GROUP = channel_pb2.SOURCE_GROUP

Tower = Callable[[TowerInputs], Awaitable[NDArray[np.float32]]]
"""User tower: one user → [1, 1 + K, d] float32."""

Finds = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Item rows, each once and best first, and their raw scores."""


class PlainStack:
    """Answers requests: reads, asks the tower, multiplies, sorts."""

    def __init__(self, stored: Stored, tower: Tower) -> None:
        self._stored = stored
        self._tower = tower
        self._curves = Curves(stored.manifest.calibration)

    async def recall(self, request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        """Answer a request."""
        user = self._stored.user(request.user_id)
        vectors = (await self._tower(user.inputs))[0, : 1 + len(user.interests)]
        return self._answer(user, vectors, request.count)

    def _answer(self, user: StoredUser, vectors: NDArray[np.float32], count: int) -> channel_pb2.RecallResponse:
        """Search and rank. vectors: [1 + interests, d], the user alone first."""
        stored, most = self._stored, OVER_FETCH * count
        eligible = user.allowed[stored.item_categories] & stored.available
        shown = np.flatnonzero(eligible)
        scores = np.ascontiguousarray((stored.item_vectors @ vectors.T)[shown].T)
        nearest = best(scores[0], most)
        found: dict[int, Finds] = {
            INTEREST: _of_interests(scores[1:], shown, most),
            COLLABORATIVE: _best_first(shown[nearest], scores[0, nearest]),
            GROUP: _of_group(scores[0], user.novel, shown, most),
        }
        rows = np.concatenate([rows for rows, _ in found.values()])
        raw = np.concatenate([raw for _, raw in found.values()])
        sources = np.repeat(list(found), [len(rows) for rows, _ in found.values()])
        probabilities = np.concatenate([self._curves.probabilities(source, raw) for source, (_, raw) in found.items()])
        order = _first_of_each(rows, np.lexsort((rows, -raw, -probabilities)))
        categories = stored.item_categories[rows]
        order = order[_select(sources[order], categories[order].tolist(), count)]
        names, indexes = np.unique(categories[order], return_inverse=True)
        return channel_pb2.RecallResponse(
            recall_id=uuid.uuid4().hex,
            item_ids=[stored.item_ids[row] for row in rows[order].tolist()],
            scores=probabilities[order].tolist(),
            sources=sources[order].tolist(),
            relevance=raw[order].tolist(),
            category_indexes=indexes.tolist(),
            categories=[stored.manifest.categories[number - 1] for number in names.tolist()],
        )


def _of_interests(scores: NDArray[np.float32], shown: NDArray[np.int64], most: int) -> Finds:
    """Find the rows with the best score for any interest: [interests, m] of the rows that may be shown, ascending."""
    if not len(scores):
        return shown[:0], np.empty(0, np.float32)
    nearest = scores.max(axis=0)
    at = best(nearest, most)
    return _best_first(shown[at], nearest[at])


def _of_group(scores: NDArray[np.float32], novel: list[NovelCategory], shown: NDArray[np.int64], most: int) -> Finds:
    """Find the best of the group's categories by alignment × softplus of the user's scores, [m]."""
    found, raw = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for category in novel:
        start, end = np.searchsorted(shown, [category.start, category.end])
        found.append(start + best(scores[start:end], math.ceil(2 * most / (len(novel) + 1))))
        raw.append(np.float32(category.alignment) * np.logaddexp(np.float32(0), scores[found[-1]]))
    rows, all_raw = _best_first(shown[np.concatenate(found)], np.concatenate(raw))
    return rows[:most], all_raw[:most]


def _best_first(rows: NDArray[np.int64], raw: NDArray[np.float32]) -> Finds:
    """Sort finds, best first, and keep each row's best."""
    order = _first_of_each(rows, np.lexsort((rows, -raw)))
    return rows[order], raw[order]


def _first_of_each(rows: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of positions in an order keep the first of each row."""
    kept: NDArray[np.int64] = order[np.sort(np.unique(rows[order], return_index=True)[1])]
    return kept


def _select(sources: NDArray[np.int64], categories: list[int], count: int) -> list[int]:
    """Choose positions of candidates that come best first: the least of each kind, then the best; few of a category."""
    cap = max(1, math.ceil(CATEGORY_SHARE * count))
    chosen: set[int] = set()
    of_category: Counter[int] = Counter()

    def take(positions: Iterable[int], wanted: int, most: int) -> int:
        for i in positions:
            if wanted <= 0:
                break
            if i not in chosen and of_category[categories[i]] < most:
                chosen.add(i)
                of_category[categories[i]] += 1
                wanted -= 1
        return wanted

    of_user = sources == COLLABORATIVE
    for kind, share in ((of_user, CONVERSION_SHARE), (~of_user, SERENDIPITY_SHARE)):
        positions = np.flatnonzero(kind).tolist()
        take(positions, take(positions, int(share * count), cap), count)
    everything = range(len(categories))
    take(everything, take(everything, count - len(chosen), cap), count)
    return sorted(chosen)


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
