"""The closed loop: cycle after cycle from two tuned LLMs, resumable at any of them (arXiv 2508.00450, section 4.3).

<directory>/cycle_0001/  novelty/ relevance/   the LLMs after the cycle, kept of the latest cycle alone
                         report.json           CycleReport
A cycle is made beside, as .cycle_0001, and moved into place when it is whole.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from serendipity.groups.model import NOVELTY, RELEVANCE
from serendipity.layout import write_atomically
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.curves import Judge, Panel, PanelMeasures, measure
from serendipity.offline.coevolution.cycle import CycleTraining, Llms, Stage, run_cycle
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.coevolution.relevance import RelevanceLlm

REPORT = "report.json"
_PREFIX = "cycle_"

_Llm = TypeVar("_Llm", NoveltyLlm, RelevanceLlm)


@dataclass(frozen=True)
class CycleReport:
    """What became of a cycle. training: none for cycle 0, the LLMs as they were before; seconds: its measures'
    included."""

    cycle: int
    training: CycleTraining | None
    measures: PanelMeasures
    seconds: float


@dataclass(frozen=True)
class Loop:
    """What all cycles are run on. judge: scores the proposals of all of them; first: cycle that `start` was made by."""

    records: InteractionRecords
    panel: Panel
    judge: Judge
    renderer: Renderer
    config: CoevolutionConfig
    exposures: Exposures | None = None
    first: int = 0

    def run(
        self,
        start: Llms,
        cycles: int,
        directory: Path | None = None,
        *,
        on_cycle: Callable[[Llms, CycleReport], None] = lambda _llms, _report: None,
        stage: Stage = lambda _cycle, _name: None,
    ) -> tuple[Llms, list[CycleReport]]:
        """Run cycles first + 1 … first + cycles and return the LLMs after the last, with a report each and one of the
        start.

        directory: where cycles are kept; a run that was killed goes on behind the last whole one, with the same result,
        and one that went further than is asked for begins anew. It must be of the same start, records and
        configuration: that is the caller's to tell. None: nothing is kept. on_cycle: called after each cycle that is
        run, the start included.
        """
        llms, reports = self._resumed(start, cycles, directory)
        if not reports:
            reports.append(self._report(llms, self.first, None, time.monotonic()))
            on_cycle(llms, reports[0])
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
                _write_report(directory / REPORT, reports[0])
        with _older_objects_kept():
            for cycle in range(reports[-1].cycle + 1, self.first + cycles + 1):
                began = time.monotonic()
                llms, training = run_cycle(
                    llms, self.records, self.renderer, self.config, cycle, exposures=self.exposures, stage=stage
                )
                stage(cycle, "measures")
                reports.append(self._report(llms, cycle, training, began))
                if directory is not None:
                    stage(cycle, "writing")
                    _keep(directory, llms, reports[-1], lambda cycle=cycle: stage(cycle, "placing"))  # type: ignore[misc]
                on_cycle(llms, reports[-1])
        return llms, reports

    def _report(self, llms: Llms, cycle: int, training: CycleTraining | None, began: float) -> CycleReport:
        found = measure(
            self.panel,
            llms.novelty,
            llms.relevance,
            self.judge,
            self.renderer,
            self.config.num_candidates,
            self.config.pco.panel.top,
        )
        return CycleReport(cycle, training, found, time.monotonic() - began)

    def _resumed(self, start: Llms, cycles: int, directory: Path | None) -> tuple[Llms, list[CycleReport]]:
        if directory is None or not (directory / REPORT).is_file():
            return start, []
        reports = [_read_report(directory / REPORT)]
        places = sorted(directory.glob(f"{_PREFIX}*"))
        if len(places) > cycles:
            # Of earlier cycles the LLMs are gone.
            shutil.rmtree(directory)
            return start, []
        if not places:
            return start, reports
        reports += [_read_report(place / REPORT) for place in places]
        style, threads = self.config.style, self.config.threads
        latest = places[-1]
        novelty = NoveltyLlm.read(latest / NOVELTY, style, threads)
        relevance = RelevanceLlm.read(latest / RELEVANCE, style, threads)
        name = start.novelty.base.name
        return Llms(with_base_name(novelty, name), with_base_name(relevance, name)), reports


@contextmanager
def _older_objects_kept() -> Iterator[None]:
    """Spare garbage collections what was there before: accelerate collects several times a cycle, and going through
    all that the libraries made took a quarter of it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _keep(directory: Path, llms: Llms, report: CycleReport, placing: Callable[[], None]) -> None:
    place = directory / f"{_PREFIX}{report.cycle:04}"
    beside = directory / f".{place.name}"
    shutil.rmtree(beside, ignore_errors=True)
    llms.novelty.save(beside / NOVELTY)
    llms.relevance.save(beside / RELEVANCE)
    _write_report(beside / REPORT, report)
    placing()
    beside.rename(place)
    for older in directory.glob(f"{_PREFIX}*"):
        if older != place:
            shutil.rmtree(older / NOVELTY, ignore_errors=True)
            shutil.rmtree(older / RELEVANCE, ignore_errors=True)


def _write_report(path: Path, report: CycleReport) -> None:
    write_atomically(path, json.dumps(asdict(report), indent=2).encode())


def _read_report(path: Path) -> CycleReport:
    return TypeAdapter(CycleReport).validate_json(path.read_bytes())


def with_base_name(llm: _Llm, name: str) -> _Llm:
    """Give LLMs that were read the name of their base: it tells how they are tuned."""
    return replace(llm, base=replace(llm.base, name=name))
