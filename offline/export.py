"""Trained towers out of PyTorch: an exported program for Triton's Python backend, ONNX for its ONNX Runtime backend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from serendipity import features
from serendipity.offline.errors import BuilderError
from serendipity.offline.finite import require_finite_weights

_OPSET = 18


class ExportError(BuilderError):
    """An exported tower differs from the module it came from, or cannot be read."""


def export_program(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    path: Path,
    input_names: Sequence[str] = features.INPUT_NAMES,
) -> str:
    """Write `module` with torch.export, the number of users (dimension 0) left open, and return its fingerprint.

    example_inputs: one batch in the order of input_names (by default the user tower's), which is the order of
    forward's arguments; every other dimension is fixed to its size, but the number of interests. forward gives a tensor
    or several. The module is exported in evaluation mode on the CPU. Raises ExportError when the number of inputs is
    wrong, or when the program that was written answers differently from the module at another batch size;
    DivergedError for weights that are not finite.
    """
    require_finite_weights(str(path), module)
    inputs = _batch_of_two(example_inputs, input_names)
    with _evaluating(module), torch.no_grad():
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=_dynamic_shapes(input_names))
        except Exception as error:  # torch raises whatever tracing meets
            raise ExportError(
                f"{path}: the module cannot be exported with an open number of users "
                f"(forward must use tensor.shape[0], never len(tensor)): {error}"
            ) from error
        with _replacing(path) as beside:
            torch.export.save(program, beside)
            written = load_program(beside)
            for users in (1, 3):
                rows = tuple(torch.cat([tensor, tensor])[:users] for tensor in inputs)
                for found, expected in zip(_tensors(written(*rows)), _tensors(module(*rows)), strict=True):
                    _compare(path, found, expected, tolerance=1e-6)
    return features.tower_fingerprint(path)


def load_program(path: Path) -> nn.Module:
    """Read an exported program as a module: tensors in the order of export → what its module gave."""
    try:
        return torch.export.load(path).module()
    except Exception as error:  # torch raises whatever its deserializer meets
        raise ExportError(f"{path}: not an exported program ({error})") from error


def export_onnx(module: nn.Module, example_inputs: Sequence[torch.Tensor], path: Path, fingerprint: str = "") -> None:
    """Write `module` as ONNX (opset 18) with the tensor names of serendipity.features and an open batch dimension.

    example_inputs: as for export_program. fingerprint: of the exported program from the same training, kept in the
    file's metadata, so that placing it on Triton can tell that both belong together. Raises DivergedError for weights
    that are not finite.
    """
    require_finite_weights(str(path), module)
    inputs = _batch_of_two(example_inputs, features.INPUT_NAMES)
    with _evaluating(module), torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(features.INPUT_NAMES),
            input_names=list(features.INPUT_NAMES),
            output_names=[features.OUTPUT_NAME],
            opset_version=_OPSET,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{path}: torch.onnx.export returned no program")
    proto = program.model_proto
    if fingerprint:
        proto.metadata_props.add(key=features.ONNX_FINGERPRINT, value=fingerprint)
    with _replacing(path) as beside:
        onnx.save(proto, str(beside))


def check_onnx(module: nn.Module, example_inputs: Sequence[torch.Tensor], path: Path, tolerance: float = 1e-4) -> float:
    """Compare ONNX Runtime's answers with the module's at batch sizes 1, 2 and 5; return the largest difference.

    Raises ExportError when it exceeds `tolerance` (of the largest component, or of 1), or when names or shapes differ.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = tuple(entry.name for entry in session.get_inputs())
    if names != features.INPUT_NAMES:
        raise ExportError(f"{path}: inputs: found {', '.join(names)}, expected {', '.join(features.INPUT_NAMES)}")
    inputs = _batch_of_two(example_inputs, features.INPUT_NAMES)
    difference = 0.0
    with _evaluating(module), torch.no_grad():
        for users in (1, 2, 5):
            rows = [torch.cat([tensor] * 3)[:users] for tensor in inputs]
            feed = {n: r.numpy() for n, r in zip(names, rows, strict=True)}
            (found,) = session.run([features.OUTPUT_NAME], feed)
            difference = max(difference, _compare(path, torch.from_numpy(np.asarray(found)), module(*rows), tolerance))
    return difference


def _compare(path: Path, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> float:
    if found.shape != expected.shape:
        raise ExportError(f"{path}: output shape: found {list(found.shape)}, expected {list(expected.shape)}")
    # Relative to the size of the vectors: float32 keeps 7 digits, and trained vectors are far longer than 1.
    difference = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    if not difference <= tolerance:  # also when it is not a number
        raise ExportError(f"{path}: differs from the module by {difference:g}, expected at most {tolerance:g}")
    return difference


def _tensors(output: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def _batch_of_two(example_inputs: Sequence[torch.Tensor], names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Two users or more: torch.export takes a dimension of size 1 for a constant."""
    if len(example_inputs) != len(names):
        raise ExportError(
            f"example_inputs: found {len(example_inputs)} tensors, expected {len(names)}: {', '.join(names)}"
        )
    inputs = tuple(tensor.detach().cpu() for tensor in example_inputs)
    return inputs if len(inputs[0]) > 1 else tuple(torch.cat([tensor, tensor]) for tensor in inputs)


def _dynamic_shapes(names: Sequence[str]) -> tuple[dict[int, torch.export.Dim], ...]:
    batch = torch.export.Dim("batch", min=1, max=65536)
    interests = torch.export.Dim("interests", min=1, max=1024)
    return tuple({0: batch, 1: interests} if name == "interests" else {0: batch} for name in names)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a file to write beside, and move it into place when nothing was raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # torch.export.save looks at the ending, and writes the name into the file: the same in every process.
    beside = path.with_name(f".{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's deprecations of its own internals out of a build's output."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
