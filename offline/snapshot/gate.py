"""The quality gate: a snapshot is published only if its canary stays within bounds of the one being served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from serendipity import layout
from serendipity.offline.configuration import Configuration
from serendipity.offline.snapshot.canary import DECILES, Canary

_LEAST_SCORE = 1e-9


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
    """One bound: what was found, not a number where nothing was measured, and between what it was expected."""

    name: str
    found: float
    least: float = -math.inf
    most: float = math.inf

    @property
    def holds(self) -> bool:
        """True if it is within the bounds."""
        return self.least <= self.found <= self.most

    def __str__(self) -> str:
        bounds = (("at least", self.least), ("at most", self.most))
        expected = " and ".join(f"{word} {bound:.4g}" for word, bound in bounds if math.isfinite(bound))
        return f"{self.name}: found {self.found:.4g}, expected {expected}"


class GateRefusedError(Exception):
    """A snapshot may not be published. findings: every bound, in order, also those that hold."""

    def __init__(self, message: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(message)
        self.findings = findings


def judge(new: Canary, current: Canary | None, config: GateConfig | None = None) -> tuple[Finding, ...]:
    """Hold a new snapshot's canary against the bounds; without a current one only against the absolute ones."""
    config = config or GateConfig()
    recall = math.nan if new.novel_recall is None else new.novel_recall
    findings = [
        Finding("canary users", new.users, least=1),
        Finding("novelty violations", new.violations, most=0),
        Finding("fill", new.fill, least=config.min_fill),
        Finding("coverage", new.coverage, least=config.min_coverage),
        Finding("share of empty answers", new.empty / max(1, new.users), most=config.max_empty),
        Finding("share of degraded answers", new.degraded / max(1, new.users), most=config.max_degraded),
    ]
    if new.novel_recall is not None:
        findings.append(Finding("novel recall", recall, least=config.min_novel_recall))
    if current is None:
        return tuple(findings)
    for name, found, before, drop in (
        ("fill", new.fill, current.fill, config.max_fill_drop),
        ("coverage", new.coverage, current.coverage, config.max_coverage_drop),
        ("novel recall", recall, current.novel_recall, config.max_novel_recall_drop),
    ):
        if before is not None:
            findings.append(Finding(f"{name} against current", found, least=before * (1 - drop)))
    for percentile, *scores in zip(DECILES, new.score_deciles, current.score_deciles, strict=False):
        found, before = (max(score, _LEAST_SCORE) for score in scores)
        factor = config.max_score_factor
        findings.append(Finding(f"score p{percentile} against current", found, before / factor, before * factor))
    return tuple(findings)


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
