from dataclasses import replace

import numpy as np
import torch

from serendipity.features import TowerInputs
from serendipity.offline.towers.user_tower import UserTower, tensors
from tests.offline.towers.conftest import World


def ready(world: World) -> tuple[UserTower, TowerInputs]:
    moment = world.prepared.now
    user = world.towers().user.eval()
    user.load_factors(torch.from_numpy(moment.items.factors.clicked))
    return user, moment.take(np.arange(len(moment)), world.nodes.vectors)


@torch.no_grad()
def vectors(user: UserTower, inputs: TowerInputs) -> torch.Tensor:
    found: torch.Tensor = user(*tensors(inputs))
    return found


def test_output_has_a_row_for_the_user_and_one_per_interest(world: World) -> None:
    user, inputs = ready(world)
    found = vectors(user, inputs)
    assert found.shape == (len(inputs), 1 + world.config.rows.max_interests, world.config.vector_dim)
    assert found.dtype == torch.float32
    assert bool(torch.isfinite(found).all())


def test_each_row_depends_on_its_own_interest_alone(world: World) -> None:
    user, inputs = ready(world)
    changed = inputs.interests.copy()
    changed[:, 1] = np.roll(changed[:, 1], 1, axis=-1)
    before, after = vectors(user, inputs), vectors(user, replace(inputs, interests=changed))
    differs = (before != after).any(dim=2)
    assert bool(differs[:, 2].all())
    assert not bool(differs[:, [0, 1, 3, 4]].any())


def test_a_user_does_not_depend_on_the_others_of_the_batch(world: World) -> None:
    user, inputs = ready(world)
    together = vectors(user, inputs)
    for row in range(len(inputs)):
        alone = TowerInputs(*(getattr(inputs, name)[row : row + 1] for name in TowerInputs.__dataclass_fields__))
        torch.testing.assert_close(vectors(user, alone)[0], together[row], rtol=1e-5, atol=1e-6)


def test_a_repeated_click_counts_once_in_the_factors(world: World) -> None:
    user, inputs = ready(world)
    items = np.zeros((2, inputs.history_items.shape[1]), np.int32)
    items[0, :3], items[1, :5] = [4, 9, 17], [4, 9, 4, 17, 4]
    rest = [torch.zeros(2, size, dtype=torch.int32) for size in (items.shape[1], 12, 12, 12)]
    pooled = user.pool(torch.from_numpy(items), *rest)
    factors = world.config.factors.dim
    torch.testing.assert_close(pooled[0, :factors], pooled[1, :factors])
    expected = user.item_factors[[4, 9, 17]].sum(dim=0) / 3**user.user_powers
    torch.testing.assert_close(pooled[0, :factors], expected)


def test_every_input_matters(world: World) -> None:
    user, inputs = ready(world)
    before = vectors(user, inputs)
    for name in ("history_items", "history_ages", "long_categories", "long_counts", "long_ages", "profile"):
        column = getattr(inputs, name)
        limit = {"history_items": len(world.catalogue), "long_categories": 12, "profile": 2}.get(name, 10**7)
        moved = np.where(column > 0, (column + 86_400 * 9) % limit + 1, column).astype(np.int32)
        if name == "profile":
            moved = 3 - column
        assert bool((vectors(user, replace(inputs, **{name: moved})) != before).any()), name
