"""How long a service's event loop stands still, seen from outside: a cheap call every millisecond."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

_PERIOD = 0.001
_PATIENCE = 60.0


@dataclass(frozen=True)
class Probes:
    """Calls, one after another. begun: [n] seconds of time.perf_counter, of whatever process; milliseconds: [n]."""

    begun: NDArray[np.float64]
    milliseconds: NDArray[np.float64]

    def between(self, start: float, end: float) -> Probes:
        """Keep the calls that were begun within some seconds."""
        within = (self.begun >= start) & (self.begun < end)
        return Probes(self.begun[within], self.milliseconds[within])

    @property
    def longest_stall(self) -> float:
        """Longest call less the median of all, milliseconds."""
        return float(self.milliseconds.max() - np.median(self.milliseconds))


class Prober:
    """Calls a service's health from a process of its own until it is asked what it saw."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stop(self) -> Probes:
        """End and tell all calls."""
        self._connection.send("stop")
        begun, milliseconds = self._connection.recv()
        return Probes(np.array(begun), np.array(milliseconds))


@contextmanager
def probing(address: str) -> Iterator[Prober]:
    """Probe the service at host:port; it is called before this yields."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_probe, args=(its, address), name="prober")
    process.start()
    its.close()
    try:
        ours.recv()
        yield Prober(ours)
    finally:
        ours.close()
        process.join(_PATIENCE)


def _probe(connection: Connection, address: str) -> None:
    told = threading.Event()
    begun, milliseconds = [], []
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        request = health_pb2.HealthCheckRequest()
        check(request, timeout=_PATIENCE, wait_for_ready=True)
        connection.send("ready")
        threading.Thread(target=_wait, args=(connection, told), daemon=True).start()
        while not told.is_set():
            begin = time.perf_counter()
            check(request, timeout=_PATIENCE)
            end = time.perf_counter()
            begun.append(begin)
            milliseconds.append((end - begin) * 1e3)
            time.sleep(max(0.0, begin + _PERIOD - end))
    connection.send((begun, milliseconds))


def _wait(connection: Connection, told: threading.Event) -> None:
    """Be told to stop, or find the other end closed."""
    try:
        connection.recv()
    except EOFError:
        pass
    finally:
        told.set()
