"""The group encoder in Triton's Python backend: long-term histories in, CSIDs and groups out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exported_program import ExportedProgram  # type: ignore[import-not-found]  # placed beside this file


class TritonPythonModel:
    """One instance of the encoder; Triton calls initialize once and execute with the requests of one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the exported encoder. Raises TritonModelException naming what was found and what was expected."""
        self._encoder = ExportedProgram(args, "group_encoder.pt2")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in order; a request that does not fit gets an error of its own."""
        return list(self._encoder.execute(requests))
