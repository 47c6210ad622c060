"""The whole method in memory: both LLMs tuned, then correcting each other, ready to make lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.coevolution.coevolution import Coevolution, normalise_scores, tune_llms, validation_pairs
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.cycle import Llms
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.loop import Loop
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


class Groups(Protocol):
    """What is asked of a group model."""

    @property
    def profiles(self) -> Sequence[str]:
        """Textual profiles by group id."""

    def click_groups(self, histories: Histories) -> NDArray[np.int32]:
        """Tell the group of the user strictly before each click: [n clicks]."""


def coevolve(
    histories: Histories,
    catalogue: Catalogue,
    group_model: Groups,
    config: CoevolutionConfig,
    *,
    seed: int | None = None,
    with_profile: bool = True,
    with_recent: bool = True,
    start: Coevolution | None = None,
    click_groups: NDArray[np.int32] | None = None,
    on_cycle: Callable[[Coevolution], None] | None = None,
) -> Coevolution:
    """Tune both LLMs on histories, run config.pco.cycles cycles, and return what they came to; nothing is written.

    histories: every click may be learned from, but of validation users (by hash), who choose normalisation and
    threshold. seed: of everything, instead of the configuration's. with_profile, with_recent: False for the ablations.
    start: LLMs tuned before, of the same histories and seed; they are left as they were where all weights are tuned.
    click_groups: what the group model gives, where the caller has it. on_cycle: called after the tuning and after
    each cycle. Raises ValueError when the histories are too short to make examples.
    """
    if seed is not None:
        examples = config.examples.model_copy(update={"seed": seed})
        config = config.model_copy(update={"seed": seed, "examples": examples})
    groups = group_model.click_groups(histories) if click_groups is None else click_groups
    renderer = Renderer(group_model.profiles, catalogue.categories, config.style, with_profile, with_recent)
    held_out = validation_pairs(histories, groups, len(catalogue.categories), config)
    if start is None:
        start = tune_llms(histories, groups, renderer, held_out, config)
    records = InteractionRecords.of(histories, groups, config.examples)
    loop = Loop(records, renderer, config, first=start.generation)

    def after(llms: Llms, cycle: int) -> None:
        if on_cycle is not None:
            on_cycle(normalise_scores(llms, renderer, held_out, config, cycle))

    after(start.llms, start.generation)
    llms = loop.run(start.llms, config.pco.cycles, on_cycle=after)
    return normalise_scores(llms, renderer, held_out, config, start.generation + config.pco.cycles)
