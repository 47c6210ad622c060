"""The user tower in Triton's Python backend: runs the exported tower beside it, one forward pass per batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exported_program import ExportedProgram  # type: ignore[import-not-found]  # beside this file


class TritonPythonModel:
    """One instance of the tower; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the exported tower. Raises TritonModelException naming what was found and what was expected."""
        # On a GPU the exported program is placed beside this file, on a CPU the same as ONNX.
        self._tower = ExportedProgram(
            args, "user_tower.pt2" if args["model_instance_kind"] == "GPU" else "user_tower.onnx"
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that does not fit gets an error of its own."""
        return list(self._tower.execute(requests))
