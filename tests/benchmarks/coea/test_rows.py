from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.coea import CYCLES, WITHOUT_LONG
from benchmarks.coea.metrics import ranked
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.rows import Known, Row, relevance, rows
from tests.benchmarks.coea.worlds import catalogue, histories


@pytest.fixture
def known() -> Known:
    """The first user's candidates are A, clicked before, and D and F, which were never clicked."""
    clicks = [[1, 1, 2, 3, 5, 4, 4], [2, 1, 2, 1, 4, 4, 5, 5]]
    split = CategorySplit.leave_last_out(histories(clicks), catalogue(6))
    assert split.validation.recent[0] == (5, 3, 2)
    one = np.array([[0.5, 0.1, 0.1, 0.2, 0.05, 0.05]] * 2, np.float32)
    scores = {name: np.log(one) for name in ("popularity", "GRU4Rec", "category ranker")}
    for cycles in CYCLES:
        for variant in ("", WITHOUT_LONG):
            scores[f"alignment{cycles}{variant}"] = np.log(one[:, ::-1])
            scores[f"novelty{cycles}{variant}"] = np.log(np.array([[0.1, 0.1, 0.1, 0.1, 0.1, 0.5]] * 2, np.float32))
    return Known(split.validation, scores)


def row(name: str) -> Row:
    return next(one for one in rows() if one.name == name)


def test_shares_are_of_the_candidates_and_what_nobody_scored_is_unlikely(known: Known) -> None:
    share = np.exp(known.share("GRU4Rec")[0])
    assert share[[0, 3, 5]] == pytest.approx([0.5 / 0.75, 0.2 / 0.75, 0.05 / 0.75])
    known.scores["GRU4Rec"][0, 0] = -np.inf  # type: ignore[index]
    assert np.exp(Known(known.episodes, known.scores).share("GRU4Rec")[0, 0]) < 1e-4


def test_the_trigger_raises_what_was_never_clicked(known: Known) -> None:
    control = row("Category ranker + bonus")
    plain, raised = (control.scores(known, {"bonus": bonus})[0] for bonus in (0.0, 2.0))

    assert plain == pytest.approx(relevance(known, "Category ranker")[0])
    assert (raised - plain).tolist() == pytest.approx((2.0 * ~known.episodes.clicked[0]).tolist())
    assert ranked(control.scores(known, {"bonus": 2.0}), known.episodes, 1)[0, 0] == 3


def test_without_weights_the_composed_list_is_the_base_with_the_trigger(known: Known) -> None:
    setting = {"cycles": 0, "alignment": 0.0, "novelty": 0.0, "bonus": 1.0}

    composed = row("CoEA composed").scores(known, setting)

    assert composed == pytest.approx(row("Category ranker + bonus").scores(known, setting))


def test_the_group_s_list_says_which_new_categories_are_worth_it(known: Known) -> None:
    setting = {"cycles": 0, "alignment": 0.0, "novelty": 1.0, "bonus": 2.0}

    first = ranked(row("CoEA composed").scores(known, setting), known.episodes, 3)[0].tolist()

    # Of the new ones D is the likelier by the ranker, F by the Novelty LLM.
    assert first == [5, 3, 0]


def test_a_kept_first_place_has_any_novelty(known: Known) -> None:
    trick = ranked(row("GRU4Rec, then new ones").scores(known, {}), known.episodes, 3)
    assert trick[0].tolist() == [0, 3, 5]


def test_every_row_scores_every_category_with_each_of_its_settings(known: Known) -> None:
    for one in rows():
        for setting in one.settings[:2]:
            assert one.scores(known, setting).shape == known.episodes.targets.shape
        assert len(one.along_the_trigger(one.settings[0])) == (12 if "bonus" in one.settings[0] else 0)
