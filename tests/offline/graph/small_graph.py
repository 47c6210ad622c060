"""A graph small enough to reckon with by hand, and one large enough to learn from."""

import numpy as np

from serendipity.offline.graph.interest_graph import InterestGraph


def tiny() -> InterestGraph:
    """Three users, three items, two entities, three interests, the last of which nobody holds."""
    return InterestGraph(
        num_users=3,
        num_items=3,
        num_entities=2,
        num_interests=3,
        clicks=np.array([[0, 0, 1, 2], [0, 1, 1, 2]]),
        holds=np.array([[0, 1, 2], [0, 0, 1]]),
        knowledge=np.array([[0, 1, 3, 2], [0, 0, 1, 1], [3, 3, 4, 4]]),
    )


def two_tastes(num_users: int = 60, num_items: int = 30) -> InterestGraph:
    """Users of two tastes, each of whom clicks on five items of the own half; taste is interest, half is entity."""
    rng = np.random.default_rng(7)
    users = np.repeat(np.arange(num_users), 5)
    half = num_items // 2
    items = np.concatenate([rng.choice(half, 5, replace=False) + half * (user % 2) for user in range(num_users)])
    every = np.arange(num_users)
    known = np.arange(num_items)
    return InterestGraph(
        num_users=num_users,
        num_items=num_items,
        num_entities=2,
        num_interests=2,
        clicks=np.stack([users, items]),
        holds=np.stack([every, every % 2]),
        knowledge=np.stack([known, np.zeros_like(known), num_items + (known >= half)]),
    )
