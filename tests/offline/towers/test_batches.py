import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.towers.batches import (
    ACTIVITY_POWER,
    NOVEL_WEIGHT,
    BatchSampler,
    inclusion_probabilities,
    plan_epoch,
)
from serendipity.offline.towers.interests import NO_NODE
from tests.offline.towers.conftest import World


def sampler_of(world: World, *, cold_share: float = 0.0) -> BatchSampler:
    return BatchSampler(
        world.prepared.fit[0],
        world.catalogue.item_categories,
        world.nodes,
        world.towers().user,
        world.config.loss,
        min_item_users=1,
        cold_share=cold_share,
    )


@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=60).map(np.array),
    st.integers(1, 80),
)
def test_inclusion_probabilities_sum_to_what_is_drawn_and_follow_sizes(sizes: np.ndarray, number: int) -> None:
    sizes = np.where(sizes < 1e-3, 0.0, sizes)
    found = inclusion_probabilities(sizes, number)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.isclose(found.sum(), min(number, (sizes > 0).sum()), rtol=1e-9)
    assert (found[sizes == 0] == 0).all()
    order = np.argsort(sizes)
    assert (np.diff(found[order]) >= -1e-12).all()
    uncertain = (found > 0) & (found < 1)
    if uncertain.sum() > 1:
        assert np.allclose(found[uncertain] / sizes[uncertain], (found[uncertain] / sizes[uncertain])[0])


def test_weights_estimate_the_sum_over_all_pairs_without_bias(world: World) -> None:
    sampler = sampler_of(world)
    rows = world.prepared.fit[0]
    index = sampler.trainable_rows[:16]
    sums = [float(sampler.draw(index, np.random.default_rng(seed)).weights.sum()) for seed in range(300)]
    known = rows.moment.items.users >= 1
    activity, expected = sampler.draw(index, np.random.default_rng(0)).user_weights, 0.0
    assert len(activity)
    for r in index:
        positives = rows.rows[rows.offsets[r] : rows.offsets[r + 1]]
        kept = known[positives].sum()
        seen = rows.moment.seen_rows[rows.moment.seen_offsets[r] : rows.moment.seen_offsets[r + 1]]
        novel = ~rows.moment.clicked[r, world.catalogue.item_categories]
        weights = np.where(novel, NOVEL_WEIGHT, 1.0) * known
        weights[seen] = weights[positives] = 0.0
        expected += weights.sum() * kept**-ACTIVITY_POWER
    assert abs(np.mean(sums) / expected - 1) < 4 * np.std(sums) / expected / np.sqrt(len(sums)) + 1e-3


def test_what_the_user_clicked_before_is_no_negative(world: World) -> None:
    sampler = sampler_of(world)
    rows = world.prepared.fit[0]
    index = sampler.trainable_rows[:8]
    batch = sampler.draw(index, np.random.default_rng(0))
    for line, r in enumerate(index):
        seen = rows.moment.seen_rows[rows.moment.seen_offsets[r] : rows.moment.seen_offsets[r + 1]]
        positives = rows.rows[rows.offsets[r] : rows.offsets[r + 1]]
        excluded = np.isin(batch.candidates.numpy(), np.concatenate([seen, positives]))
        assert excluded.any()
        assert not batch.weights[line].numpy()[excluded].any()


def test_interest_positives_are_inside_their_interest(world: World) -> None:
    batch = sampler_of(world).draw(sampler_of(world).trainable_rows[:64], np.random.default_rng(1))
    assert len(batch.interest_positives)
    assert bool(batch.inside.reshape(-1)[batch.interest_positives].all())
    assert not bool(batch.inside[batch.nodes.reshape(-1) == NO_NODE].any())
    # Every interest positive trains the user's own row too.
    drawn, number = batch.nodes.shape[1], len(batch.candidates)
    line, column = batch.interest_positives // number, batch.interest_positives % number
    own = line // drawn * number + column
    assert bool(torch.isin(own, batch.user_positives).all())


def test_cold_rows_are_those_of_an_unknown_user(world: World) -> None:
    batch = sampler_of(world, cold_share=0.999).draw(np.arange(4), np.random.default_rng(0))
    user = world.towers().user
    zeros = [torch.zeros(1, size, dtype=torch.int32) for size in (40, 40, 12, 12, 12)]
    torch.testing.assert_close(batch.pooled, user.pool(*zeros).expand(4, -1))


def test_an_epoch_meets_every_row_once_in_batches_of_one_cut(world: World) -> None:
    samplers = [sampler_of(world), sampler_of(world)]
    met: list[list[int]] = [[], []]
    for cut, rows in plan_epoch(samplers, 32, np.random.default_rng(0)):
        assert len(rows) <= 32
        met[cut] += rows.tolist()
    for cut, sampler in enumerate(samplers):
        assert sorted(met[cut]) == sampler.trainable_rows.tolist()
