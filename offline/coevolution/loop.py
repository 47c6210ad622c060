"""The closed loop: cycle after cycle from two tuned LLMs (arXiv 2508.00450, section 4.3)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.cycle import Llms, Stage, run_cycle
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.records import InteractionRecords


@dataclass(frozen=True)
class Loop:
    """What all cycles are run on. first: cycle that the LLMs they start from were made by."""

    records: InteractionRecords
    renderer: Renderer
    config: CoevolutionConfig
    exposures: Exposures | None = None
    first: int = 0

    def run(self, start: Llms, cycles: int, *, stage: Stage = lambda _cycle, _name: None) -> Llms:
        """Run cycles first + 1 … first + cycles and return the LLMs after the last."""
        llms = start
        with _older_objects_kept():
            for cycle in range(self.first + 1, self.first + cycles + 1):
                llms = run_cycle(
                    llms, self.records, self.renderer, self.config, cycle, exposures=self.exposures, stage=stage
                )
        return llms


@contextmanager
def _older_objects_kept() -> Iterator[None]:
    """Spare garbage collections what was there before: accelerate collects several times a cycle, and going through
    all that the libraries made took a quarter of it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
