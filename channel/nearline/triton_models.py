"""What near-line clients of Triton share: batches, turns, deadlines, and the one place that knows Triton's errors."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import ModelRefused, ModelUnavailable
from serendipity.triton import Triton, TritonError

_REFUSALS = frozenset({"INVALID_ARGUMENT", "UNIMPLEMENTED"})
"""Statuses that the same call would meet again. NOT_FOUND is none of them: a model is away while it is deployed."""


@dataclass(frozen=True)
class Output:
    """What an output of a model must be: [B, width] of a type, all numbers finite and within bounds.

    dtype: np.object_ for BYTES; width: columns, None for any number of them.
    """

    dtype: type[np.generic]
    width: int | None = 1
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __str__(self) -> str:
        of = "" if math.isinf(self.bounds[0]) else f" of {self.bounds[0]:g} … {self.bounds[1]:g}"
        return f"{np.dtype(self.dtype)} [B, {self.width or '…'}]{of}"

    def fault(self, column: NDArray[Any]) -> str:
        """Say what is found in place of what is expected; empty if that is found. column: of two dimensions."""
        if column.dtype != self.dtype or self.width not in (None, column.shape[1]):
            return f"{column.dtype} {list(column.shape)}"
        if self.dtype is np.object_:
            return ""
        wrong = column[~(np.isfinite(column) & (column >= self.bounds[0]) & (column <= self.bounds[1]))]
        return str(wrong[0]) if len(wrong) else ""


class TritonModels:
    """Sends rows in batches to models of one Triton. Belongs to one event loop, connects at the first call.

    All rows are answered or an error is raised: ModelUnavailable when the call is worth trying again, ModelRefused when
    it is not; of several rows any may be at fault then.
    """

    def __init__(self, url: str, *, max_batches_in_flight: int = 2) -> None:
        """url: Triton's address, as `triton.check_url` takes it. max_batches_in_flight: over all calls that are waited
        for; others wait for their turn.

        Two keep a model busy: one is answered while the other waits in Triton's queue.
        """
        self._in_flight = asyncio.Semaphore(max_batches_in_flight)
        self._triton = Triton(url)
        self.url = self._triton.url

    async def infer(
        self,
        model_name: str,
        inputs: Mapping[str, NDArray[Any]],
        max_batch: int,
        outputs: Mapping[str, Output],
        timeout: float,
    ) -> list[NDArray[Any]]:
        """Return the outputs with the rows of all batches, [n, width], in the inputs' order.

        inputs: by name, [n, …] each: object (bytes) as BYTES, others as what they are. max_batch: rows of a request,
        at most. timeout: seconds for all of them. Raises ValueError for inputs of different lengths.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        lengths = {name: len(values) for name, values in inputs.items()}
        rows, step = max(lengths.values()), max(1, max_batch)
        if set(lengths.values()) != {rows}:
            raise ValueError(f"inputs of {model_name}: found {lengths}, expected as many of each")
        if not rows:
            return [np.empty((0, output.width or 0), output.dtype) for output in outputs.values()]
        parts = ({name: values[at : at + step] for name, values in inputs.items()} for at in range(0, rows, step))
        tasks = [asyncio.ensure_future(self._batch(model_name, part, tuple(outputs), deadline)) for part in parts]
        try:
            batches = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        try:
            joined = [np.concatenate(columns) for columns in zip(*batches, strict=True)]
        except ValueError as error:
            raise ModelUnavailable(f"{model_name} at {self.url}: batches of different widths: {error}") from error
        for (name, output), column in zip(outputs.items(), joined, strict=True):
            if fault := output.fault(column):
                raise self.unreadable(model_name, name, fault, str(output))
        return joined

    def unreadable(self, model_name: str, name: str, found: object, expected: str) -> ModelUnavailable:
        """Make the error for an output that cannot be read."""
        return ModelUnavailable(f"{model_name} at {self.url}: {name}: found {str(found)[:80]}, expected {expected}")

    def cells(self, texts: Sequence[str], noun: str) -> NDArray[np.object_]:
        """Encode texts as [n, 1] bytes. Raises ModelRefused for one that is no Unicode."""
        cells = np.empty((len(texts), 1), np.object_)
        for place, text in enumerate(texts):
            try:
                cells[place, 0] = text.encode()
            except UnicodeEncodeError as error:
                raise ModelRefused(
                    f"{noun} {place}: found {error.reason} at character {error.start}, expected Unicode"
                ) from error
        return cells

    async def close(self) -> None:
        """Let calls end, and close the connections."""
        await self._triton.close()

    async def _batch(
        self, model_name: str, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], deadline: float
    ) -> list[NDArray[Any]]:
        where = f"{model_name} at {self.url}"
        try:
            async with asyncio.timeout_at(deadline), self._in_flight:
                left = max(deadline - asyncio.get_running_loop().time(), 1e-3)
                arrays = await self._triton.wait(self._triton.infer(model_name, inputs, names, left), left)
        except TimeoutError as error:
            raise ModelUnavailable(f"{where}: no answer in time") from error
        except TritonError as error:
            kind = ModelRefused if error.status in _REFUSALS else ModelUnavailable
            raise kind(f"{where}: {error}") from error
        rows = len(next(iter(inputs.values())))
        for name in names:
            column = arrays.get(name)
            if column is None or column.ndim != 2 or len(column) != rows:
                found = "none" if column is None else f"shape {column.shape}"
                raise self.unreadable(model_name, name, found, f"({rows}, …)")
        return [arrays[name] for name in names]
