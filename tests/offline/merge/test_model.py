"""The merge model: what may raise a probability, and that the exported model is the one that was learned."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from serendipity.offline.merge import model
from serendipity.offline.merge.config import MergeConfig
from serendipity.offline.merge.model import columns_read, fit_trees, to_onnx
from serendipity.rank_features import FEATURE_NAMES

NAMES = [FEATURE_NAMES[column] for column in columns_read(FEATURE_NAMES)]
CONFIG = MergeConfig(trees=20, leaf_candidates=20)


def _planted(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Candidates of which every feature is best at a middle value, which no monotone model can say."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(6_000, len(NAMES))).astype(np.float32)
    log_odds = 1 - 0.5 * (features**2).mean(axis=1) * len(NAMES) / 4
    return features, rng.random(len(features)) < 1 / (1 + np.exp(-log_odds))


def _exported(onnx: bytes, features: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": features})
    assert found.shape == (len(features), 1)
    probabilities: NDArray[np.float32] = found[:, 0]
    return probabilities


def test_the_model_reads_all_features_but_those_that_are_left_to_the_host() -> None:
    assert set(FEATURE_NAMES) - set(NAMES) == {"unexpectedness", "novel", "interest_weight", "alignment_recent"}
    assert columns_read(["unexpectedness", "category_share", "interest_weight", "interest_score"]) == [1, 3]


@pytest.mark.parametrize("name", NAMES)
def test_more_of_a_feature_never_lowers_a_probability_nor_more_days_since_the_last_click_raise_it(name: str) -> None:
    features, hits = _planted()
    onnx = to_onnx(fit_trees(features, hits, NAMES, CONFIG), features)
    some = np.repeat(features[:100], 41, axis=0)
    some[:, NAMES.index(name)] = np.tile(np.linspace(-4, 4, 41), 100)
    steps = np.diff(_exported(onnx, some).reshape(100, 41), axis=1)
    if name == "category_share":
        assert (steps > 0).any()
        assert (steps < 0).any()
    else:
        sign = -1 if name == "category_days" else 1
        assert (sign * steps >= 0).all()
        assert (sign * steps > 0).any()


def test_the_exported_model_says_what_the_trees_say() -> None:
    features, hits = _planted()
    trees = fit_trees(features, hits, NAMES, CONFIG)
    onnx = to_onnx(trees, features[:10])
    fresh = np.random.default_rng(1).normal(scale=3, size=(5_000, len(NAMES))).astype(np.float32)
    np.testing.assert_allclose(_exported(onnx, fresh), trees.predict_proba(fresh)[:, 1], atol=1e-6)
    assert _exported(onnx, fresh[:0]).shape == (0,)


def test_the_same_candidates_make_the_same_bytes() -> None:
    first, again, other = (
        to_onnx(fit_trees(*candidates, NAMES, CONFIG), candidates[0])
        for candidates in (_planted(), _planted(), _planted(1))
    )
    assert first == again != other


@pytest.mark.parametrize("steps", [0, 1])
def test_neighbouring_values_on_both_sides_of_a_threshold_stay_on_their_sides(steps: int) -> None:
    # Half-way between two neighbours lies no float32: of one of the pairs it is rounded down, of the other up.
    low = np.float32(1)
    for _ in range(steps):
        low = np.nextafter(low, np.float32(2))
    high = np.nextafter(low, np.float32(2))
    features = np.tile(np.array([[low], [high]], np.float32), (200, 1))
    hits = (features[:, 0] == high) & (np.arange(len(features)) < 300)
    trees = fit_trees(features, hits, ["interest_score"], CONFIG)
    apart, together = trees.predict_proba(features[:2])[:, 1], _exported(to_onnx(trees, features), features[:2])
    assert apart[1] > apart[0] + 0.1
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_values_at_and_beside_every_threshold_lead_to_the_same_leaf() -> None:
    features, hits = _planted()
    trees = fit_trees(features, hits, NAMES, CONFIG)
    onnx = to_onnx(trees, features)
    edges = features[:1].repeat(3 * len(NAMES) * CONFIG.trees * CONFIG.leaves, axis=0)
    at = 0
    for (tree,) in trees._predictors:
        for node in tree.nodes[tree.nodes["is_leaf"] == 0]:
            middle = np.float32(node["num_threshold"])
            for value in (np.nextafter(middle, np.float32(-9)), middle, np.nextafter(middle, np.float32(9))):
                edges[at, node["feature_idx"]] = value
                at += 1
    assert at > 100
    np.testing.assert_allclose(_exported(onnx, edges[:at]), trees.predict_proba(edges[:at])[:, 1], atol=1e-6)


def test_an_export_that_says_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features, hits = _planted()
    trees = fit_trees(features, hits, NAMES, CONFIG)
    monkeypatch.setattr(model, "_rounded_down", lambda thresholds: thresholds.astype(np.float32) + 1)
    with pytest.raises(ValueError, match=r"found probabilities 0\.\d+ apart from the exported ones, expected the same"):
        to_onnx(trees, features)
