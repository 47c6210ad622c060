from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.coea.comparison import Cutoffs
from benchmarks.coea.metrics import mean, measures
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.report import About
from benchmarks.coea.shared_trainings import SharedTrainings
from benchmarks.coea.studies import affinity, rounds, sweeps
from benchmarks.coea.studies.pages import write_affinity, write_rounds, write_sweeps
from benchmarks.coea.studies.panel import reduced
from benchmarks.coea.studies.variant import Variant, group_ids, listed, proposed
from benchmarks.coea.trial import TrialResult
from tests.benchmarks.coea.test_coea import GROUPS, LLMS
from tests.benchmarks.coea.worlds import catalogue, cyclists

# Several steps a cycle: at its first the divergence from the cycle before is zero, and so is its gradient.
DPO = LLMS.pco.dpo.model_copy(update={"batch_size": 4, "learning_rate": 1e-3})
BASE = Variant(GROUPS, LLMS.model_copy(update={"pco": LLMS.pco.model_copy(update={"dpo": DPO})}))
ABOUT = About("cycle", "python -m benchmarks.coea_studies", 0.0, 1.0)


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    return reduced(CategorySplit.leave_last_out(cyclists(), catalogue(8)), 40)


@pytest.fixture(scope="module")
def shared() -> SharedTrainings:
    return SharedTrainings()


@pytest.fixture(scope="module")
def curves(split: CategorySplit, shared: SharedTrainings) -> rounds.RoundsStudy:
    results = [TrialResult(trial.name, 1, 1.0, trial.run(split, 1, shared)) for trial in rounds.trials(BASE, rounds=2)]
    return rounds.study(results, split)


@pytest.fixture(scope="module")
def cosines(split: CategorySplit, shared: SharedTrainings) -> TrialResult:
    return TrialResult("affinity", 1, 1.0, affinity.AffinityTrial(BASE.with_cycles(0)).run(split, 1, shared))


def test_curves_begin_at_the_same_llms_and_part(curves: rounds.RoundsStudy) -> None:
    one, other = curves.curves

    assert one.rounds == other.rounds == 2
    assert one.entropy[0, 0] == other.entropy[0, 0]
    assert one.entropy[0, 2] != other.entropy[0, 2]
    for measure in curves.measures:
        assert one.test[measure][0, 0] == other.test[measure][0, 0]
        assert one.validation[measure].shape == (1, 3)


def test_a_round_s_figures_are_those_of_its_lists(
    split: CategorySplit, shared: SharedTrainings, curves: rounds.RoundsStudy
) -> None:
    model, coevolution = BASE.with_cycles(2).coevolve(split, 1, shared)
    groups = group_ids(model, split.test)
    cutoffs = Cutoffs.of(split)

    lists = measures(listed(coevolution, groups, split.test).astype(np.int64), split.test, split, cutoffs.rank)
    alone = measures(proposed(coevolution, groups, split.test).astype(np.int64), split.test, split, cutoffs.rank)

    novelty = f"NCP@{cutoffs.rank}"
    assert curves.with_kl.test[novelty][0, 2] == mean(lists[novelty])
    assert curves.with_kl.test[f"{novelty} of proposals"][0, 2] == mean(alone[novelty])


def test_late_rounds_are_the_last_third_and_paired_by_seed(curves: rounds.RoundsStudy) -> None:
    def curve(name: str, values: list[list[float]]) -> rounds.Curve:
        found = np.array(values)
        return rounds.Curve(name, (0, 1), {"NCP@5": found}, {"NCP@5": found}, found, (1.0, 1.0))

    study = rounds.RoundsStudy(
        curves.cutoffs,
        curve("with", [[0.2, 0.2, 0.2, 0.2], [0.4, 0.4, 0.4, 0.4]]),
        curve("without", [[0.2, 0.2, 0.1, 0.1], [0.4, 0.4, 0.3, 0.1]]),
    )

    found = study.late_difference("test", "NCP@5")
    assert list(study.late) == [2, 3]
    assert (found.one, found.other, found.value) == pytest.approx((0.3, 0.15, 0.15))
    # Gaps 0.1 and 0.2: half width = t(0.975, 1) · s / √2.
    assert found.high - found.value == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert study.late_change(study.without_kl, "test", "NCP@5").value == pytest.approx(-0.15)


def test_users_without_a_target_outside_their_latest_categories_are_not_asked_for() -> None:
    whole = CategorySplit.by_time(cyclists(num_users=20), catalogue(8))

    found = reduced(whole, 5)

    assert len(found.validation) == 5
    assert found.validation.reachable.any(axis=1).all()
    assert len(found.test) == whole.test.reachable.any(axis=1).sum()
    assert set(found.validation.users.tolist()) <= set(whole.validation.users.tolist())
    row = whole.test.users.tolist().index(int(found.test.users[0]))
    assert found.test.recent[0] == whole.test.recent[row]
    assert (found.test.targets[0] == whole.test.targets[row]).all()


def test_a_category_s_vector_is_the_mean_of_its_most_clicked_items(
    split: CategorySplit, shared: SharedTrainings
) -> None:
    model = shared.groups(split, GROUPS, 1).model
    encoder = model.encoder.interest

    vectors = affinity.category_vectors(model, split)

    # Of a category's two items the first alone is clicked.
    tokens, numbers = encoder.identify(model.encoder.interest.tokens.new_tensor([3]))
    assert vectors.shape == (8, GROUPS.interest.dim)
    assert vectors[1] == pytest.approx(encoder.item_vectors(tokens, numbers)[0].detach().numpy())


def test_the_short_sequence_goes_back_to_the_third_latest_category(split: CategorySplit) -> None:
    found = affinity.short_histories(split.test)

    user = int(split.test.users[0])
    kept = slice(int(found.offsets[user]), int(found.offsets[user + 1]))
    assert tuple(found.categories[kept][::-1].tolist()) == split.test.recent[0]


def test_what_names_and_reads_the_same_has_the_same_cosines(cosines: TrialResult, split: CategorySplit) -> None:
    for name in (*affinity.NAMED, *affinity.READ):
        values = cosines.answers[name].astype(np.float64)
        assert values.shape == (len(split.test),)
        assert (np.abs(values) <= 1 + 1e-9).all()
    for prefix in ("", affinity.BEYOND):
        assert (cosines.answers[prefix + affinity.OWN] == cosines.answers[prefix + affinity.FULL]).all()


def test_naming_whatever_may_be_named_is_nothing_beyond_the_categories_own() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.normal(size=(4, 3))
    candidates = np.array([[True, True, False], [True, False, True], [False, True, True], [True, True, True]])

    found = affinity.beyond(cosines, candidates)

    assert np.where(candidates, found, 0.0).sum(axis=0) == pytest.approx(0, abs=1e-12)
    assert found[0, 0] == pytest.approx(cosines[0, 0] - cosines[[0, 1, 3], 0].mean())


def test_sweeps_share_the_default_and_move_one_parameter_each() -> None:
    found = sweeps.sweeps(sweeps.small(Variant()))
    centre = found[0].trials[found[0].default]

    for sweep in found:
        assert sweep.trials[sweep.default] is centre
        assert list(sweep.values) == sorted(set(sweep.values))
    assert len({trial.name for trial in sweeps.trials(found)}) == len(sweeps.trials(found))
    one = {sweep.parameter: sweep.trials[0].variant for sweep in found}
    assert one["λ"].llms.pco.dpo.kl_weight == 0
    assert one["λ"].groups == centre.variant.groups
    assert one["groups"].groups.num_groups == 5
    assert one["groups"].llms == centre.variant.llms
    assert one["quantiser layers"].groups.quantizer.num_quantizers == 1
    assert one["threshold of the sequence filter"].groups.sequence.threshold == 1


def test_lists_grow_shorter_with_the_threshold_of_the_alignment(split: CategorySplit, shared: SharedTrainings) -> None:
    trial = sweeps.SweepTrial("sweep of nothing", BASE.with_cycles(0), (0.0, 0.5, 1.1))

    lists = trial.run(split, 1, shared)["lists"]

    lengths = (lists.astype(np.int64) >= 0).sum(axis=(1, 2))
    assert lengths[0] >= lengths[1] >= lengths[2] == 0


def test_every_study_writes_a_page_its_numbers_and_a_plot(
    split: CategorySplit, curves: rounds.RoundsStudy, cosines: TrialResult, tmp_path: Path
) -> None:
    lists = np.tile(np.arange(10, dtype=np.int16) % 8, (len(sweeps.ALIGNMENTS), len(split.validation), 1))
    found = sweeps.sweeps(BASE)
    points = [TrialResult(trial.name, seed, 1.0, {"lists": lists}) for trial in sweeps.trials(found) for seed in (0, 1)]

    pages = [
        write_rounds(curves, split, tmp_path, ABOUT),
        write_affinity(affinity.study([cosines, replace(cosines, seed=2)], split), split, tmp_path, ABOUT),
        write_sweeps(sweeps.study(found, points, split), 1.0, split, tmp_path, ABOUT),
    ]

    for page in pages:
        assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["dataset"] == "cycle"
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert "| test | NCP@5 |" in texts[0]
    assert "rounds 1 to 2" in texts[0]
    assert "Late novelty on the test, CoEA w/o KL against CoEA: " in texts[0]
    assert "| short-only (w/o Long) |" in texts[1]
    assert "| 50 (default) |" not in texts[2]
    assert "| 3 (default) |" in texts[2]
