"""The Relevance LLM is tuned on drawn and on exposed negatives, and judged by what was shown later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.exposures.kept import Kept
from benchmarks.exposures.log import ExposureLog
from benchmarks.exposures.metrics import Resamples
from benchmarks.exposures.relevance import CLICK_RATE, DRAWN, DRAWN_SAME, EXPOSED, Arm, compare
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from tests.fixtures.small_coevolution import CUT, LLMS


def exposures_of(histories: Histories, num_categories: int) -> ExposureLog:
    """Every click as an exposure, and of the same second one of another category that was not clicked."""
    known = histories.categories > 0
    users, times = (np.repeat(of[known].astype(np.int64), 2) for of in (histories.users, histories.times))
    clicked = np.tile([True, False], int(known.sum()))
    categories = np.repeat(histories.categories[known], 2)
    categories[~clicked] = categories[~clicked] % num_categories + 1
    zeros = np.zeros(len(users), np.int64)
    return ExposureLog(
        users, zeros, times, clicked, zeros > 0, zeros.astype(np.float64), zeros, categories, categories, zeros == 0
    )


@pytest.fixture(scope="module")
def arms(small_coevolution: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[Arm]]:
    """What two runs come to, the second of which reads what the first left."""
    before, after = (Histories.read(small_coevolution / name) for name in ("logs", "today"))
    catalogue, kept = Catalogue.read(small_coevolution / "logs"), Kept(tmp_path_factory.mktemp("kept"))
    shown = exposures_of(before, len(catalogue.categories))
    offsets = np.searchsorted(shown.users, np.arange(len(before) + 1)).astype(np.int64)
    exposures = Exposures(offsets, shown.categories, shown.times)
    log = exposures_of(after, len(catalogue.categories))
    later = {"later": log.take(log.times >= CUT)}
    runs = []
    for _ in range(2):
        resamples = Resamples(len(after), seed=0, samples=20)
        logs = (before, catalogue, exposures)
        groups = small_coevolution / "groups"
        runs.append(compare(kept, groups, LLMS, logs, after, later, log.take(log.times < CUT), resamples))
    assert len(list(kept.directory.iterdir())) == 3
    return runs


def test_every_arm_is_judged_by_the_same_exposures(arms: list[list[Arm]]) -> None:
    assert [arm.name for arm in arms[0]] == [DRAWN, DRAWN_SAME, EXPOSED, CLICK_RATE]
    judged = [arm.judged["later"] for arm in arms[0]]
    assert all(0 <= each.auc.value <= 1 for each in judged)
    told = [each.reliability for each in judged[:3]]
    assert len({each.base_rate for each in told if each is not None}) == 1
    assert judged[-1].reliability is None


def test_only_what_was_exposed_is_said_to_be(arms: list[list[Arm]]) -> None:
    drawn, same, exposed, _ = arms[0]
    assert (drawn.exposed, same.exposed) == (0, 0)
    assert exposed.exposed > 0.5
    assert 0 < same.examples <= exposed.examples


def test_a_second_run_reads_what_the_first_left(arms: list[list[Arm]]) -> None:
    for one, other in zip(*arms, strict=True):
        assert one.judged["later"].auc.value == other.judged["later"].auc.value
