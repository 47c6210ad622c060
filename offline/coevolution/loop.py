"""The closed loop: cycle after cycle from two tuned LLMs, resumable at any of them (arXiv 2508.00450, section 4.3).

<directory>/cycle_0001/  novelty/ relevance/   the LLMs after the cycle, kept of the latest cycle alone
A cycle is made beside, as .cycle_0001, and moved into place when it is whole.
"""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.cycle import Llms, Stage, run_cycle
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.snapshot.stores import sync_file
from serendipity.offline.tuning.base_model import BaseModelError
from serendipity.offline.tuning.training import cut_short

_PREFIX = "cycle_"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loop:
    """What all cycles are run on. first: cycle that the LLMs they start from were made by."""

    records: InteractionRecords
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
        on_cycle: Callable[[Llms, int], None] = lambda _llms, _cycle: None,
        stage: Stage = lambda _cycle, _name: None,
    ) -> Llms:
        """Run cycles first + 1 … first + cycles and return the LLMs after the last.

        directory: where the latest cycle is kept; a run that was killed goes on behind the last whole one, with the
        same result; one whose files are not there to their end is passed over, and a run that went further than is
        asked for begins anew. It must be of the same start, records and configuration: that is the caller's to tell.
        None: nothing is kept. on_cycle: called after each cycle that is run, with its number.
        """
        llms, done = self._resumed(start, cycles, directory)
        with _older_objects_kept():
            for cycle in range(done + 1, self.first + cycles + 1):
                llms = run_cycle(
                    llms, self.records, self.renderer, self.config, cycle, exposures=self.exposures, stage=stage
                )
                if directory is not None:
                    stage(cycle, "writing")
                    _keep(directory, llms, cycle, lambda cycle=cycle: stage(cycle, "placing"))  # type: ignore[misc]
                on_cycle(llms, cycle)
        return llms

    def _resumed(self, start: Llms, cycles: int, directory: Path | None) -> tuple[Llms, int]:
        """Give the LLMs of the latest cycle that is kept, and its number."""
        for place in sorted(directory.glob(f"{_PREFIX}*"), reverse=True) if directory else ():
            cycle = int(place.name.removeprefix(_PREFIX))
            if cycle > self.first + cycles:
                # Of earlier cycles the LLMs are gone.
                shutil.rmtree(place)
                break
            try:
                if (problem := cut_short(place)) is None:
                    return Llms.read(place, self.config, start.novelty.base.name), cycle
            except BaseModelError as error:
                problem = str(error)
            logger.warning("%s: incomplete (%s), passed over", place, problem)
            shutil.rmtree(place)
        return start, self.first


@contextmanager
def _older_objects_kept() -> Iterator[None]:
    """Spare garbage collections what was there before: accelerate collects several times a cycle, and going through
    all that the libraries made took a quarter of it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _keep(directory: Path, llms: Llms, cycle: int, placing: Callable[[], None]) -> None:
    place = directory / f"{_PREFIX}{cycle:04}"
    beside = directory / f".{place.name}"
    shutil.rmtree(beside, ignore_errors=True)
    llms.save(beside)
    placing()
    # On disk before it has its name, or a power cut would leave the name without all of what is in it.
    for path in (*beside.rglob("*"), beside):
        sync_file(path)
    beside.rename(place)
    sync_file(directory)
    for older in directory.glob(f"{_PREFIX}*"):
        if older != place:
            shutil.rmtree(older)
