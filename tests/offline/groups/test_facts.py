import numpy as np

from serendipity.offline.groups.facts import GroupFacts, category_shares, describe, group_facts

NAMES = ["Film-Noir", "Children's", "War"]


def test_shares_count_every_user_alike_and_ignore_clicks_without_a_category() -> None:
    users, categories = np.array([0, 0, 0, 0, 2]), np.array([1, 1, 2, 0, 3], np.int32)
    shares = category_shares(users, categories, 3, 3)
    assert np.allclose(shares, [[0, 2 / 3, 1 / 3, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_a_category_sets_a_group_apart_by_its_part_in_the_divergence() -> None:
    # Twenty users of each group: group 1 takes Film-Noir, group 2 Children's; all take War.
    shares = np.zeros((40, 4))
    shares[:20, 1], shares[20:, 2], shares[:, 3] = 0.4, 0.4, 0.6
    group_ids = np.repeat([1, 2], 20).astype(np.int32)
    default, first, second = group_facts(shares, group_ids, 2, names=2)
    assert first.apart == (1,)
    assert (first.often, first.rarely) == ((3,), (2,))
    assert (second.apart, second.often, second.rarely) == ((2,), (3,), (1,))
    # (20 · 0.4 + 5 · 0.2) / 25 against 0.2.
    assert np.allclose(first.lifts, (0.36 / 0.2,))
    assert default.apart == ()
    assert default.often == (3, 1, 2)


def test_a_group_without_users_is_the_population() -> None:
    shares = np.array([[0, 0.5, 0.5, 0.0]])
    empty = group_facts(shares, np.array([0], np.int32), 1, names=3)[1]
    assert empty == GroupFacts((), (), (1, 2), ())


def test_names_stand_in_profiles_as_they_are() -> None:
    facts = GroupFacts((1, 3), (2.0, 1.5), (), (2,))
    assert describe(facts, NAMES) == "prefers Film-Noir, War. rarely Children's"


def test_a_profile_leaves_out_names_that_do_not_fit() -> None:
    facts = GroupFacts((1, 2, 3), (2.0, 1.5, 1.2), (), ())
    assert describe(facts, NAMES, most=22) == "prefers Film-Noir, War"


def test_nothing_known_is_said() -> None:
    assert describe(GroupFacts((), (), (), ()), NAMES) == "no clicks yet"
