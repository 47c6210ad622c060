import math

import numpy as np
import pytest

from serendipity.offline.groups.cohesion import cohesion


def test_groups_that_point_apart_are_alike_inside_and_not_between() -> None:
    interests = np.repeat(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), 6, axis=0)
    found = cohesion(interests, np.repeat([1, 2], 6).astype(np.int32), seed=0)
    assert found.group_ids == (1, 2)
    assert np.allclose(found.matrix, np.eye(2))
    assert (found.intra, found.inter, found.share) == pytest.approx((1.0, 0.0, 1.0))


def test_the_default_group_and_groups_of_a_few_are_left_out() -> None:
    group_ids = np.array([0] * 10 + [1] * 3 + [2] * 4, np.int32)
    found = cohesion(np.ones((17, 2), np.float32), group_ids, seed=0)
    assert found.group_ids == (2,)
    assert math.isnan(found.inter)


def test_without_groups_there_is_nothing_to_compare() -> None:
    assert cohesion(np.ones((3, 2), np.float32), np.zeros(3, np.int32), seed=0).matrix == ()
