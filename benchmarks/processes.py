"""What processes cost, as the kernel counts it: CPU time of trees of them, private memory, how busy the machine is."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_SCHEDULED = 2
"""CPUCLOCK_SCHED of Linux: the clock of all CPU time of a process."""


@dataclass(frozen=True)
class ProcessTree:
    """A process and those below it, as they were when they were looked for. pids: the process itself first."""

    pids: tuple[int, ...]

    @classmethod
    def of(cls, pid: int) -> ProcessTree:
        """Find a process and all below it."""
        children: defaultdict[int, list[int]] = defaultdict(list)
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                try:
                    # After the name, which stands in parentheses: state, parent.
                    parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                children[parent].append(int(path.name))
        pids = [pid]
        for found in pids:
            pids += sorted(children[found])
        return cls(tuple(pids))

    def cpu_seconds(self) -> float:
        """CPU time of all of them so far, user and system, seconds; to the nanosecond, where /proc counts in 10 ms.

        Raises ProcessLookupError when one of them has ended.
        """
        try:
            return sum(time.clock_gettime(~pid << 3 | _SCHEDULED) for pid in self.pids)
        except OSError as error:
            raise ProcessLookupError(f"one of the processes {self.pids} has ended") from error


@dataclass(frozen=True)
class Running:
    """A server that runs. address: host:port where it answers; processes: its own; admin_address: of its admin service
    (of Triton, gRPC)."""

    address: str
    processes: ProcessTree
    admin_address: str = ""


def private_bytes(pid: int) -> int:
    """Memory that belongs to one process alone, bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def busy_seconds() -> float:
    """CPU time of everything on this machine so far, seconds, what other machines took from it included."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
