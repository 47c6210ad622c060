from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.coea.coea import Coea, FittedCoea, by_place, methods
from benchmarks.coea.comparison import run_comparison
from benchmarks.coea.metrics import NO_COLUMN, ranked
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.registry import NAMES, find_methods
from benchmarks.coea.shared_trainings import SharedTrainings
from serendipity.offline.coevolution.config import PUBLISHED_TUNING, CoevolutionConfig, ExamplesConfig
from serendipity.offline.coevolution.pco_config import DpoConfig, PcoConfig
from serendipity.offline.groups.config import GroupsConfig, InterestConfig, QuantizerConfig
from serendipity.offline.tuning.config import TinyLmConfig, TuningConfig
from tests.benchmarks.coea.worlds import catalogue, cyclists
from tests.fixtures.tiny_language_model import make_tiny_language_model

TUNING = TuningConfig(batch_size=32, max_examples=96, learning_rate=3e-3, max_tokens=256)
LLMS = CoevolutionConfig(
    tiny=TinyLmConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, merges=20, max_positions=256),
    examples=ExamplesConfig(min_clicks=2, max_novelty=96, max_relevance=96),
    novelty=TUNING,
    relevance=TUNING,
    pco=PcoConfig(cycles=2, max_records=16),
)
GROUPS = GroupsConfig(
    interest=InterestConfig(dim=16, num_heads=2, window=8, epochs=1),
    quantizer=QuantizerConfig(codebook_size=4, num_quantizers=2, latent_dim=8, hidden_dim=16, epochs=2),
    num_groups=3,
)
COEA = Coea(groups=GROUPS, llms=LLMS, cycles=(0, 1, 2), breadths=(0.4, 0.8))
"""Rows made of it by `replace` share its trainings."""


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(), catalogue(8))


@pytest.fixture(scope="module")
def fitted(split: CategorySplit) -> FittedCoea:
    return COEA.fit(split, 1)


def test_lists_hold_candidates_alone_and_no_more_than_were_asked_for(split: CategorySplit, fitted: FittedCoea) -> None:
    scores = fitted.scores(split.test, {"cycles": 2, "breadth": 0.4, "threshold": 0})

    listed = np.isfinite(scores)
    assert (listed.sum(axis=1) == 2).all()
    assert not (listed & ~split.test.candidates).any()


def test_lists_are_those_that_would_be_served(split: CategorySplit, fitted: FittedCoea) -> None:
    coevolution = replace(fitted.by_cycles[1], num_candidates=4)
    groups = fitted.groups.assign(split.test.histories).group_id[split.test.users]

    lists = ranked(fitted.scores(split.test, {"cycles": 1, "breadth": 0.8, "threshold": 1}), split.test, 4)

    served = coevolution.lists(groups.tolist(), split.test.recent)
    names = split.catalogue.categories
    assert [[names[column] for column in row if column != NO_COLUMN] for row in lists.tolist()] == [
        [aligned.category for aligned in row] for row in served
    ]


def test_cycles_are_counted_on_and_each_leaves_the_earlier_llms_alone(split: CategorySplit, fitted: FittedCoea) -> None:
    at_once = replace(COEA, cycles=(2,)).fit(split, 1)
    setting = {"cycles": 2, "breadth": 0.8, "threshold": 0}

    assert {cycles: kept.generation for cycles, kept in fitted.by_cycles.items()} == {0: 0, 1: 1, 2: 2}
    assert (at_once.scores(split.test, setting) == fitted.scores(split.test, setting)).all()
    prompt = [fitted.by_cycles[0].renderer.novelty(0, (1, 2, 3))]
    before, after = (fitted.by_cycles[cycles].novelty.log_probabilities(prompt) for cycles in (0, 2))
    assert not np.allclose(before, after)


def test_without_the_relevance_llm_the_novelty_llm_s_own_order_is_the_list(split: CategorySplit) -> None:
    alone = replace(COEA, with_relevance=False)
    row = alone.fit(split, 1)

    assert alone.settings == ({},)
    assert list(row.by_cycles) == [0]
    start = row.by_cycles[0]
    group = int(row.groups.assign(split.test.histories).group_id[split.test.users[0]])
    expected = start.novelty.log_probabilities([start.renderer.novelty(group, split.test.recent[0])])[0]
    assert row.scores(split.test, {})[0] == pytest.approx(expected, abs=1e-5)


def test_ablations_are_not_told_what_they_are_without(split: CategorySplit) -> None:
    for row, same in (
        (replace(COEA, cycles=(0,), with_profile=False), ((0, (1, 2, 3)), (1, (1, 2, 3)))),
        (replace(COEA, cycles=(0,), with_recent=False), ((1, (1, 2, 3)), (1, (4, 5, 6)))),
    ):
        renderer = row.fit(split, 1).by_cycles[0].renderer
        assert len({renderer.novelty(*told) for told in same}) == 1
        assert len({renderer.relevance(*told, 7) for told in same}) == 1


def test_rows_of_a_seed_share_what_does_not_differ(split: CategorySplit) -> None:
    shared = SharedTrainings()
    groups = shared.groups(split, GROUPS, 1)
    pco = LLMS.pco.model_copy(update={"cycles": 7})

    def tuned(config: CoevolutionConfig, seed: int, profile: bool) -> object:
        return shared.tuned(split, groups, config, seed, with_profile=profile, with_recent=True)

    start = tuned(LLMS, 1, True)
    assert shared.groups(split, GROUPS, 1) is groups
    assert shared.groups(split, GROUPS, 2) is not groups
    assert tuned(LLMS.model_copy(update={"pco": pco}), 1, True) is start
    assert tuned(LLMS, 2, True) is not start
    assert tuned(LLMS, 1, False) is not start
    assert shared.groups(replace(split), GROUPS, 1) is not groups


def test_another_process_finds_what_this_one_does(split: CategorySplit, tmp_path: Path) -> None:
    rows = [replace(COEA, cycles=(0, 1)), replace(COEA, name="CoEA w/o R-LLM", with_relevance=False)]

    for directory, jobs in (("one", 1), ("two", 2)):
        run_comparison(split, rows, [1], tmp_path / directory, jobs)

    one, two = (run_comparison(split, rows, [1], tmp_path / directory) for directory in ("one", "two"))
    for alone, other in zip(one, two, strict=True):
        assert all((alone.answers[name] == other.answers[name]).all() for name in ("validation", "test"))


def test_the_row_without_divergence_differs_in_nothing_else() -> None:
    rows = {row.name: row for row in methods()}

    assert set(rows) <= set(NAMES)
    coea, without = rows["CoEA"].configuration, rows["CoEA w/o KL"].configuration
    assert coea["llms"]["pco"]["dpo"].pop("kl_weight") > 0  # type: ignore[index]
    assert without["llms"]["pco"]["dpo"].pop("kl_weight") == 0  # type: ignore[index]
    assert coea == without


def test_places_are_scored_in_order_and_what_is_not_listed_not_at_all() -> None:
    assert by_place([2, 0], 4).tolist() == [-1.0, -np.inf, 0.0, -np.inf]


@pytest.mark.parametrize("cycles", [(), (5, 0), (0, 0), (-1,)])
def test_cycles_out_of_order_are_refused(cycles: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cycles"):
        replace(COEA, cycles=cycles)


@pytest.fixture(scope="module")
def of_a_base(tmp_path_factory: pytest.TempPathFactory) -> Coea:
    """A row of a base that adapters are tuned of."""
    tuning = PUBLISHED_TUNING.model_copy(update={"accumulation": 1, "max_examples": 24, "learning_rate": 1e-2})
    dpo = DpoConfig(batch_size=8, accumulation=1, learning_rate=1e-2)
    llms = CoevolutionConfig(
        base=str(make_tiny_language_model(tmp_path_factory.mktemp("base"), chat=True)),
        examples=LLMS.examples,
        novelty=tuning,
        relevance=tuning,
        pco=LLMS.pco.model_copy(update={"dpo": dpo, "relevance": tuning.model_copy(update={"warmup_share": 0.0})}),
    )
    return replace(COEA, llms=llms, cycles=(0, 1), shared=SharedTrainings())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_of_adapted_llms_the_lists_of_every_cycle_are_kept(split: CategorySplit, of_a_base: Coea) -> None:
    fitted = of_a_base.fit(split, 1)
    settings = [{"cycles": cycles, "breadth": 0.8, "threshold": 0} for cycles in (0, 1)]
    start, end = (fitted.scores(split.test, setting) for setting in settings)
    assert (np.isfinite(start).sum(axis=1) == np.isfinite(end).sum(axis=1)).all()
    assert (start != end).any()
    # Adapters are merged into the one model there is.
    assert fitted.by_cycles[0].novelty.base.model is fitted.by_cycles[1].novelty.base.model
    strangers = replace(split.test, recent=((8, 1),) * len(split.test))
    with pytest.raises(ValueError, match=r"cycles 0: found \d+ new lists, expected those of the split alone"):
        fitted.scores(strangers, settings[0])
    # The next row of the seed begins at LLMs of its own, which no cycle has changed.
    unchanged = replace(of_a_base, cycles=(0,)).fit(split, 1)
    assert (unchanged.scores(split.test, settings[0]) == start).all()


def test_rows_are_made_of_the_base_that_is_asked_for() -> None:
    found = find_methods(["Random", "Google-v1", "CoEA", "CoEA w/o KL"], "a base")
    assert [row.configuration.get("base", row.configuration.get("llms", {}).get("base")) for row in found] == [  # type: ignore[attr-defined]
        None, "a base", "a base", "a base",
    ]  # fmt: skip
