from collections.abc import Callable, Sequence

import pytest

from serendipity.offline.interests.evaluation import evaluate_popular_unseen, evaluate_reasoner
from serendipity.offline.interests.reasoner import Interest, InterestPath, UserContext
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2

DAY = 86_400


class Fixed:
    """Answers every user alike."""

    name = "fixed"

    def __init__(self, taxonomy: Taxonomy, *paths: tuple[str, ...]) -> None:
        path = InterestPath(records_pb2.SEED_KIND_POPULATION, "", "", "", records_pb2.RELATION_HYPONYM, 1.0)
        ids = {node.path: node.node_id for node in taxonomy.nodes}
        self._interests = [Interest(ids[path_], 1.0, path) for path_ in paths]

    def reason(self, users: Sequence[UserContext], k: int = 16) -> list[list[Interest]]:
        return [self._interests[:k] for _ in users]


@pytest.fixture
def histories(shop: Catalogue, histories_of: Callable[..., Histories]) -> Histories:
    before = [("a", "rye-1", 1), ("b", "rye-1", 1), ("c", "green-1", 1), ("d", "rye-1", 1), ("d", "green-1", 1)]
    # a enters tea (twice) and saws; b enters nothing novel; c enters bread.
    after = [
        ("a", "green-1", DAY),
        ("a", "green-1", DAY + 1),
        ("a", "saw-1", DAY),
        ("b", "rye-1", DAY),
        ("c", "rye-1", DAY),
    ]
    return histories_of(shop, [*before, *after])


def test_only_newly_entered_categories_count(shop: Catalogue, histories: Histories) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    reasoner = Fixed(taxonomy, ("food", "tea"), ("food", "bread"))
    report = evaluate_reasoner(reasoner, taxonomy, histories, DAY, 2 * DAY, k=2)
    assert report.num_users == 2
    # a: tea of {tea, saws}, 2 of 3 clicks; c: bread of {bread}.
    assert (report.hit, report.recall, report.precision) == (1.0, 0.75, 0.5)
    assert report.click_recall == pytest.approx((2 / 3 + 1) / 2)


def test_popular_unseen_leaves_out_what_the_user_clicks(shop: Catalogue, histories: Histories) -> None:
    report = evaluate_popular_unseen(histories, len(shop.categories), DAY, 2 * DAY, k=1)
    # Bread is the most popular, and a has it: a is shown tea, c bread.
    assert (report.hit, report.recall) == (1.0, 0.75)


def test_a_period_without_entries_judges_nobody(shop: Catalogue, histories: Histories) -> None:
    assert evaluate_popular_unseen(histories, len(shop.categories), 5 * DAY, 6 * DAY).num_users == 0
