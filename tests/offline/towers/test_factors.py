import numpy as np
from scipy import sparse

from serendipity.offline.towers.config import FactorBlock, FactorsConfig
from serendipity.offline.towers.factors import item_factors
from tests.offline.towers.conftest import World

BLOCK = FactorBlock(dim=5, user_power=0.25, item_power=0.25)


def binary(world: World, time: int) -> sparse.csr_matrix:
    before = world.histories.times < time
    rows = world.histories.items[before] - 1
    shape = (len(world.histories), len(world.catalogue))
    matrix = sparse.csr_matrix((np.ones(len(rows)), (world.histories.users[before], rows)), shape=shape)
    matrix.data[:] = 1.0
    return matrix


def test_factors_rebuild_the_truncated_decomposition(world: World) -> None:
    time = world.prepared.now.time
    (found,) = item_factors(world.histories, len(world.catalogue), [time], FactorsConfig(blocks=(BLOCK,)), seed=0)
    clicks = binary(world, time).toarray()
    user_degrees = np.maximum(clicks.sum(axis=1), 1)
    item_degrees = np.maximum(clicks.sum(axis=0), 1)
    weighted = clicks * user_degrees[:, None] ** -0.25 * item_degrees[None, :] ** -0.25
    _, _, right = np.linalg.svd(weighted, full_matrices=False)
    exact = weighted @ right[:5].T @ right[:5] * item_degrees[None, :] ** 0.25
    users = user_degrees[:, None] ** -0.25 * (clicks @ found.clicked[1:])
    scores = users @ found.own.T
    # The scale is chosen so that scores deviate by 1; everything else is the decomposition.
    scale = (scores * exact).sum() / (exact * exact).sum()
    assert np.abs(scores - scale * exact).max() < 0.02 * np.abs(scores).max()
    often = item_degrees >= 3
    assert abs(scores[clicks.sum(axis=1) > 0][:, often].std(axis=1).mean() - 1) < 1e-3


def test_axes_keep_their_meaning_from_cut_to_cut(world: World) -> None:
    times = [part.moment.time for part in world.prepared.fit]
    config = FactorsConfig(blocks=(BLOCK,))
    first, second = item_factors(world.histories, len(world.catalogue), times, config, seed=0)
    (alone,) = item_factors(world.histories, len(world.catalogue), times[1:], config, seed=1)

    def agreement(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))

    assert agreement(first.own, second.own) > 0.9
    assert agreement(first.own, second.own) > agreement(first.own, alone.own)
    # Turning changes no score.
    np.testing.assert_allclose(second.clicked[1:] @ second.own.T, alone.clicked[1:] @ alone.own.T, atol=2e-2)


def test_more_factors_than_rank_are_zero(world: World) -> None:
    time = int(np.sort(world.histories.times)[3])
    (found,) = item_factors(world.histories, len(world.catalogue), [time], FactorsConfig(blocks=(BLOCK,)), seed=0)
    assert np.isfinite(found.clicked).all()
    assert np.abs(found.own[:, 3:]).max() == 0
    unclicked = np.asarray(binary(world, time).sum(axis=0)).ravel() == 0
    assert not found.clicked[1:][unclicked].any()
