"""An exported program in Triton's Python backend: the requests of one batch become one forward pass.

Stands alone: the environment Triton gives it has torch, and neither NumPy's bridge nor the serendipity package
is relied on. Tensor names come from the model configuration, by which Triton has checked types and sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

DTYPES = {
    "TYPE_INT32": torch.int32,
    "TYPE_INT64": torch.int64,
    "TYPE_FP16": torch.float16,
    "TYPE_FP32": torch.float32,
}

_FINGERPRINT = 16
"""Hex digits of a fingerprint."""

Run = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]


class TritonPythonModel:
    """One instance of a program; inputs and outputs are passed in the order in which the configuration has them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the program beside this file: *.pt2, or *.onnx, of the version's directory.

        Raises TritonModelException naming what was found and what was expected.
        """
        # The programs are small: a second thread only steals the core of another instance.
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        programs = [path for path in version.iterdir() if path.suffix in (".pt2", ".onnx")]
        if len(programs) != 1:
            raise pb_utils.TritonModelException(f"{version}: found {len(programs)} exported programs, expected one")
        (path,) = programs
        load = _load_onnx if path.suffix == ".onnx" else _load
        try:
            self._run, fingerprint = load(path, _device(args))
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: not an exported program ({error})") from error
        _check_fingerprint(path, fingerprint, config)
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [(entry["name"], DTYPES[entry["data_type"]]) for entry in config["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that does not fit gets an error of its own."""
        try:
            answers = self._forward([self._read(request) for request in requests])
        except Exception as error:
            if len(requests) == 1:
                return [_failure(error)]
            # One request with an id the program does not know must not fail those it happened to be batched with.
            return [response for request in requests for response in self.execute([request])]
        names = [name for name, _ in self._outputs]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack(name, part) for name, part in zip(names, parts, strict=True)]
            )
            for parts in answers
        ]

    def _forward(self, inputs: list[list[torch.Tensor]]) -> list[tuple[torch.Tensor, ...]]:
        """Run the program once; return each request's outputs."""
        rows = [len(columns[0]) for columns in inputs]
        with torch.inference_mode():
            columns = inputs[0] if len(inputs) == 1 else [_stacked(parts) for parts in zip(*inputs, strict=True)]
            outputs = self._run(columns)
            parts = [
                torch.split(output.to(dtype).cpu(), rows)
                for output, (_, dtype) in zip(outputs, self._outputs, strict=True)
            ]
        return list(zip(*parts, strict=True))

    def _read(self, request: Any) -> list[torch.Tensor]:
        """Take a request's tensors over without a copy; Triton has compared types and sizes with the configuration."""
        tensors = (pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs)
        return [from_dlpack(tensor.to_dlpack()) for tensor in tensors]


def _check_fingerprint(path: Path, found: str, config: dict[str, Any]) -> None:
    """Compare the parameter `fingerprint`, where there is one, with that of the weights."""
    expected = config.get("parameters", {}).get("fingerprint", {}).get("string_value")
    if expected is not None and found != expected:
        raise pb_utils.TritonModelException(f"{path}: fingerprint: found {found}, expected {expected}")


def _device(args: dict[str, str]) -> torch.device:
    if args["model_instance_kind"] == "GPU":
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")


def _load(path: Path, device: torch.device) -> tuple[Run, str]:
    """Load a torch.export program: how it is run, and its fingerprint."""
    program = torch.export.load(path)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()

    def run(columns: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        found = module(*(column.to(device) for column in columns))
        return [found] if isinstance(found, torch.Tensor) else list(found)

    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:_FINGERPRINT]
    return run, fingerprint


def _load_onnx(path: Path, _: torch.device) -> tuple[Run, str]:
    """Load an ONNX file likewise, on the CPU: a small tower takes a third of torch's time there."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(columns: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        feed = {name: column.numpy() for name, column in zip(names, columns, strict=True)}
        try:
            return [torch.from_numpy(output) for output in session.run(None, feed)]
        except InvalidArgument as error:
            raise ValueError(str(error)) from error

    # It names the exported program of the same training.
    fingerprint = session.get_modelmeta().custom_metadata_map.get("serendipity.fingerprint", "none")
    return run, fingerprint


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Lay the rows of several requests one after another, those with fewer entries per row padded with zeros."""
    most = max(part.shape[1] for part in parts)
    rows = parts[0].new_zeros(sum(map(len, parts)), most, *parts[0].shape[2:])
    at = 0
    for part in parts:
        rows[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return rows


def _failure(error: Exception) -> Any:
    # A wrong shape, an id past the embeddings: the same request would fail again, and the server is well.
    is_theirs = isinstance(error, ValueError | IndexError)
    code = pb_utils.TritonError.INVALID_ARG if is_theirs else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error), code))
