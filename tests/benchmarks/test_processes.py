"""What the kernel says of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.processes import ProcessTree, busy_seconds, private_bytes

SPIN = """
import time
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
print("done", flush=True)
input()
"""


def test_the_cpu_time_of_a_process_and_its_children_is_counted() -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        tree = ProcessTree.of(process.pid)
        assert len(tree.pids) == 2
        assert 0.2 <= tree.cpu_seconds() < 5
        assert ProcessTree((process.pid,)).cpu_seconds() < tree.cpu_seconds()
        process.communicate("\n")
    with pytest.raises(ProcessLookupError):
        tree.cpu_seconds()


def test_one_s_own_clock_is_the_same_clock() -> None:
    own = ProcessTree((os.getpid(),))
    assert own.cpu_seconds() == pytest.approx(time.process_time(), abs=0.1)


def test_a_process_has_memory_and_a_machine_is_busy() -> None:
    before = private_bytes(os.getpid())
    held = bytearray(os.urandom(1 << 25))
    assert private_bytes(os.getpid()) - before > 3 << 23
    assert len(held) == 1 << 25
    assert busy_seconds() > 0
