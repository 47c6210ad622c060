"""InterestGPT in front of a vLLM model: prompts and bounds as model_repo/interest_gpt has them, text by vLLM.

Stands alone. Beside it lie the modules it imports, and, put there when the model is placed, answer_schema.json,
instructions.txt and in model/ what `save_pretrained` writes: the tokenizer is read here, the weights by vLLM. The
fingerprint was compared when the model was placed: the weights of a large base take minutes to hash. The vLLM model
that the parameter `engine` names batches by itself: every prompt is a request of its own.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from exchange import (  # type: ignore[import-not-found]  # placed beside this file
    SCHEMA,
    Batch,
    open_prompts,
    read_batch,
    response,
)
from prompts import Answer, Prompt, read_json  # type: ignore[import-not-found]  # placed beside this file
from python_backend import failure, open_version  # type: ignore[import-not-found]  # placed beside this file


class TritonPythonModel:
    """One instance of the front; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer. Raises TritonModelException naming what was found and what was expected."""
        version = open_version(args)
        try:
            self._prompts = open_prompts(version)
            self._engine = version.parameters["engine"]
            self._schema: dict[str, Any] = read_json(version.directory / SCHEMA)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{version.directory}: {error}") from error
        tokenizer = self._prompts.tokenizer
        # vLLM's tokenizer writes the mark of the beginning once more before a template that has it.
        writes_begin = tokenizer("-")["input_ids"][:1] == [tokenizer.bos_token_id]
        self._begin = tokenizer.bos_token if writes_begin else None

    async def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        return await asyncio.gather(*(self._answer(request) for request in requests))

    async def _answer(self, request: Any) -> Any:
        try:
            batch: Batch = read_batch(request, self._prompts)
        except ValueError as error:
            return failure(error, pb_utils.TritonError.INVALID_ARG)
        asked = [
            self._request(prompt, wish, names).async_exec(decoupled=True)
            for prompt, wish, names in zip(batch.prompts, batch.constrained, batch.excluded, strict=True)
        ]
        try:
            streams = await asyncio.gather(*asked)
            answers = [self._read(prompt, stream) for prompt, stream in zip(batch.prompts, streams, strict=True)]
        except (RuntimeError, pb_utils.TritonModelException) as error:
            return failure(error, pb_utils.TritonError.UNAVAILABLE)
        return response(answers)

    def _request(self, prompt: Prompt, constrained: bool, excluded: Collection[str]) -> Any:
        schema = _without(self._schema, excluded) if constrained else None
        sampling = _sampling(self._prompts.limits.max_new_tokens, schema)
        text = prompt.text.removeprefix(self._begin) if self._begin else prompt.text
        inputs = {
            "text_input": np.array([text.encode()], np.object_),
            "sampling_parameters": np.array([sampling], np.object_),
            "stream": np.array([False]),
            "exclude_input_in_output": np.array([True]),
            "return_num_output_tokens": np.array([True]),
            "return_finish_reason": np.array([True]),
        }
        return pb_utils.InferenceRequest(
            model_name=self._engine,
            requested_output_names=["text_output", "num_output_tokens", "finish_reason"],
            inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
        )

    def _read(self, prompt: Prompt, stream: Any) -> Answer:
        """Take the one answer of a stream; the last response of it may be empty. Raises RuntimeError."""
        answers = []
        for part in stream:
            if part.has_error():
                raise RuntimeError(f"{self._engine}: {part.error().message()}")
            found = {tensor.name(): tensor.as_numpy().reshape(-1)[0] for tensor in part.output_tensors()}
            if found:
                answers.append(found)
        if len(answers) != 1:
            raise RuntimeError(f"{self._engine}: found {len(answers)} answers to one prompt, expected one")
        (answer,) = answers
        was_cut = answer["finish_reason"].decode() == "length"
        most = self._prompts.limits.max_new_tokens
        # vLLM counts the token that ends an answer.
        tokens = most if was_cut else max(0, int(answer["num_output_tokens"]) - 1)
        return Answer(answer["text_output"].decode(), len(prompt.tokens), tokens)


def _without(schema: dict[str, Any], excluded: Collection[str]) -> dict[str, Any]:
    """Take categories out of an answer's schema, unless that leaves none."""
    mine = copy.deepcopy(schema)
    category = mine["properties"]["interests"]["items"]["properties"]["category"]
    category["enum"] = [name for name in category["enum"] if name not in excluded] or category["enum"]
    return mine


def _sampling(max_new_tokens: int, schema: dict[str, Any] | None) -> bytes:
    """Write vLLM's SamplingParams: greedy, bounded, and inside a JSON schema if there is one."""
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_new_tokens}
    if schema is not None:
        # White space as json.dumps writes it, which is how the answers that the model has learned are written.
        spaced = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        options["structured_outputs"] = json.dumps({"json": {**schema, "x-guidance": spaced}})
    return json.dumps(options).encode()
