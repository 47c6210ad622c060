"""The least work that an answer like the channel's can be made of, in one bare process.

The same LMDB reads, one call of the tower, the user's product over the rows that may be shown, every interest's over a
pool of a few hundred of them, fused ranks, merge model, cap, item ids. No gRPC edge, no feedback, no reasons, no log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype

from benchmarks.best import best
from benchmarks.plain_merge import PlainMerge, select
from benchmarks.stored import Stored, StoredUser
from serendipity.features import OUTPUT_NAME, TowerInputs

POOL = 1_000
"""Best rows of the user's own vector that interests are scored on."""
GROUNDED = 64
"""Best rows of what each interest is grounded in that are added to them."""
OVER_FETCH = 2
"""As the channel's settings have it."""

_SAMPLING = 16
"""Every so many-th score is looked at to tell where the best begin."""

Tower = Callable[[TowerInputs], NDArray[np.float32]]
"""User tower: one user → [1 + K, d] float32."""


class Floor:
    """Answers users with item ids, best first."""

    def __init__(self, stored: Stored, tower: Tower) -> None:
        self._stored = stored
        self._tower = tower
        self._merge = PlainMerge(stored)
        self._unavailable = np.flatnonzero(~stored.available)
        self._scores = np.empty(len(stored.item_vectors), np.float32)

    def recall(self, user_id: str, count: int) -> list[str]:
        """Answer for a user that the snapshot knows."""
        user = self._stored.user(user_id)
        vectors = self._tower(user.inputs)[: 1 + len(user.interests)]
        scores = self._user_scores(user, vectors[0])
        pool = self._pool(scores, user)
        of_interests = self._stored.item_vectors[pool] @ vectors[1:].T
        ranked = self._merge.rank(user, pool, np.column_stack([scores[pool], of_interests]), OVER_FETCH * count)
        chosen = ranked.rows[select(self._stored.item_categories[ranked.rows], count)]
        return [self._stored.item_ids[row] for row in chosen.tolist()]

    def _user_scores(self, user: StoredUser, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Multiply the rows that may be shown with the user's vector: [n], −∞ elsewhere."""
        offsets, vectors, scores = self._stored.offsets, self._stored.item_vectors, self._scores
        scores.fill(-np.inf)
        # Of neighbouring categories one product.
        edges = np.diff(user.allowed[1:].astype(np.int8), prepend=0, append=0)
        for start, end in zip(offsets[np.flatnonzero(edges == 1)], offsets[np.flatnonzero(edges == -1)], strict=True):
            np.dot(vectors[start:end], vector, out=scores[start:end])
        scores[self._unavailable] = -np.inf
        return scores

    def _pool(self, scores: NDArray[np.float32], user: StoredUser) -> NDArray[np.int64]:
        """Choose the rows that are looked at: the user's best, and the best of what interests are grounded in."""
        sample = scores[::_SAMPLING]
        nth = min(len(sample), POOL // _SAMPLING + 12)
        leading = np.flatnonzero(scores > max(np.partition(sample, len(sample) - nth)[len(sample) - nth], -np.inf))
        parts = [leading[best(scores[leading], POOL)]]
        for node in user.interests:
            for start, end in zip(node.starts.tolist(), node.ends.tolist(), strict=True):
                parts.append(start + best(scores[start:end], GROUNDED))
        pool: NDArray[np.int64] = np.unique(np.concatenate(parts))
        return pool[scores[pool] > -np.inf]


class RawTower:
    """The user tower on Triton, asked with as little around it as there can be."""

    def __init__(self, url: str, model_name: str) -> None:
        self._channel = grpc.insecure_channel(url)
        self._infer = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelInfer
        self._model_name = model_name

    def __call__(self, inputs: TowerInputs) -> NDArray[np.float32]:
        """Ask for one user."""
        request = service_pb2.ModelInferRequest(model_name=self._model_name)
        for name, array in inputs.arrays().items():
            datatype = np_to_triton_dtype(array.dtype)
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        request.outputs.add(name=OUTPUT_NAME)
        answer = self._infer(request)
        _, rows, dim = answer.outputs[0].shape
        return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(rows, dim)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def serve(connection: Connection, snapshot: Path, triton: str) -> None:
    """Be a process that answers blocks of users sent over a connection, until it is closed.

    Receives (user ids, count); sends (milliseconds of each, item ids of each).
    """
    threadpool_limits(limits=1)
    stored = Stored(snapshot)
    tower = RawTower(triton, stored.manifest.tower.model_name)
    floor = Floor(stored, tower)
    while True:
        try:
            users, count = connection.recv()
        except EOFError:
            break
        connection.send(_timed(floor, users, count))
    tower.close()
    stored.close()


def _timed(floor: Floor, users: Sequence[str], count: int) -> tuple[list[float], list[list[str]]]:
    milliseconds, answers = [], []
    for user in users:
        begin = time.perf_counter()
        answers.append(floor.recall(user, count))
        milliseconds.append((time.perf_counter() - begin) * 1e3)
    return milliseconds, answers
