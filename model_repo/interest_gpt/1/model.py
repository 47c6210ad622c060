"""InterestGPT in Triton's Python backend: user messages in, latent interests as JSON out, one batch per execution.

Stands alone, like every file of this repository. Beside it lie the modules it imports, and, put there when the model
is placed, constraint.py, answer_schema.json, instructions.txt and the language model in model/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from exchange import (  # type: ignore[import-not-found]  # beside this file
    SCHEMA,
    WEIGHTS,
    Batch,
    check_fingerprint,
    check_numpy,
    failure,
    open_prompts,
    read_batches,
    response,
)
from generation import Generation  # type: ignore[import-not-found]  # beside this file
from prompts import read_json  # type: ignore[import-not-found]  # beside this file


class TritonPythonModel:
    """One instance of the model; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model and grammar. Raises TritonModelException naming what was found and what was expected."""
        check_numpy()
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        torch.set_num_threads(max(1, min(int(parameters["threads"]), os.cpu_count() or 1)))
        version = Path(args["model_repository"]) / args["model_version"]
        try:
            check_fingerprint(version, parameters)
            self._prompts = open_prompts(version, parameters)
            schema = read_json(version / SCHEMA)
            self._generation = Generation(version / WEIGHTS, self._prompts, schema, _device(args))
        except Exception as error:
            raise pb_utils.TritonModelException(f"{version}: {error}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        batches, responses = read_batches(requests, self._prompts.write)
        answered = self._responses({i: batch for i, batch in enumerate(batches) if batch is not None})
        return [answered.get(i, refusal) for i, refusal in enumerate(responses)]

    def _responses(self, batches: dict[int, Batch]) -> dict[int, Any]:
        if not batches:
            return {}
        try:
            answers = self._generation.generate(
                [prompt for batch in batches.values() for prompt in batch.prompts],
                [wish for batch in batches.values() for wish in batch.constrained],
                [names for batch in batches.values() for names in batch.excluded],
            )
        except Exception as error:
            if len(batches) == 1:
                return {i: failure(error, pb_utils.TritonError.INTERNAL) for i in batches}
            # What one request brings about must not fail those it happened to be batched with.
            return {i: answer for one in batches for i, answer in self._responses({one: batches[one]}).items()}
        rest = iter(answers)
        return {i: response([next(rest) for _ in batch.prompts]) for i, batch in batches.items()}


def _device(args: dict[str, str]) -> torch.device:
    if args["model_instance_kind"] == "GPU":
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")
