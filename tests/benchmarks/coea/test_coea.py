from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.coea.affinity import READ, beyond, category_vectors, interest_cosines, short_histories
from benchmarks.coea.coea import WITHOUT_LONG, CoeaTrial, listed
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.trial import Answers, run_trials
from serendipity.offline.coevolution.config import CoevolutionConfig, ExamplesConfig
from serendipity.offline.coevolution.pco_config import PcoConfig
from serendipity.offline.groups.config import GroupsConfig, InterestConfig, QuantizerConfig
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.tuning.config import TinyLmConfig, TuningConfig
from tests.benchmarks.coea.worlds import catalogue, cyclists

TUNING = TuningConfig(batch_size=32, max_examples=64, learning_rate=3e-3, max_tokens=256)
LLMS = CoevolutionConfig(
    tiny=TinyLmConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, merges=20, max_positions=256),
    examples=ExamplesConfig(min_clicks=2, max_novelty=64, max_relevance=64),
    novelty=TUNING,
    relevance=TUNING,
    pco=PcoConfig(cycles=1, max_records=16),
)
GROUPS = GroupsConfig(
    interest=InterestConfig(dim=16, num_heads=2, window=8, epochs=1, min_steps=20),
    quantizer=QuantizerConfig(codebook_size=4, num_quantizers=2, latent_dim=8, hidden_dim=16, epochs=2),
    num_groups=3,
)
TRIAL = CoeaTrial(GROUPS, LLMS, cycles=(0, 1))


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(num_users=30), catalogue(8))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def answers(split: CategorySplit, kept: Path) -> Answers:
    return run_trials(split, [TRIAL], [1], kept)[0].answers


@pytest.fixture(scope="module")
def groups(split: CategorySplit) -> GroupModel:
    return GroupModel.fit(split.training, split.catalogue, GROUPS)


def test_both_llms_are_asked_about_every_candidate_of_every_user(split: CategorySplit, answers: Answers) -> None:
    for variant in ("", WITHOUT_LONG):
        for cycles in TRIAL.cycles:
            novelty, aligned = (answers[f"test {kind}{cycles}{variant}"] for kind in ("novelty", "alignment"))
            assert np.exp(novelty.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-3)
            assert (np.isfinite(aligned) == split.test.candidates).all()
            assert (aligned[split.test.candidates] <= 0).all()


def test_users_of_one_group_and_the_same_latest_categories_are_told_the_same(
    split: CategorySplit, answers: Answers
) -> None:
    alone: dict[tuple[int, ...], set[bytes]] = {}
    for recent, row in zip(split.test.recent, answers[f"test novelty0{WITHOUT_LONG}"], strict=True):
        alone.setdefault(recent, set()).add(row.tobytes())
    assert all(len(rows) == 1 for rows in alone.values())


def test_cycles_change_the_llms(answers: Answers) -> None:
    assert not np.allclose(answers["test novelty0"], answers["test novelty1"])


def test_what_was_asked_is_kept(split: CategorySplit, kept: Path, answers: Answers) -> None:
    told: list[str] = []

    again = run_trials(split, [TRIAL], [1], kept, report=told.append)[0].answers

    assert not told
    assert all(np.array_equal(again[name], answers[name], equal_nan=True) for name in answers)


def test_a_list_holds_the_best_of_what_the_novelty_llm_proposes_by_alignment() -> None:
    novelty = np.array([[0.0, -1.0, -2.0, -3.0]], np.float32)
    aligned = np.array([[-np.inf, -5.0, -4.0, -1.0]], np.float32)

    assert listed(novelty, aligned, 2).tolist() == [[-np.inf, -5.0, -4.0, -np.inf]]
    assert listed(novelty, aligned, 9).tolist() == aligned.tolist()


def test_a_category_s_vector_is_the_mean_of_its_most_clicked_items(split: CategorySplit, groups: GroupModel) -> None:
    encoder = groups.encoder.interest

    vectors = category_vectors(groups, split)

    # Of a category's two items the first alone is clicked.
    tokens, numbers = encoder.identify(encoder.tokens.new_tensor([3]))
    assert vectors.shape == (8, GROUPS.interest.dim)
    assert vectors[1] == pytest.approx(encoder.item_vectors(tokens, numbers)[0].detach().numpy())


def test_the_short_sequence_goes_back_to_the_third_latest_category(split: CategorySplit) -> None:
    found = short_histories(split.test)

    user = int(split.test.users[0])
    kept = slice(int(found.offsets[user]), int(found.offsets[user + 1]))
    assert tuple(found.categories[kept][::-1].tolist()) == split.test.recent[0]


def test_every_reading_of_a_user_is_compared_with_every_category(split: CategorySplit, groups: GroupModel) -> None:
    found = interest_cosines(groups, split, 0)

    assert set(found) == set(READ)
    for values in found.values():
        assert values.shape == split.test.targets.shape
        assert (np.abs(values) <= 1 + 1e-6).all()


def test_naming_whatever_may_be_named_is_nothing_beyond_the_categories_own() -> None:
    cosines: NDArray[np.float64] = np.random.default_rng(0).normal(size=(4, 3))
    candidates = np.array([[True, True, False], [True, False, True], [False, True, True], [True, True, True]])

    found = beyond(cosines, candidates)

    assert np.where(candidates, found, 0.0).sum(axis=0) == pytest.approx(0, abs=1e-12)
    assert found[0, 0] == pytest.approx(cosines[0, 0] - cosines[[0, 1, 3], 0].mean())
