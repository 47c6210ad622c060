from pathlib import Path

import numpy as np
import pytest

from benchmarks.coea.dataset import find_logs
from benchmarks.graph.host_data import HostData, read_host_data


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_logs("ml-100k", tmp_path_factory.mktemp("ml-100k"))


@pytest.fixture(scope="module")
def data(logs: Path) -> HostData:
    return read_host_data(logs, 60)


def keys(pairs: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(*pairs.tolist(), strict=True))


def test_a_fifth_of_every_users_items_is_test(data: HostData) -> None:
    train, test = data.graph.clicks, data.test
    assert not keys(train) & keys(test)
    for user in range(data.graph.num_users):
        held, kept = (test[0] == user).sum(), (train[0] == user).sum()
        assert abs(held - 0.2 * (held + kept)) <= 0.5


def test_interests_are_inferred_from_the_clicks_given_alone(data: HostData) -> None:
    assert data.graph.holds.shape[1]
    assert keys(data.holds_of(data.graph.clicks)) == keys(data.graph.holds)
    few = data.graph.clicks[:, data.graph.clicks[0] < 30]
    assert set(data.holds_of(few)[0]) <= set(range(30))


def test_every_user_has_an_edge_to_each_attribute_value(data: HostData) -> None:
    assert data.attributes == ("age", "gender", "occupation")
    assert np.bincount(data.profile[0]).tolist() == [3] * 60
    assert set(data.profile[1]) == set(range(data.num_values))


def test_some_users_are_drawn(logs: Path, data: HostData) -> None:
    drawn = read_host_data(logs, 20)
    assert drawn.graph.num_users == 20
    assert set(drawn.graph.clicks[0]) == set(range(20))
    assert drawn.graph.num_items == data.graph.num_items
