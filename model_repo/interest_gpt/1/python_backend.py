"""What language models under Triton's Python backend do alike: opening a version, reading texts, answering one by one.

Stands alone, in Triton's Python.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from prompts import Limits, PromptError, Prompts, fingerprint  # type: ignore[import-not-found]  # beside this file

WEIGHTS = "model"
INSTRUCTIONS = "instructions.txt"

_Asked = TypeVar("_Asked")


@dataclass(frozen=True)
class Version:
    """A version's directory, the parameters of its configuration, and the device its instance runs on."""

    directory: Path
    parameters: dict[str, str]
    device: torch.device

    @property
    def weights(self) -> Path:
        """Where `save_pretrained` wrote model and tokenizer."""
        return self.directory / WEIGHTS

    def prompts(self, max_new_tokens: int, *, cut: bool) -> Prompts:
        """Read how prompts are written. cut: those that are too long, or refuse them. Raises ValueError, OSError."""
        limits = Limits(int(self.parameters["max_prompt_tokens"]), max_new_tokens)
        instructions = (self.directory / INSTRUCTIONS).read_text(encoding="utf-8")
        return Prompts(self.weights, self.parameters["prompt_style"], instructions, limits, cut=cut)


def open_version(args: dict[str, str]) -> Version:
    """Read what Triton gives `initialize`, and set the number of threads. Raises TritonModelException."""
    if int(np.__version__.split(".")[0]) >= 2:
        # With numpy 2 the Python backend hands BYTES tensors over empty, without an error.
        raise pb_utils.TritonModelException(
            f"numpy: found {np.__version__}, expected below 2 in the environment of Triton's Python backend"
        )
    config = json.loads(args["model_config"])
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    torch.set_num_threads(max(1, min(int(parameters.get("threads", "1")), os.cpu_count() or 1)))
    on_gpu = args["model_instance_kind"] == "GPU"
    device = torch.device("cuda", int(args["model_instance_device_id"])) if on_gpu else torch.device("cpu")
    return Version(Path(args["model_repository"]) / args["model_version"], parameters, device)


def check_fingerprint(version: Version) -> None:
    """Compare the parameter `fingerprint`, if there is one, with that of the files. Raises ValueError."""
    expected = version.parameters.get("fingerprint")
    if expected is not None and (found := fingerprint(version.weights)) != expected:
        raise ValueError(f"fingerprint: found {found}, expected {expected}")


class LanguageModel(ABC, Generic[_Asked]):
    """One instance of a model; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. Raises TritonModelException naming what was found and what was expected."""
        version = open_version(args)
        try:
            check_fingerprint(version)
            self.load(version)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{version.directory}: {error}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that cannot be answered gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        asked: dict[int, _Asked] = {}
        for i, request in enumerate(requests):
            try:
                asked[i] = self.read(request)
            except ValueError as error:
                responses[i] = failure(error, pb_utils.TritonError.INVALID_ARG)
        for i, response in self._answers(asked):
            responses[i] = response
        return responses

    @abstractmethod
    def load(self, version: Version) -> None:
        """Load a version. Whatever is raised refuses it."""

    @abstractmethod
    def read(self, request: Any) -> _Asked:
        """Read what a request asks. Raises ValueError naming what cannot be answered."""

    @abstractmethod
    def answer(self, asked: Sequence[_Asked]) -> Sequence[Any]:
        """Make the responses to several requests, asked together."""

    def _answers(self, asked: dict[int, _Asked]) -> Iterator[tuple[int, Any]]:
        if not asked:
            return
        try:
            yield from zip(asked, self.answer([*asked.values()]), strict=True)
        except Exception as error:
            if len(asked) == 1:
                (i,) = asked
                yield i, failure(error, pb_utils.TritonError.INTERNAL)
                return
            # What one request brings about must not fail those it happened to be batched with.
            for i, one in asked.items():
                yield from self._answers({i: one})


def failure(error: Exception, code: int) -> Any:
    """Make the response to a request that failed."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error), code))


def column(request: Any, name: str) -> Any:
    """Take the one cell of each row of an input, [n]; None for an optional input that was left out."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)


def read_prompts(request: Any, write: Callable[[str], list[int]]) -> list[list[int]]:
    """Read a request's prompts, in tokens. Raises ValueError naming the one that cannot be answered."""
    prompts = []
    for place, cell in enumerate(column(request, "prompt")):
        try:
            prompts.append(write(cell.decode()))
        except (PromptError, UnicodeDecodeError) as error:
            raise ValueError(f"prompt {place}: {error}") from error
    return prompts


def read_excluded(request: Any, rows: int) -> list[frozenset[str]]:
    """Read the categories a request does not want, per row. Raises ValueError."""
    return [frozenset(names) for names in read_names(request, "excluded") or [[]] * rows]


def read_names(request: Any, name: str) -> list[list[str]] | None:
    """Read lists of categories, one a row; None for an optional input that was left out. Raises ValueError."""
    cells = column(request, name)
    return None if cells is None else [_names(cell, name) for cell in cells]


def _names(cell: bytes, name: str) -> list[str]:
    try:
        names = json.loads(cell)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise ValueError(f"{name}: found {cell[:60]!r}, expected a JSON list of categories")
    return names
