"""A measurement as a file: every number of every round beside the ratios made of them, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import Block, blocks_of, phases_of
from benchmarks.ratios import METRICS, P99, Ratio, p99
from serendipity.layout import write_atomically

KIND = "serendipity channel benchmark"
"""What a report says it is."""
_VERSION = 1


class NoReport(Exception):
    """A file is not a report: names it and says why."""


@dataclass(frozen=True)
class Agreement:
    """Share of the candidates of one system's answers that another's hold too, over users: mean and least."""

    systems: str
    users: int
    mean: float
    least: float

    @classmethod
    def of(cls, systems: str, ours: Mapping[str, Set[str]], others: Mapping[str, Set[str]]) -> Agreement:
        """Compare answers, user → item ids, of the users that both were asked for."""
        both = sorted(ours.keys() & others.keys())
        shares = [len(ours[user] & others[user]) / max(1, len(ours[user])) for user in both]
        return cls(systems, len(both), float(np.mean(shares)), min(shares))


@dataclass(frozen=True)
class Number:
    """One number that is no ratio. values: as often as it was measured."""

    name: str
    values: Sequence[float]
    unit: str


@dataclass(frozen=True)
class Report:
    """A measurement. title: of its page; facts: what was measured, where and how, in words, by name."""

    title: str
    facts: Mapping[str, str]
    blocks: Sequence[Block]
    ratios: Sequence[Ratio]
    agreements: Sequence[Agreement] = ()
    numbers: Sequence[Number] = ()

    @property
    def other_share(self) -> float:
        """Part of the machine's cores that others used meanwhile, mean over blocks."""
        return float(np.mean([block.other_share for block in self.blocks])) if self.blocks else 0.0

    def to_json(self) -> str:
        """Write all of it as JSON, a line per block and ratio."""
        entries = {"kind": KIND, "version": _VERSION, "other_share": self.other_share, **asdict(self)}
        fields = [f"{json.dumps(name)}: {_lines(value)}" for name, value in entries.items()]
        return "{\n" + ",\n".join(fields) + "\n}\n"

    def write(self, page: Path) -> None:
        """Write the page, and the JSON beside it under the same name."""
        write_atomically(page, self.to_markdown().encode())
        write_atomically(page.with_suffix(".json"), self.to_json().encode())

    def to_markdown(self) -> str:
        """Lay the page out."""
        lines = [f"# {self.title}", "", *(f"* {name}: {value}" for name, value in self.facts.items()), ""]
        for phase, systems in phases_of(self.blocks):
            lines += _phase(phase, [blocks_of(self.blocks, phase, system) for system in systems])
            lines += _ratios(phase, self.ratios)
        if self.agreements:
            lines += ["## The same candidates", "", "| | users | mean | least |", "|---|---|---|---|"]
            lines += [f"| {a.systems} | {a.users:,} | {a.mean:.3f} | {a.least:.2f} |" for a in self.agreements]
            lines += [""]
        if self.numbers:
            lines += ["## Besides", "", "| | median | least | most | times |", "|---|---|---|---|---|"]
            lines += [
                f"| {n.name} | {np.median(n.values):.2f} {n.unit} | {min(n.values):.2f} | {max(n.values):.2f} "
                f"| {len(n.values)} |"
                for n in self.numbers
            ]
            lines += [""]
        return "\n".join(lines)


def read_ratios(path: Path) -> tuple[list[Ratio], float]:
    """Read the ratios of a report's JSON, and the part of the cores that others used meanwhile. Raises NoReport."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if found["kind"] != KIND or found["version"] != _VERSION:
            raise NoReport(f"{path}: found {found['kind']}, version {found['version']}; expected {KIND}, {_VERSION}")
        return [Ratio(**ratio) for ratio in found["ratios"]], float(found["other_share"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise NoReport(f"{path}: cannot be read ({error}); expected the JSON of a report") from error
    except (KeyError, TypeError, ValueError) as error:
        raise NoReport(f"{path}: not the JSON of a report ({type(error).__name__}: {error})") from error


def _lines(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or not value:
        return json.dumps(value, ensure_ascii=False)
    return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]"


def _phase(phase: str, systems: Sequence[Sequence[Block]]) -> list[str]:
    lines = [
        f"## {phase[0].upper()}{phase[1:]}",
        "",
        "| | requests | requests/s | p50 ms a call | p99 | server CPU ms a request | Triton CPU | used by others |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for blocks in systems:
        users, seconds = sum(b.users for b in blocks), sum(b.seconds for b in blocks)
        server, triton = sum(b.server_cpu for b in blocks), sum(b.triton_cpu for b in blocks)
        milliseconds = np.concatenate([b.milliseconds for b in blocks])
        lines.append(
            f"| {blocks[0].system} | {users:,} | {users / seconds:.0f} | {np.median(milliseconds):.2f} "
            f"| {p99(blocks):.2f} | {server / users * 1e3:.2f} | {triton / users * 1e3:.2f} "
            f"| {np.mean([b.other_share for b in blocks]):.0%} |"
        )
    return [*lines, ""]


def _ratios(phase: str, ratios: Sequence[Ratio]) -> list[str]:
    by_systems: dict[str, dict[str, Ratio]] = {}
    for ratio in ratios:
        of_phase, _, rest = ratio.name.rpartition(": ")
        if of_phase == phase:
            metric, _, systems = rest.partition(", ")
            by_systems.setdefault(systems, {})[metric] = ratio
    if not by_systems:
        return []
    names = [*(metric.name for metric in METRICS), P99]
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for systems, found in by_systems.items():
        cells = [
            f"{found[n].value:.2f} ({found[n].low:.2f} to {found[n].high:.2f})" if n in found else "" for n in names
        ]
        lines.append(f"| {systems} | {' | '.join(cells)} |")
    return [*lines, ""]
