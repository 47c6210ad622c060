"""A near-line caller's models on Triton: batches, turns and deadlines, and the one place that knows Triton's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serendipity.channel.errors import GenerationError

_REFUSALS = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED"})
"""Statuses that the same call would meet again. NOT_FOUND is none of them: a model is away while it is deployed."""

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC backs off for up to two minutes by default; the near-line queue has a back-off of its own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class TritonModels:
    """Sends rows in batches to models of one Triton, and turns whatever goes wrong into one of two errors.

    Belongs to one event loop, connects at the first call.
    """

    def __init__(
        self, url: str, max_batches_in_flight: int, unavailable: type[GenerationError], refused: type[GenerationError]
    ) -> None:
        """url: Triton's gRPC address, host:port. max_batches_in_flight: over all calls; others wait for their turn.

        unavailable: raised when a call is worth trying again; refused: when it is not.
        """
        self.url = url
        self.unavailable = unavailable
        self.refused = refused
        self._in_flight = asyncio.Semaphore(max_batches_in_flight)
        self._client: Any = None

    async def infer(
        self,
        model_name: str,
        inputs: Mapping[str, NDArray[Any]],
        max_batch: int,
        names: Sequence[str],
        timeout: float,
    ) -> list[NDArray[Any]]:
        """Return the named outputs with the rows of all batches, [n, …], in the inputs' order; of no rows, nothing.

        inputs: by name, [n, …] each: object (bytes) as BYTES, others as what they are. max_batch: rows of a request,
        at most. timeout: seconds for all of them. Raises ValueError for inputs of different lengths.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        lengths = {name: len(values) for name, values in inputs.items()}
        rows, step = max(lengths.values()), max(1, max_batch)
        if set(lengths.values()) != {rows}:
            raise ValueError(f"inputs of {model_name}: found {lengths}, expected as many of each")
        parts = ({name: values[at : at + step] for name, values in inputs.items()} for at in range(0, rows, step))
        tasks = [asyncio.ensure_future(self._batch(model_name, part, names, deadline)) for part in parts]
        try:
            batches = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        try:
            return [np.concatenate(columns) for columns in zip(*batches, strict=True)]
        except ValueError as error:
            raise self.unavailable(f"{model_name} at {self.url}: batches of different widths: {error}") from error

    def unreadable(self, model_name: str, name: str, found: object, expected: str) -> GenerationError:
        """Make the error for an output that cannot be read."""
        return self.unavailable(f"{model_name} at {self.url}: {name}: found {str(found)[:80]}, expected {expected}")

    def cells(self, texts: Sequence[str], noun: str) -> NDArray[np.object_]:
        """Encode texts as [n, 1] bytes. Raises the error of refusals for one that is no Unicode."""
        cells = np.empty((len(texts), 1), np.object_)
        for place, text in enumerate(texts):
            try:
                cells[place, 0] = text.encode()
            except UnicodeEncodeError as error:
                raise self.refused(
                    f"{noun} {place}: found {error.reason} at character {error.start}, expected Unicode"
                ) from error
        return cells

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _batch(
        self, model_name: str, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], deadline: float
    ) -> list[NDArray[Any]]:
        where = f"{model_name} at {self.url}"
        try:
            async with asyncio.timeout_at(deadline), self._in_flight:
                outputs = await self._call(model_name, inputs, names, deadline)
        except TimeoutError as error:
            raise self.unavailable(f"{where}: no answer in time") from error
        except InferenceServerException as error:
            status = str(error.status() or "").removeprefix("StatusCode.")
            kind = self.refused if status in _REFUSALS else self.unavailable
            raise kind(f"{where}: {status}: {error.message()}") from error
        except Exception as error:
            # A closed channel, an answer that does not parse: whatever the client raises besides its own kind.
            raise self.unavailable(f"{where}: {type(error).__name__}: {error}") from error
        rows = len(next(iter(inputs.values())))
        for name, column in zip(names, outputs, strict=True):
            if column is None or column.ndim != 2 or len(column) != rows:
                found = "none" if column is None else f"shape {column.shape}"
                raise self.unreadable(model_name, name, found, f"({rows}, …)")
        return outputs

    async def _call(
        self, model_name: str, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], deadline: float
    ) -> list[NDArray[Any]]:
        if self._client is None:
            self._client = triton_aio.InferenceServerClient(self.url, channel_args=_CHANNEL_OPTIONS)
        left = deadline - asyncio.get_running_loop().time()
        result = await self._client.infer(
            model_name,
            [tensor(name, values) for name, values in inputs.items()],
            outputs=[triton_grpc.InferRequestedOutput(name) for name in names],
            # Bounds the wait in Triton's queue; the client's own timeout bounds all of it.
            timeout=max(1, int(left * 1e6)),
            client_timeout=max(left, 1e-3),
        )
        return [result.as_numpy(name) for name in names]


def tensor(name: str, values: NDArray[Any]) -> Any:
    """Make Triton's input of an array."""
    made = triton_grpc.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values)
    return made
