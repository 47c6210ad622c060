"""Blocks of calls as if they had been measured."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.load import Block


def blocks(system: str, milliseconds: Sequence[float], *, phase: str = "1 caller", calls: int = 10) -> list[Block]:
    """A round for each of some latencies: all its calls take as long, and half of that is CPU of the server."""
    return [
        Block(
            phase=phase,
            round=number,
            system=system,
            callers=1,
            users=10,
            seconds=calls * value / 1e3,
            milliseconds=[value] * calls,
            server_cpu=calls * value / 2e3,
            triton_cpu=0.01,
            other_share=0.25,
        )
        for number, value in enumerate(milliseconds)
    ]
