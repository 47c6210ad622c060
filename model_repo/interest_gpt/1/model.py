"""InterestGPT in Triton's Python backend: user messages in, latent interests as JSON out, one batch per execution.

Stands alone, like every file of this repository. Beside it lie the modules it imports, and, put there when the model
is placed, constraint.py, answer_schema.json, instructions.txt and the language model in model/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils
from exchange import (  # type: ignore[import-not-found]  # beside this file
    SCHEMA,
    Batch,
    open_prompts,
    read_batch,
    response,
)
from generation import Generation  # type: ignore[import-not-found]  # beside this file
from prompts import read_json  # type: ignore[import-not-found]  # beside this file
from python_backend import answer_each, check_fingerprint, open_version  # type: ignore[import-not-found]


class TritonPythonModel:
    """One instance of the model; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model and grammar. Raises TritonModelException naming what was found and what was expected."""
        version = open_version(args)
        try:
            check_fingerprint(version)
            self._prompts = open_prompts(version)
            schema = read_json(version.directory / SCHEMA)
            self._generation = Generation(version.weights, self._prompts, schema, version.device)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{version.directory}: {error}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        return list(answer_each(requests, lambda request: read_batch(request, self._prompts), self._answer))

    def _answer(self, batches: Sequence[Batch]) -> list[Any]:
        answers = iter(
            self._generation.generate(
                [prompt for batch in batches for prompt in batch.prompts],
                [wish for batch in batches for wish in batch.constrained],
                [names for batch in batches for names in batch.excluded],
            )
        )
        return [response([next(answers) for _ in batch.prompts]) for batch in batches]
