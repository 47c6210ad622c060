"""An exported program in Triton's Python backend: the requests of one batch become one forward pass.

Stands alone: the environment Triton gives it has torch, and neither NumPy's bridge nor the serendipity package
is relied on. Tensor names and types come from the model configuration, sizes from the program itself.
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

DTYPES = {
    "TYPE_INT32": torch.int32,
    "TYPE_INT64": torch.int64,
    "TYPE_FP32": torch.float32,
}

Shape = tuple[int, ...]


class ExportedProgram:
    """One instance of a program; inputs and outputs are passed in the order in which the configuration has them."""

    def __init__(self, args: dict[str, str], file_name: str) -> None:
        """Load the program `file_name` of the version's directory. args: what Triton gives `initialize`.

        Raises TritonModelException naming what was found and what was expected.
        """
        # The programs are small: a second thread only steals the core of another instance.
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / file_name
        _check_fingerprint(path, config)
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: not an exported program ({error})") from error
        self._device = _device(args)
        if self._device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self._device)
        self._inputs = [(entry["name"], DTYPES[entry["data_type"]]) for entry in config["input"]]
        self._outputs = [(entry["name"], DTYPES[entry["data_type"]]) for entry in config["output"]]
        self._shapes = _input_shapes(program)
        for found, expected, noun in (
            (len(self._shapes), self._inputs, "inputs"),
            (len(program.graph_signature.user_outputs), self._outputs, "outputs"),
        ):
            if found != len(expected):
                names = ", ".join(name for name, _ in expected)
                raise pb_utils.TritonModelException(f"{path}: found {found} {noun}, expected {len(expected)}: {names}")
        self._program = program.module()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that does not fit gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        inputs: dict[int, list[torch.Tensor]] = {}
        for i, request in enumerate(requests):
            try:
                inputs[i] = self._read(request)
            except ValueError as error:
                responses[i] = _failure(error)
        for i, response in self._answers(inputs).items():
            responses[i] = response
        return responses

    def _answers(self, inputs: dict[int, list[torch.Tensor]]) -> dict[int, Any]:
        if not inputs:
            return {}
        try:
            answers = self._forward(list(inputs.values()))
        except Exception as error:
            if len(inputs) == 1:
                return {i: _failure(error) for i in inputs}
            # One request with an id the program does not know must not fail those it happened to be batched with.
            return {i: answer for one in inputs for i, answer in self._answers({one: inputs[one]}).items()}
        names = [name for name, _ in self._outputs]
        return {
            i: pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack(name, part) for name, part in zip(names, parts, strict=True)]
            )
            for i, parts in zip(inputs, answers, strict=True)
        }

    def _forward(self, inputs: list[list[torch.Tensor]]) -> list[tuple[torch.Tensor, ...]]:
        """Run the program once; return each request's outputs."""
        rows = [len(columns[0]) for columns in inputs]
        with torch.inference_mode():
            columns = inputs[0] if len(inputs) == 1 else [torch.cat(parts) for parts in zip(*inputs, strict=True)]
            found = self._program(*(column.to(self._device) for column in columns))
            outputs = [found] if isinstance(found, torch.Tensor) else found
            parts = [
                output.to(dtype).cpu().split(rows) for output, (_, dtype) in zip(outputs, self._outputs, strict=True)
            ]
        return list(zip(*parts, strict=True))

    def _read(self, request: Any) -> list[torch.Tensor]:
        """Take a request's tensors over without a copy. Raises ValueError when one does not fit the program."""
        tensors = []
        for (name, dtype), shape in zip(self._inputs, self._shapes, strict=True):
            tensor = from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
            if tuple(tensor.shape[1:]) != shape or tensor.dtype != dtype:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                raise ValueError(f"input {name}: found {found}, expected {dtype} {['users', *shape]}")
            tensors.append(tensor)
        if len({len(tensor) for tensor in tensors}) != 1:
            rows = {name: len(tensor) for (name, _), tensor in zip(self._inputs, tensors, strict=True)}
            raise ValueError(f"inputs: found {rows} users, expected as many in each")
        return tensors


def _check_fingerprint(path: Path, config: dict[str, Any]) -> None:
    """Compare the parameter `fingerprint`, where there is one, with the weights' SHA-256."""
    if not path.is_file():
        raise pb_utils.TritonModelException(f"{path}: missing; expected the exported program beside model.py")
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
    """Sizes of the program's inputs without the batch dimension, in the order they are passed."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return [tuple(int(size) for size in values[name].shape[1:]) for name in program.graph_signature.user_inputs]


def _failure(error: Exception) -> Any:
    # A wrong shape, an id past the embeddings: the same request would fail again, and the server is well.
    is_theirs = isinstance(error, ValueError | IndexError)
    code = pb_utils.TritonError.INVALID_ARG if is_theirs else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error), code))
