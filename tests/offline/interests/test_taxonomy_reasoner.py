from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendipity.interests.reasoner import Reasoner, UserContext
from serendipity.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.interests.text import comparable
from serendipity.novelty import CLICK_WINDOW
from serendipity.offline.interests.contexts import cold_context, contexts_at
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2

DAY = 86_400
NOW = 300 * DAY


def planted(catalogue: Catalogue, histories_of: Callable[..., Histories]) -> Histories:
    """Coffee drinkers turn to tea, owners of drills to saws; every ten days somebody starts."""
    clicks = []
    for n in range(120):
        first, second = ("espresso-1", "green-1") if n % 2 else ("drill-1", "saw-1")
        start = (n // 2 * 4 + 10) * DAY
        clicks += [(f"user {n:03}", first, start + day * DAY) for day in range(0, 30, 5)]
        clicks += [(f"user {n:03}", second, start + 40 * DAY)] * (start + 40 * DAY < NOW)
    return histories_of(catalogue, clicks)


def fitted(catalogue: Catalogue, histories: Histories, until: int = NOW) -> TaxonomyReasoner:
    return fit_reasoner(Taxonomy.from_catalogue(catalogue), histories, until)


def latent(reasoner: Reasoner, user: UserContext, k: int = 16) -> list[str]:
    return [interest.path.latent_interest for interest in reasoner.reason([user], k)[0]]


def user_with(catalogue: Catalogue, histories_of: Callable[..., Histories], *items: str, **more: object) -> UserContext:
    histories = histories_of(catalogue, [("u", item, NOW - (n + 1) * DAY) for n, item in enumerate(items)], **more)
    return contexts_at(histories, NOW)[0]


def test_interests_follow_planted_co_interest(shop: Catalogue, histories_of: Callable[..., Histories]) -> None:
    reasoner = fitted(shop, planted(shop, histories_of))
    assert latent(reasoner, user_with(shop, histories_of, "espresso-1", "filter-1"))[0] == "tea"
    assert latent(reasoner, user_with(shop, histories_of, "drill-1"))[0] == "saws"


def test_the_path_climbs_to_the_shared_parent_and_comes_down(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    reasoner = fitted(shop, planted(shop, histories_of))
    path = reasoner.reason([user_with(shop, histories_of, "espresso-1")])[0][0].path
    assert (path.seed, path.core_demand, path.latent_interest) == ("coffee", "food", "tea")
    assert path.seed_kind == records_pb2.SEED_KIND_CATEGORY
    assert path.relation == records_pb2.RELATION_CO_HYPONYM


def test_a_climb_out_of_the_seeds_branch_takes_the_interests_own_parent(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    clicks = [(f"u{n:03}", item, (n + 20 * i) * DAY) for n in range(200) for i, item in enumerate(("rye-1", "hose-1"))]
    reasoner = fitted(shop, histories_of(shop, clicks))
    path = reasoner.reason([user_with(shop, histories_of, "rye-1")])[0][0].path
    assert (path.seed, path.core_demand, path.latent_interest) == ("bread", "garden", "hoses")
    assert path.relation == records_pb2.RELATION_HYPONYM


def test_at_the_root_the_co_interest_itself_is_the_demand(
    catalogue_of: Callable[..., Catalogue], histories_of: Callable[..., Histories]
) -> None:
    films = catalogue_of({"f1": ("Drama", "War"), "f2": ("Comedy",), "f3": ("Horror",)}, novelty_level=0)
    clicks = [(f"u{n:03}", item, (n + 20 * i) * DAY) for n in range(200) for i, item in enumerate(("f1", "f2"))]
    path = fitted(films, histories_of(films, clicks)).reason([user_with(films, histories_of, "f1")])[0][0].path
    assert (path.seed, path.core_demand, path.latent_interest) == ("Drama", "Drama", "Comedy")
    assert path.relation == records_pb2.RELATION_CO_HYPONYM


def test_a_search_leads_to_what_it_names_and_what_goes_with_it(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    reasoner = fitted(shop, planted(shop, histories_of))
    without = reasoner.reason([user_with(shop, histories_of, "rye-1")])[0]
    user = user_with(shop, histories_of, "rye-1", searches=[("u", "cordless drill", NOW - DAY)])
    found = reasoner.reason([user])[0]
    by_name = {interest.path.latent_interest: interest for interest in found}
    drills = by_name["drills"]
    assert drills.weight > next(i.weight for i in without if i.path.latent_interest == "drills")
    assert (drills.path.seed_kind, drills.path.seed) == (records_pb2.SEED_KIND_SEARCH, "cordless drill")
    assert by_name["saws"].path.seed == "cordless drill"
    assert by_name["saws"].weight > next(i.weight for i in without if i.path.latent_interest == "saws")


def test_a_category_of_long_ago_outweighs_one_never_clicked(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    reasoner = fitted(shop, planted(shop, histories_of))
    recent = [("u", "rye-1", NOW - DAY - n * 60) for n in range(CLICK_WINDOW)]
    lapsed = contexts_at(histories_of(shop, [*recent, ("u", "hose-1", NOW - 40 * DAY)]), NOW)[0]
    never = contexts_at(histories_of(shop, recent), NOW)[0]
    number = shop.categories.index("hoses") + 1
    assert reasoner.probabilities([lapsed])[0, number] > reasoner.probabilities([never])[0, number]
    assert "hoses" in latent(reasoner, lapsed)


def test_a_name_below_two_parents_is_grounded_where_the_clicks_are(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    for item, path in (("saw-1", ("tools", "saws")), ("garden-saw", ("garden", "saws"))):
        reasoner = fitted(shop, histories_of(shop, [(f"u{n}", item, (n + 1) * DAY) for n in range(60)]))
        found = reasoner.reason([user_with(shop, histories_of, "rye-1")])[0]
        saws = next(interest for interest in found if interest.path.latent_interest == "saws")
        assert taxonomy.nodes[saws.node_id].path == path


def test_users_of_whom_nothing_is_known_get_what_most_click(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    histories = histories_of(
        shop, [(f"u{n:03}", item, (n % 250) * DAY) for n in range(250) for item in ("rye-1", "green-1")[: 1 + n % 2]]
    )
    found = fitted(shop, histories).reason([cold_context(NOW)], 3)[0]
    assert [interest.path.latent_interest for interest in found[:2]] == ["bread", "tea"]
    assert {interest.path.seed_kind for interest in found} == {records_pb2.SEED_KIND_POPULATION}
    assert found[0].path.core_demand == "food"


def test_logs_without_any_click_can_be_fitted(shop: Catalogue, histories_of: Callable[..., Histories]) -> None:
    reasoner = fitted(shop, histories_of(shop, []))
    found = reasoner.reason([cold_context(NOW), user_with(shop, histories_of, "rye-1")])
    assert [len(user) for user in found] == [6, 5]


ITEMS = ["espresso-1", "filter-1", "green-1", "rye-1", "drill-1", "saw-1", "garden-saw", "hose-1", "voucher"]
random_clicks = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(ITEMS), st.integers(0, 320).map(lambda day: day * DAY)),
    max_size=30,
)
any_histories = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_histories
@given(random_clicks)
def test_interests_are_novel_distinct_sorted_and_grounded(
    shop: Catalogue, histories_of: Callable[..., Histories], clicks: list[tuple[str, str, int]]
) -> None:
    histories = histories_of(shop, clicks)
    reasoner = fitted(shop, histories)
    users = contexts_at(histories, NOW)
    for user, interests in zip(users, reasoner.reason(users, 5), strict=True):
        assert len(interests) <= 5
        taxonomy = Taxonomy.from_catalogue(shop)
        nodes = [taxonomy.nodes[interest.node_id] for interest in interests]
        assert len({node.node_id for node in nodes}) == len(nodes)
        assert all(node.ranges and len(node.categories) == 1 for node in nodes)
        assert not {node.categories[0] for node in nodes} & set(user.clicks.categories.tolist())
        weights = [interest.weight for interest in interests]
        assert weights == sorted(weights, reverse=True)
        assert all(0 < weight <= 1 for weight in weights)
        assert all(i.path.core_demand and i.path.latent_interest for i in interests)
        assert all(comparable(i.path.seed) != comparable(i.path.latent_interest) for i in interests)


def test_a_category_that_nothing_else_speaks_for_than_its_own_past_has_no_seed(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    clicks = [("u", "rye-1", NOW - DAY - n * 60) for n in range(CLICK_WINDOW)]
    histories = histories_of(shop, [*clicks, *(("u", "hose-1", NOW - (40 + n) * DAY) for n in range(30))])
    # Learned of others: one's own clicks alone would speak for each other.
    (found,) = fitted(shop, planted(shop, histories_of)).reason(contexts_at(histories, NOW))
    hoses = next(interest.path for interest in found if interest.path.latent_interest == "hoses")
    assert (hoses.seed_kind, hoses.seed) == (records_pb2.SEED_KIND_PAST, "")
    assert hoses.core_demand == "garden"


def test_a_search_for_the_interest_itself_makes_no_detour(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    user = user_with(shop, histories_of, "rye-1", searches=[("u", "Saws", NOW - DAY)])
    (found,) = fitted(shop, planted(shop, histories_of)).reason([user])
    saws = next(interest.path for interest in found if interest.path.latent_interest == "saws")
    assert (saws.seed_kind, saws.seed, saws.core_demand) == (records_pb2.SEED_KIND_SEARCH, "Saws", "saws")


def test_a_reasoner_that_was_written_reasons_as_before(
    shop: Catalogue, histories_of: Callable[..., Histories], tmp_path: Path
) -> None:
    histories, taxonomy = planted(shop, histories_of), Taxonomy.from_catalogue(shop)
    reasoner, users = fitted(shop, histories), contexts_at(histories, NOW)
    path = tmp_path / "reasoner.npz"
    path.write_bytes(reasoner.content())
    node_paths = {node.node_id: node.path for node in taxonomy.nodes}
    read = TaxonomyReasoner.read(path, len(shop.categories), node_paths, taxonomy.searched_names)
    assert read.reason(users) == reasoner.reason(users)
    assert read.content() == path.read_bytes()
    with pytest.raises(ValueError, match=r"reasoner\.npz: .*expected 10"):
        TaxonomyReasoner.read(path, 9, node_paths, taxonomy.searched_names)


@any_histories
@given(random_clicks)
def test_what_comes_later_changes_nothing(
    shop: Catalogue, histories_of: Callable[..., Histories], clicks: list[tuple[str, str, int]]
) -> None:
    past = [click for click in clicks if click[2] < NOW]
    known = {user: {} for user, _, _ in past}
    full, cut = histories_of(shop, clicks), histories_of(shop, past, profiles=known)
    users = contexts_at(cut, NOW)
    assert fitted(shop, full).reason(users) == fitted(shop, cut).reason(users)


@any_histories
@given(random_clicks)
def test_a_batch_answers_as_single_calls_do(
    shop: Catalogue, histories_of: Callable[..., Histories], clicks: list[tuple[str, str, int]]
) -> None:
    histories = histories_of(shop, clicks)
    reasoner = fitted(shop, histories)
    users = contexts_at(histories, NOW)
    batch = reasoner.reason(users)
    for user, interests in zip(users, batch, strict=True):
        alone = reasoner.reason([user])[0]
        assert {i.node_id for i in alone} == {i.node_id for i in interests}
        found = {i.node_id: i.weight for i in interests}
        assert all(np.isclose(i.weight, found[i.node_id], rtol=1e-5) for i in alone)
