"""The quality gate: a snapshot is published only if its canary stays within bounds of the one being served."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from serendipity import layout
from serendipity.offline.configuration import Configuration
from serendipity.offline.snapshot.canary import DECILES, Canary


class GateConfig(Configuration):
    """Bounds of the quality gate. Drops are shares of the current snapshot's value."""

    min_fill: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least fill, whatever the current snapshot's."""
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.002
    """Least coverage of the available items by all of the canary's answers together."""
    min_novel_recall: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least novel recall on held-out time."""
    max_empty: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest share of users who get nothing."""
    max_degraded: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Largest share of degraded answers."""
    max_fill_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest drop of fill."""
    max_coverage_drop: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Largest drop of coverage."""
    max_novel_recall_drop: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Largest drop of novel recall."""
    max_score_factor: Annotated[float, Field(ge=1)] = 3.0
    """Largest factor by which any decile of the scores may rise or fall."""


@dataclass(frozen=True)
class Finding:
    """One bound: what was found, what was expected, and whether it holds."""

    name: str
    found: str
    expected: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.name}: found {self.found}, expected {self.expected}"


class GateRefusedError(Exception):
    """A snapshot may not be published. findings: every bound, in order, also those that hold."""

    def __init__(self, message: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(message)
        self.findings = findings


def judge(new: Canary, current: Canary | None, config: GateConfig | None = None) -> tuple[Finding, ...]:
    """Hold a new snapshot's canary against the bounds; without a current one only against the absolute ones."""
    config = config or GateConfig()
    return tuple(_absolute(new, config)) + (() if current is None else tuple(_relative(new, current, config)))


def pass_gate(new: Canary, current: Canary | None, config: GateConfig | None = None) -> tuple[Finding, ...]:
    """Return the findings if all bounds hold. Raises GateRefusedError, whose message lists those that do not."""
    findings = judge(new, current, config)
    broken = [finding for finding in findings if not finding.holds]
    if broken:
        against = "without a current snapshot" if current is None else "against the current snapshot"
        lines = "\n".join(f"  {finding}" for finding in broken)
        raise GateRefusedError(
            f"quality gate: {len(broken)} of {len(findings)} bounds broken ({against}):\n{lines}", findings
        )
    return findings


def record_canary(directory: Path, canary: Canary) -> None:
    """Write what was measured into a snapshot's manifest, before it is published.

    The manifest is outside its own checksums and its version, so the snapshot stays the same one.
    Raises ValueError when it is the wanted snapshot and holds another measurement: what is served is never edited.
    """
    manifest = layout.read_manifest(directory)
    quality = canary.to_quality()
    if dict(manifest.quality) == quality:
        return
    if (directory.parent / layout.CURRENT).resolve() == directory.resolve():
        raise ValueError(f"{directory / layout.MANIFEST}: quality: cannot be changed, the snapshot is being served")
    manifest.quality.clear()
    manifest.quality.update(quality)
    layout.write_manifest(directory, manifest)


def read_canary(directory: Path) -> Canary | None:
    """Read what was measured of a snapshot; None if nothing was."""
    return Canary.from_quality(layout.read_manifest(directory).quality)


def _absolute(new: Canary, config: GateConfig) -> Iterator[Finding]:
    yield Finding("canary users", f"{new.users}", "at least 1", new.users >= 1)
    yield Finding("novelty violations", f"{new.violations}", "0", new.violations == 0)
    yield _at_least("fill", new.fill, config.min_fill)
    yield _at_least("coverage", new.coverage, config.min_coverage)
    yield _at_most("share of empty answers", _share(new.empty, new.users), config.max_empty)
    yield _at_most("share of degraded answers", _share(new.degraded, new.users), config.max_degraded)
    if new.novel_recall is not None:
        yield _at_least("novel recall", new.novel_recall, config.min_novel_recall)


def _relative(new: Canary, current: Canary, config: GateConfig) -> Iterator[Finding]:
    yield _not_below("fill", new.fill, current.fill, config.max_fill_drop)
    yield _not_below("coverage", new.coverage, current.coverage, config.max_coverage_drop)
    if current.novel_recall is not None:
        if new.novel_recall is None:
            yield Finding(
                "novel recall", "not measured", f"a measurement, the current has {current.novel_recall:.4f}", False
            )
        else:
            yield _not_below("novel recall", new.novel_recall, current.novel_recall, config.max_novel_recall_drop)
    if len(new.score_deciles) == len(current.score_deciles):
        yield from _scores(new, current, config.max_score_factor)


def _scores(new: Canary, current: Canary, most: float) -> Iterator[Finding]:
    """Name the decile that moved the most."""
    moved = [
        (abs(math.log(max(found, 1e-9) / max(before, 1e-9))), percentile, found, before)
        for percentile, found, before in zip(DECILES, new.score_deciles, current.score_deciles, strict=False)
    ]
    if moved:
        distance, percentile, found, before = max(moved)
        yield Finding(
            f"score p{percentile}",
            f"{found:.6g} (factor {math.exp(distance):.2f})",
            f"within a factor of {most:g} of the current {before:.6g}",
            math.exp(distance) <= most,
        )


def _at_least(name: str, found: float, least: float) -> Finding:
    return Finding(name, f"{found:.4f}", f"at least {least:.4f}", found >= least)


def _at_most(name: str, found: float, most: float) -> Finding:
    return Finding(name, f"{found:.4f}", f"at most {most:.4f}", found <= most)


def _not_below(name: str, found: float, before: float, drop: float) -> Finding:
    least = before * (1.0 - drop)
    return Finding(
        f"{name} against current",
        f"{found:.4f}",
        f"at least {least:.4f} ({1 - drop:.0%} of {before:.4f})",
        found >= least,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
