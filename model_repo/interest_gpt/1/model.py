"""InterestGPT in Triton's Python backend: user messages in, latent interests as JSON out, one batch per execution.

Stands alone, like every file of this repository. Beside it lie generation.py, and, put there when the model is placed,
constraint.py, answer_schema.json, instructions.txt and the language model in model/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from generation import (  # type: ignore[import-not-found]  # beside this file
    Answer,
    Generation,
    Limits,
    PromptError,
    fingerprint,
    read_json,
)

WEIGHTS = "model"
SCHEMA = "answer_schema.json"
INSTRUCTIONS = "instructions.txt"


@dataclass(frozen=True)
class Batch:
    """The prompts of one request, as tokens, and whether the answer to each is constrained."""

    prompts: list[list[int]]
    constrained: list[bool]


class TritonPythonModel:
    """One instance of the model; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model and grammar. Raises TritonModelException naming what was found and what was expected."""
        if int(np.__version__.split(".")[0]) >= 2:
            # With numpy 2 the Python backend hands BYTES tensors over empty, without an error.
            raise pb_utils.TritonModelException(
                f"numpy: found {np.__version__}, expected below 2 in the environment of Triton's Python backend"
            )
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        torch.set_num_threads(max(1, min(int(parameters["threads"]), os.cpu_count() or 1)))
        directory = Path(args["model_repository"]) / args["model_version"]
        try:
            _check_fingerprint(directory / WEIGHTS, parameters.get("fingerprint"))
            self._generation = Generation(
                directory / WEIGHTS,
                style=parameters["prompt_style"],
                instructions=(directory / INSTRUCTIONS).read_text(encoding="utf-8"),
                schema=read_json(directory / SCHEMA),
                limits=Limits(int(parameters["max_prompt_tokens"]), int(parameters["max_new_tokens"])),
                device=_device(args),
            )
        except Exception as error:
            raise pb_utils.TritonModelException(f"{directory}: {error}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        batches: dict[int, Batch] = {}
        for i, request in enumerate(requests):
            try:
                batches[i] = self._batch(request)
            except ValueError as error:
                responses[i] = _failure(error, pb_utils.TritonError.INVALID_ARG)
        for i, response in self._responses(batches).items():
            responses[i] = response
        return responses

    def _batch(self, request: Any) -> Batch:
        """Read a request's prompts. Raises ValueError naming the one that cannot be answered."""
        cells = pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy().reshape(-1)
        wishes = pb_utils.get_input_tensor_by_name(request, "constrained")
        constrained = [True] * len(cells) if wishes is None else wishes.as_numpy().reshape(-1).astype(bool).tolist()
        prompts = []
        for place, cell in enumerate(cells):
            try:
                prompts.append(self._generation.encode(cell.decode()))
            except (PromptError, UnicodeDecodeError) as error:
                raise ValueError(f"prompt {place}: {error}") from error
        return Batch(prompts, constrained)

    def _responses(self, batches: dict[int, Batch]) -> dict[int, Any]:
        if not batches:
            return {}
        try:
            answers = self._generation.generate(
                [prompt for batch in batches.values() for prompt in batch.prompts],
                [wish for batch in batches.values() for wish in batch.constrained],
            )
        except Exception as error:
            if len(batches) == 1:
                return {i: _failure(error, pb_utils.TritonError.INTERNAL) for i in batches}
            # What one request brings about must not fail those it happened to be batched with.
            return {i: response for one in batches for i, response in self._responses({one: batches[one]}).items()}
        rest = iter(answers)
        return {i: _response([next(rest) for _ in batch.prompts]) for i, batch in batches.items()}


def _check_fingerprint(directory: Path, expected: str | None) -> None:
    """Compare the parameter `fingerprint`, where there is one, with that of the files."""
    if expected is not None and (found := fingerprint(directory)) != expected:
        raise ValueError(f"fingerprint: found {found}, expected {expected}")


def _device(args: dict[str, str]) -> torch.device:
    if args["model_instance_kind"] == "GPU":
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")


def _response(answers: list[Answer]) -> Any:
    columns = {
        "answer": np.array([answer.text.encode() for answer in answers], np.object_),
        "prompt_tokens": np.array([answer.prompt_tokens for answer in answers], np.int32),
        "completion_tokens": np.array([answer.completion_tokens for answer in answers], np.int32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, column[:, None]) for name, column in columns.items()])


def _failure(error: Exception, code: int) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error), code))
