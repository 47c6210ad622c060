"""A language model reasons like any other reasoner: grounded nodes, paths, and a graph with what was dropped."""

from __future__ import annotations

import json
import logging
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.reasoner import Reasoner
from serendipity.offline.interests.debate import DebateConfig
from serendipity.offline.interests.graph import UserGraph
from serendipity.offline.interests.hops import Mode, prompting_of
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.v1 import records_pb2
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, any_text
from tests.fixtures.shopkeeper import Shopkeeper
from tests.fixtures.small_shop import make_context, make_grounder
from tests.offline.interests.conftest import SHOP, make_catalogue

TAXONOMY = Taxonomy.from_catalogue(make_catalogue(SHOP))
GROUNDER = make_grounder(TAXONOMY)


def make_reasoner(*models: Shopkeeper, mode: Mode = "two-hop", debate: DebateConfig | None = None) -> LlmReasoner:
    return LlmReasoner(
        list(models) or [Shopkeeper()], GROUNDER, TAXONOMY.categories, (), prompting_of(mode),
        debate=debate or DebateConfig(), batch_users=2,
    )  # fmt: skip


@pytest.mark.parametrize("mode", get_args(Mode))
def test_interests_are_novel_nodes_best_first_each_once(mode: Mode) -> None:
    reasoner: Reasoner = make_reasoner(mode=mode)
    users = [
        make_context(TAXONOMY, *some, user_id=f"u{n}")
        for n, some in enumerate([("coffee",), ("drills", "tea"), ("saws",)])
    ]
    for user, interests in zip(users, reasoner.reason(users, 3), strict=True):
        ids = [interest.node_id for interest in interests]
        assert len(ids) == len(set(ids)) <= 3
        weights = [interest.weight for interest in interests]
        assert weights == sorted(weights, reverse=True)
        assert all(0 < weight <= 1 for weight in weights)
        for node_id in ids:
            assert not {*TAXONOMY.nodes[node_id].categories} & {*user.clicks.categories.tolist()}


def test_the_path_tells_both_hops() -> None:
    ((interest,),) = make_reasoner().reason([make_context(TAXONOMY, "coffee")])
    path = interest.path
    assert (path.seed_kind, path.seed) == (records_pb2.SEED_KIND_CATEGORY, "coffee")
    # "hot drinks" is like no node of this shop, so the node above is told instead.
    assert (path.core_demand, path.latent_interest) == ("tea", "green tea")
    assert path.relation == records_pb2.RELATION_HYPONYM


def test_everything_said_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    reasoner = make_reasoner(Shopkeeper(own=[("green tea", "tea")]))
    with caplog.at_level(logging.INFO):
        reasoner.reason([make_context(TAXONOMY, "coffee"), make_context(TAXONOMY)])
    counts = reasoner.counts
    assert counts is not None
    assert (counts.users, counts.untold, counts.answers, counts.parse_failures) == (2, 1, 1, 0)
    assert (counts.proposals, counts.grounded, counts.kept) == (3, 2, 1)
    assert (counts.ungrounded, counts.known, counts.repeated) == (1, 1, 0)
    assert "ungrounded=1" in caplog.text
    assert "shopkeeper two-hop 1 × 1" in caplog.text


def test_a_user_of_whom_nothing_is_known_is_not_asked_about() -> None:
    model = Shopkeeper()
    found, (graph,) = make_reasoner(model).reason_with_graphs([make_context(TAXONOMY)], 5)
    assert (found, graph.nodes, model.asked) == ([[]], (), [])


def test_the_graph_holds_what_was_kept_and_why_the_rest_was_not() -> None:
    models = [Shopkeeper(), Shopkeeper(own=[("hoses", "hoses")])]
    reasoner = make_reasoner(*models, debate=DebateConfig(agents=2, rounds=2))
    (interests,), (graph,) = reasoner.reason_with_graphs([make_context(TAXONOMY, "coffee", user_id="ada")], 5)
    assert (graph.user_id, graph.reasoner) == ("ada", "shopkeeper two-hop 2 × 2")
    assert [node.interest_node for node in graph.interests] == [interest.node_id for interest in interests]
    assert {node.text: node.dropped for node in graph.nodes if node.dropped} == {
        "unicorns": "ungrounded", "espresso": "known",
    }  # fmt: skip
    agents = {node.text: edge.agents for edge in graph.edges for node in graph.nodes if node.key == edge.target}
    assert agents["green tea"] == ("agent 1", "agent 2")
    assert agents["hoses"] == ("agent 2",)
    assert UserGraph.from_fields(json.loads(graph.to_json())) == graph


def test_a_lone_agents_order_stands_and_weights_still_fall() -> None:
    model = Shopkeeper(own=[("tools saws hand saw", ""), ("rye", "bread")])
    (interests,) = make_reasoner(model).reason([make_context(TAXONOMY, "coffee")])
    assert [interest.path.latent_interest for interest in interests] == ["green tea", "tools saws hand saw", "rye"]
    assert interests[1].path.score < interests[2].path.score
    assert interests[1].weight == interests[2].weight


def test_batches_change_nothing() -> None:
    users = [make_context(TAXONOMY, name, user_id=name) for name in ("coffee", "tea", "drills", "saws", "bread")]
    together = make_reasoner(debate=DebateConfig(agents=2, rounds=2))
    alone = [make_reasoner(debate=DebateConfig(agents=2, rounds=2)).reason([user], 4)[0] for user in users]
    assert together.reason(users, 4) == alone
    assert together.report is not None
    assert together.report.users == len(users)


@pytest.mark.parametrize("mode", get_args(Mode))
@given(searches=st.lists(any_text, max_size=4), said=st.lists(st.tuples(any_text, any_text), max_size=4))
def test_whatever_is_typed_and_answered_only_vocabulary_leaves(
    mode: Mode, searches: list[str], said: list[tuple[str, str]]
) -> None:
    user = make_context(TAXONOMY, "coffee", searches=searches, profile={"age": HOSTILE_TEXTS[2]})
    reasoner = make_reasoner(Shopkeeper(own=said), mode=mode, debate=DebateConfig(agents=2, rounds=2))
    (interests,), (graph,) = reasoner.reason_with_graphs([user], 5)
    for interest in interests:
        node = TAXONOMY.nodes[interest.node_id]
        assert not {*node.categories} & {*user.clicks.categories.tolist()}
        assert len(interest.path.latent_interest) <= 80
        assert len(interest.path.core_demand) <= 80
    assert UserGraph.from_fields(json.loads(graph.to_json())) == graph
