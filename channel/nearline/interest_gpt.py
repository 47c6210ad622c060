"""InterestGPT and the text encoder on Triton: the one near-line place that speaks to it and knows its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from serendipity.channel.errors import (
    GenerationError,
    InterestGptRefused,
    InterestGptUnavailable,
    TextEncoderRefused,
    TextEncoderUnavailable,
)
from serendipity.interests.model import ANSWER, COMPLETION_TOKENS, CONSTRAINED, EXCLUDED, PROMPT, PROMPT_TOKENS
from serendipity.v1 import records_pb2

TEXT_ENCODER = "text_encoder"
_TEXTS = "texts"
_EMBEDDINGS = "embeddings"

_REFUSALS = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED"})
"""Statuses that the same call would meet again. NOT_FOUND is none of them: a model is away while it is deployed."""

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC backs off for up to two minutes by default; the near-line queue has a back-off of its own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


@dataclass(frozen=True)
class Answer:
    """What InterestGPT wrote for one prompt, without the prompt and without special tokens.

    completion_tokens: spec.max_new_tokens where it was cut off.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int


class InterestGpt:
    """Calls InterestGPT. Belongs to one event loop, connects at the first call."""

    def __init__(self, url: str, *, max_batches_in_flight: int = 2) -> None:
        """url: Triton's gRPC address, host:port. max_batches_in_flight: over all calls; others wait for their turn.

        Two keep the model busy: one is generated while the other waits in Triton's queue.
        """
        self._model = _TritonModel(url, max_batches_in_flight, InterestGptUnavailable, InterestGptRefused)

    async def answers(
        self,
        spec: records_pb2.InterestGptSpec,
        prompts: Sequence[str],
        timeout: float,
        *,
        constrained: bool = True,
        excluded: Sequence[Sequence[str]] = (),
    ) -> list[Answer]:
        """Ask the model that `spec` names, in batches of up to spec.max_batch, and return answers in prompts' order.

        prompts: user messages (`prompt.render`). timeout: seconds for all of them. constrained: only answers of the
        schema can be written; excluded: of each prompt the categories that such an answer must not name, or nothing.

        All are answered or an error is raised: InterestGptUnavailable when the call is worth trying again,
        InterestGptRefused when it is not; of several prompts any may be at fault then, so try them one by one.
        """
        cells = _cells(prompts, "prompt", InterestGptRefused)
        if excluded:
            lists = [json.dumps(list(names), ensure_ascii=False) for names in excluded]
            cells = np.concatenate([cells, _cells(lists, "excluded", InterestGptRefused)], axis=1)

        def batch(part: NDArray[np.object_]) -> list[Any]:
            tensors = [_tensor(PROMPT, part[:, :1]), _tensor(CONSTRAINED, np.full((len(part), 1), constrained))]
            return [*tensors, _tensor(EXCLUDED, part[:, 1:])] if excluded else tensors

        outputs = await self._model.infer(
            spec.model_name, cells, max(1, spec.max_batch), batch, (ANSWER, PROMPT_TOKENS, COMPLETION_TOKENS), timeout
        )
        kinds = [column.dtype.kind for column in outputs]
        if outputs and kinds != ["O", "i", "i"]:
            raise InterestGptUnavailable(
                f"{spec.model_name} at {self._model.url}: found outputs of kinds {kinds}, expected BYTES and two INT32"
            )
        rows = zip(*(column[:, 0] for column in outputs), strict=True)
        # A byte-level model that is cut off can leave half a character.
        return [
            Answer(text.decode("utf-8", "replace"), int(prompt), int(completion)) for text, prompt, completion in rows
        ]

    async def close(self) -> None:
        """Close the connection."""
        await self._model.close()


class TritonTextEncoder:
    """Calls the text encoder. Belongs to one event loop, connects at the first call."""

    def __init__(self, url: str, *, timeout: float = 10.0, max_batch: int = 64, max_batches_in_flight: int = 2) -> None:
        """url: Triton's gRPC address, host:port. timeout: seconds of one `encode`. max_batch: texts per batch."""
        self._model = _TritonModel(url, max_batches_in_flight, TextEncoderUnavailable, TextEncoderRefused)
        self._timeout = timeout
        self._max_batch = max_batch

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: [n, D] float32 of norm 1; [0, 0] of no texts.

        Raises TextEncoderUnavailable when the call is worth trying again, TextEncoderRefused when it is not.
        """
        if not texts:
            return np.empty((0, 0), np.float32)
        cells = _cells(texts, "text", TextEncoderRefused)
        (vectors,) = await self._model.infer(
            TEXT_ENCODER, cells, self._max_batch, lambda part: [_tensor(_TEXTS, part)], (_EMBEDDINGS,), self._timeout
        )
        if vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise TextEncoderUnavailable(
                f"{TEXT_ENCODER} at {self._model.url}: {_EMBEDDINGS}: found {vectors.dtype} with "
                f"{np.count_nonzero(~np.isfinite(vectors))} numbers that are not finite, expected finite float32"
            )
        return vectors

    async def close(self) -> None:
        """Close the connection."""
        await self._model.close()


class _TritonModel:
    """Sends rows of one input in batches, and turns whatever goes wrong into one of two errors."""

    def __init__(
        self, url: str, max_batches_in_flight: int, unavailable: type[GenerationError], refused: type[GenerationError]
    ) -> None:
        self.url = url
        self._unavailable = unavailable
        self._refused = refused
        self._in_flight = asyncio.Semaphore(max_batches_in_flight)
        self._client: Any = None

    async def infer(
        self,
        model_name: str,
        cells: NDArray[np.object_],
        max_batch: int,
        tensors: Callable[[NDArray[np.object_]], list[Any]],
        names: Sequence[str],
        timeout: float,
    ) -> list[NDArray[Any]]:
        """Return each output with the rows of all batches, [n, …], in the cells' order."""
        deadline = asyncio.get_running_loop().time() + timeout
        tasks = [
            asyncio.ensure_future(self._batch(model_name, len(part), tensors(part), names, deadline))
            for part in (cells[at : at + max_batch] for at in range(0, len(cells), max_batch))
        ]
        try:
            batches = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [np.concatenate(columns) for columns in zip(*batches, strict=True)]

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _batch(
        self, model_name: str, rows: int, tensors: list[Any], names: Sequence[str], deadline: float
    ) -> list[NDArray[Any]]:
        where = f"{model_name} at {self.url}"
        try:
            async with asyncio.timeout_at(deadline), self._in_flight:
                outputs = await self._call(model_name, tensors, names, deadline)
        except TimeoutError as error:
            raise self._unavailable(f"{where}: no answer in time") from error
        except InferenceServerException as error:
            status = str(error.status() or "").removeprefix("StatusCode.")
            kind = self._refused if status in _REFUSALS else self._unavailable
            raise kind(f"{where}: {status}: {error.message()}") from error
        except Exception as error:
            # A closed channel, an answer that does not parse: whatever the client raises besides its own kind.
            raise self._unavailable(f"{where}: {type(error).__name__}: {error}") from error
        for name, column in zip(names, outputs, strict=True):
            if column is None or column.ndim != 2 or len(column) != rows:
                found = "none" if column is None else f"shape {column.shape}"
                raise self._unavailable(f"{where}: {name}: found {found}, expected ({rows}, …)")
        return outputs

    async def _call(
        self, model_name: str, tensors: list[Any], names: Sequence[str], deadline: float
    ) -> list[NDArray[Any]]:
        if self._client is None:
            self._client = triton_aio.InferenceServerClient(self.url, channel_args=_CHANNEL_OPTIONS)
        left = deadline - asyncio.get_running_loop().time()
        result = await self._client.infer(
            model_name,
            tensors,
            outputs=[triton_grpc.InferRequestedOutput(name) for name in names],
            # Bounds the wait in Triton's queue; the client's own timeout bounds all of it.
            timeout=max(1, int(left * 1e6)),
            client_timeout=max(left, 1e-3),
        )
        return [result.as_numpy(name) for name in names]


def _cells(texts: Sequence[str], noun: str, refused: type[GenerationError]) -> NDArray[np.object_]:
    """Encode texts as [n, 1] bytes."""
    cells = np.empty((len(texts), 1), np.object_)
    for place, text in enumerate(texts):
        try:
            cells[place, 0] = text.encode()
        except UnicodeEncodeError as error:
            raise refused(
                f"{noun} {place}: found {error.reason} at character {error.start}, expected Unicode"
            ) from error
    return cells


def _tensor(name: str, values: NDArray[Any]) -> Any:
    tensor = triton_grpc.InferInput(name, values.shape, "BYTES" if values.dtype == np.object_ else "BOOL")
    tensor.set_data_from_numpy(values)
    return tensor
