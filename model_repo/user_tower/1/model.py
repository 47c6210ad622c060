"""The user tower in Triton's Python backend: runs the exported tower beside it, one forward pass per batch.

Stands alone: the environment Triton gives it has torch, and neither NumPy's bridge nor the serendipity package
is relied on. Tensor names and sizes come from the model configuration and from the exported tower itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

WEIGHTS = "user_tower.pt2"
DTYPES = {"TYPE_INT32": torch.int32, "TYPE_INT64": torch.int64, "TYPE_FP32": torch.float32}

Shape = tuple[int, ...]


class TritonPythonModel:
    """One instance of the tower; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the exported tower. Raises TritonModelException naming what was found and what was expected."""
        # The tower is small: a second thread only steals the core of another instance.
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / WEIGHTS
        _check_fingerprint(path, config)
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: not an exported tower ({error})") from error
        self._device = _device(args)
        if self._device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self._device)
        self._names = [entry["name"] for entry in config["input"]]
        self._dtypes = [DTYPES[entry["data_type"]] for entry in config["input"]]
        self._shapes = _input_shapes(program)
        self._output = config["output"][0]["name"]
        if len(self._shapes) != len(self._names):
            raise pb_utils.TritonModelException(
                f"{path}: found {len(self._shapes)} inputs, expected {len(self._names)}: {', '.join(self._names)}"
            )
        self._tower = program.module()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that does not fit gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        inputs: dict[int, list[torch.Tensor]] = {}
        for i, request in enumerate(requests):
            try:
                inputs[i] = self._inputs(request)
            except ValueError as error:
                responses[i] = _failure(error)
        for i, response in self._answers(inputs).items():
            responses[i] = response
        return responses

    def _answers(self, inputs: dict[int, list[torch.Tensor]]) -> dict[int, Any]:
        if not inputs:
            return {}
        try:
            vectors = self._forward(list(inputs.values()))
        except Exception as error:
            if len(inputs) == 1:
                return {i: _failure(error) for i in inputs}
            # One request with an id the tower does not know must not fail those it happened to be batched with.
            return {i: answer for one in inputs for i, answer in self._answers({one: inputs[one]}).items()}
        return {
            i: pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(self._output, part)])
            for i, part in zip(inputs, vectors, strict=True)
        }

    def _forward(self, inputs: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        users = [len(columns[0]) for columns in inputs]
        with torch.inference_mode():
            columns = inputs[0] if len(inputs) == 1 else [torch.cat(parts) for parts in zip(*inputs, strict=True)]
            vectors = self._tower(*(column.to(self._device) for column in columns))
            return list(vectors.float().cpu().split(users))

    def _inputs(self, request: Any) -> list[torch.Tensor]:
        """Take a request's tensors over without a copy. Raises ValueError when one does not fit the tower."""
        tensors = []
        for name, dtype, shape in zip(self._names, self._dtypes, self._shapes, strict=True):
            tensor = from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
            if tuple(tensor.shape[1:]) != shape or tensor.dtype != dtype:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                raise ValueError(f"input {name}: found {found}, expected {dtype} {['users', *shape]}")
            tensors.append(tensor)
        return tensors


def _check_fingerprint(path: Path, config: dict[str, Any]) -> None:
    """Compare the parameter `fingerprint`, where there is one, with the weights' SHA-256."""
    if not path.is_file():
        raise pb_utils.TritonModelException(f"{path}: missing; expected the exported tower beside model.py")
    expected = config.get("parameters", {}).get("fingerprint", {}).get("string_value")
    if expected is None:
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()[: len(expected)]
    if found != expected:
        raise pb_utils.TritonModelException(f"{path}: fingerprint: found {found}, expected {expected}")


def _device(args: dict[str, str]) -> torch.device:
    if args["model_instance_kind"] == "GPU":
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")


def _input_shapes(program: torch.export.ExportedProgram) -> list[Shape]:
    """Sizes of the tower's inputs without the batch dimension, in the order they are passed."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return [tuple(int(size) for size in values[name].shape[1:]) for name in program.graph_signature.user_inputs]


def _failure(error: Exception) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
