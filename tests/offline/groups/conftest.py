import pytest

from serendipity.offline.groups.group_model import GroupModel
from tests.offline.groups.shoppers import CONFIG, draw_histories, make_catalogue


@pytest.fixture(scope="session")
def group_model() -> GroupModel:
    """One model for all tests; none changes it."""
    return GroupModel.fit(draw_histories(), make_catalogue(), CONFIG)
