import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.interests.behaviour import NEVER_DAYS, Behaviour
from serendipity.interests.entry_model import TERMS
from serendipity.offline.interests.entry_model import (
    CO_RIDGE,
    DEFAULT_COEFFICIENTS,
    RATE_WINDOWS,
    EntryModelConfig,
    Window,
    fit_entry_model,
)

CONFIG = EntryModelConfig(min_value_users=5, rate_prior=5.0, lift_prior=1.0)
C = 4


def behaviour(recent: NDArray[np.float32], counts: NDArray[np.float32] | None = None) -> Behaviour:
    counts = recent if counts is None else counts
    ages = np.where(counts > 0, 10.0, NEVER_DAYS).astype(np.float32)
    return Behaviour(recent, counts, ages, np.zeros_like(recent), recent.sum(1))


def random_world(seed: int = 0, users: int = 400) -> tuple[Behaviour, list[Window], list[dict[str, str]]]:
    """Users of two kinds: "a" (profile kind=a) enter category 3, "b" enter category 4; both start in 1 or 2."""
    rng = np.random.default_rng(seed)
    kind = np.arange(users) % 2
    recent = np.zeros((users, C + 1), np.float32)
    recent[np.arange(users), 1 + kind] = 3
    windows = []
    for _ in range(4):
        clicked = np.zeros((users, C + 1), np.bool_)
        clicked[np.arange(users), 3 + kind] = rng.random(users) < 0.5
        windows.append(Window(behaviour(recent), clicked))
    return behaviour(recent), windows, [{"kind": "ab"[k]} for k in kind]


def test_without_windows_the_coefficients_stay_at_their_defaults() -> None:
    now, _, profiles = random_world()
    model = fit_entry_model(now, [], profiles, CONFIG)
    assert model.coefficients.tolist() == DEFAULT_COEFFICIENTS.tolist()
    assert np.isfinite(model.probabilities(now, profiles)).all()


def test_without_windows_profiles_move_nobody() -> None:
    now, _, profiles = random_world()
    assert not fit_entry_model(now, [], profiles, CONFIG).lifts


def test_categories_that_are_not_novel_have_no_probability() -> None:
    now, windows, profiles = random_world()
    probabilities = fit_entry_model(now, windows, profiles, CONFIG).probabilities(now, profiles)
    assert (probabilities[~now.unseen] == 0).all()
    assert (probabilities[now.unseen] > 0).all()
    assert (probabilities[:, 0] == 0).all()


def test_rates_are_shares_of_those_to_whom_the_category_was_novel() -> None:
    now, windows, profiles = random_world()
    model = fit_entry_model(now, windows, profiles, CONFIG)
    entered = sum(0.5**i * window.entered[:, 3].sum() for i, window in enumerate(windows[:RATE_WINDOWS]))
    chances = sum(0.5**i for i in range(RATE_WINDOWS)) * len(now)
    assert model.rates[3] == pytest.approx(entered / chances, abs=0.01)
    # Category 1 was clicked by half of the users all the time: nobody entered it.
    assert model.rates[1] < 0.02


def test_profiles_move_users_towards_what_their_like_enter() -> None:
    now, windows, profiles = random_world()
    model = fit_entry_model(now, windows, profiles, CONFIG)
    assert model.lifts["kind", "a"][3] > 0.3 > -0.3 > model.lifts["kind", "a"][4]
    nobody = behaviour(np.zeros((2, C + 1), np.float32))
    first, second = model.probabilities(nobody, [{"kind": "a"}, {"kind": "b"}])
    assert first[3] > second[3]
    assert first[4] < second[4]
    stranger, unknown = model.probabilities(nobody, [{}, {"kind": "never seen"}])
    assert stranger.tolist() == unknown.tolist()


def test_co_interest_is_the_closed_form_and_leaves_a_category_out_of_its_own() -> None:
    now, windows, profiles = random_world()
    weights = fit_entry_model(now, windows, profiles, CONFIG).co_interest
    assert np.diag(weights).tolist() == [0.0] * (C + 1)
    # Column c is the ridge regression of category c on the others.
    evidence = now.evidence.astype(np.float64)
    others = [1, 3, 4]
    gram = evidence[:, others].T @ evidence[:, others] + CO_RIDGE * np.eye(3)
    expected = np.linalg.solve(gram, evidence[:, others].T @ evidence[:, 2])
    assert weights[others, 2] == pytest.approx(expected, abs=1e-6)


def test_with_much_data_the_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    users = 6_000

    def window(entering: bool) -> Window:
        recent = np.zeros((users, C + 1), np.float32)
        recent[:, 1] = rng.integers(1, 30, users)
        counts = recent.copy()
        counts[:, 2] = rng.integers(0, 2, users) * 5
        logit = -3.0 + 0.9 * np.log1p(counts[:, 2])
        clicked = np.zeros((users, C + 1), np.bool_)
        clicked[:, 2] = rng.random(users) < 1 / (1 + np.exp(-logit)) if entering else False
        return Window(behaviour(recent, counts), clicked)

    windows = [window(True) for _ in range(4)]
    now = windows[0].behaviour
    model = fit_entry_model(now, windows, [{}] * users, CONFIG)
    found = model.probabilities(now, [{}] * users)[:, 2]
    for past in (0, 5):
        rows = now.counts[:, 2] == past
        assert found[rows].mean() == pytest.approx(1 / (1 + np.exp(3.0 - 0.9 * np.log1p(past))), abs=0.03)


def test_fewer_pairs_than_users_still_fit() -> None:
    now, windows, profiles = random_world()
    model = fit_entry_model(now, windows, profiles, EntryModelConfig(max_pairs=100, min_value_users=5))
    assert len(model.coefficients) == 1 + len(TERMS)
    assert np.isfinite(model.coefficients).all()
