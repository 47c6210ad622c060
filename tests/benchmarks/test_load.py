"""Blocks that take turns."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from benchmarks.load import blocks_of, interleave, phases_of, rounds_of
from benchmarks.processes import ProcessTree


class Recorded:
    """A system that says when it was asked."""

    def __init__(self, name: str, log: list[tuple[str, list[str]]]) -> None:
        self.name = name
        self.server = ProcessTree((os.getpid(),))
        self._log = log

    async def ask(self, users: Sequence[str], callers: int) -> list[float]:
        self._log.append((self.name, list(users)))
        await asyncio.sleep(0)
        return [float(callers)] * len(users)


def test_users_are_asked_once_each_before_any_is_asked_again() -> None:
    assert rounds_of(["a", "b", "c"], 7, 2) == [["a", "b"], ["c", "a"], ["b", "c"], ["a"]]


async def test_every_system_is_asked_for_the_same_users_and_the_order_rotates() -> None:
    log: list[tuple[str, list[str]]] = []
    systems = [Recorded(name, log) for name in "ABC"]
    measured = await interleave(
        "3 callers", systems, [["a"], ["b"], ["c"], ["d"]], callers=3, triton=ProcessTree((os.getpid(),))
    )
    assert "".join(name for name, _ in log) == "ABCBCACABABC"
    assert [users for name, users in log if name == "B"] == [["a"], ["b"], ["c"], ["d"]]
    assert list(phases_of(measured)) == [("3 callers", ["A", "B", "C"])]
    mine = blocks_of(measured, "3 callers", "C")
    assert [block.round for block in mine] == [0, 1, 2, 3]
    assert all(block.milliseconds == [3.0] and block.callers == 3 and block.seconds > 0 for block in mine)
