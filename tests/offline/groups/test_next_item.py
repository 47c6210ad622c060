from __future__ import annotations

import pytest

from serendipity.offline.groups.config import InterestConfig
from serendipity.offline.groups.next_item import num_epochs


@pytest.mark.parametrize(
    ("num_batches", "expected"),
    [
        pytest.param(300, 2, id="many users"),
        pytest.param(150, 3, id="fewer steps than wanted"),
        pytest.param(10, 4, id="few users: twice as many passes at most"),
        pytest.param(0, 4, id="nobody"),
    ],
)
def test_fewer_users_are_passed_more_often(num_batches: int, expected: int) -> None:
    assert num_epochs(InterestConfig(epochs=2, min_steps=400), num_batches) == expected
