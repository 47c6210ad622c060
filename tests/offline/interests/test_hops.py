"""Prompts ask in one hop, in two or for JSON; lines are read however a model writes them."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.interests.single_hop import SingleHop
from serendipity.interests.answer import Proposal
from serendipity.interests.prompt import INSTRUCTIONS, CategoryFact, UserFacts
from serendipity.interests.text import MAX_CHARS
from serendipity.offline.interests.hops import (
    MAX_SEEDS,
    Mode,
    Shown,
    prompting_of,
    read_demand,
    read_interests,
    read_lines,
    seeds_of,
)
from serendipity.offline.language_models.language_model import Sampling
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, any_text
from tests.fixtures.shopkeeper import Shopkeeper

DRINKER = UserFacts(recent=[CategoryFact("coffee", 9, 1), CategoryFact("tea", 2, 3)])
BUILDER = UserFacts(recent=[CategoryFact("drills", 4, 1), CategoryFact("coffee", 1, 9)])
PATHS = [("coffee", "hot drinks"), ("drills", "home improvement")]


@pytest.mark.parametrize(
    "line",
    [
        "hot drinks -> green tea (tea)",
        "1. hot drinks → green tea (tea)",
        "- **Hot drinks** => green tea [tea]",
        "* hot drinks: green tea (tea).",
        "3) Hot Drinks - green tea (tea)",
        "hot drinks -> green tea -> tea",
        "Need: hot drinks -> green tea (tea)",
        "`hot drinks` ⇒ green tea (tea)",
    ],
)
def test_a_line_of_hop_two_reads_the_same_however_it_is_written(line: str) -> None:
    found = read_interests(line, PATHS)
    assert [(p.seed, p.interest, p.category) for p in found] == [("coffee", "green tea", "tea")]
    assert found[0].demand == "hot drinks"


def test_a_need_in_other_words_finds_its_seed_and_an_unknown_one_has_none() -> None:
    found = read_interests("improvement at home -> hand saws (saws)\npets -> leash (dogs)", PATHS)
    assert [(p.seed, p.demand) for p in found] == [("drills", "home improvement"), ("", "pets")]


def test_lines_without_a_need_continue_the_last_one_and_chatter_is_passed_over() -> None:
    text = "Sure, happy to help!\nHere are the products:\nhot drinks -> green tea (tea)\nespresso (coffee)\n"
    text += "Enjoy all of the wonderful new products that I found for you!"
    assert [(p.seed, p.interest) for p in read_interests(text, PATHS)] == [
        ("coffee", "green tea"),
        ("coffee", "espresso"),
    ]


def test_the_demand_is_the_first_line_that_says_something() -> None:
    assert read_demand("\n  Need: staying warm.\nItem: tea") == "staying warm"
    assert read_demand("hot drinks") == "hot drinks"
    assert read_demand("\n \n") == ""
    assert len(read_demand("a very " * 50).split()) == 6


@given(any_text, st.lists(st.tuples(any_text, any_text), max_size=3))
def test_whatever_a_model_writes_is_read_into_clean_bounded_texts(text: str, paths: list[tuple[str, str]]) -> None:
    for proposal in read_interests(text, paths):
        assert proposal.interest or proposal.category
        assert max(len(proposal.interest), len(proposal.category)) <= MAX_CHARS
    assert len(read_lines(text)) <= 60
    assert len(read_demand(text)) <= 2 * MAX_CHARS


def test_two_hops_ask_once_a_seed_and_once_a_user() -> None:
    model = Shopkeeper()
    replies = prompting_of("two-hop").ask(
        model, [DRINKER, BUILDER], Sampling(max_new_tokens=99, temperature=0.5, seed=3)
    )
    hop_1 = [prompt for prompt, _ in model.asked if "Need:" in prompt.user and "Needs:" not in prompt.user]
    assert [prompt.user for prompt in hop_1] == ["Item: coffee\nNeed:", "Item: tea\nNeed:", "Item: drills\nNeed:"]
    assert {(sampling.temperature, sampling.seed) for _, sampling in model.asked} == {(0.5, 3)}
    assert [reply.calls for reply in replies] == [3, 2]
    assert replies[1].proposals == (
        Proposal("drills", "home improvement", "hand saws", "saws"),
        Proposal("drills", "home improvement", "hoses", "hoses"),
        Proposal("coffee", "hot drinks", "green tea", "tea"),
        Proposal("coffee", "hot drinks", "espresso", "coffee"),
        Proposal("coffee", "hot drinks", "unicorns", "magic"),
    )


def test_one_hop_names_categories_without_a_demand() -> None:
    (reply,) = SingleHop().ask(Shopkeeper(), [DRINKER], Sampling())
    assert reply.proposals[0] == Proposal("coffee", "", "tea", "")
    assert (reply.calls, reply.error) == (1, "")


def test_json_is_asked_for_as_the_instructions_say_and_compact_prompts_have_none() -> None:
    model = Shopkeeper()
    (reply,) = prompting_of("json").ask(model, [BUILDER], Sampling())
    assert model.asked[0][0].system == INSTRUCTIONS
    assert json.loads(model.asked[0][0].user)["recent_categories"] == ["drills", "coffee"]
    assert reply.proposals[0] == Proposal("drills", "home improvement", "hand saws", "saws")
    prompting_of("json", style="compact").ask(model, [BUILDER], Sampling())
    assert model.asked[1][0].system == ""
    assert model.asked[1][0].user.endswith("interests:")


def test_an_answer_that_cannot_be_read_says_so() -> None:
    for mode in get_args(Mode):
        (reply,) = prompting_of(mode).ask(Shopkeeper(mumbles=0), [UserFacts()], Sampling())
        assert not any(proposal.category for proposal in reply.proposals)
    assert (
        "found 'Hm.', expected lines"
        in prompting_of("two-hop").ask(Shopkeeper(mumbles=0), [DRINKER], Sampling())[0].error
    )
    assert "expected JSON" in prompting_of("json").ask(Shopkeeper(mumbles=0), [DRINKER], Sampling())[0].error


def test_seeds_are_searches_then_behaviour_and_the_profile_only_alone() -> None:
    facts = UserFacts(
        {"age": "25-34"}, ["tea pot"], ["mug"], [CategoryFact("tea", 1, 1)], [CategoryFact("saws", 1, 99)]
    )
    assert seeds_of(facts) == ["tea pot", "tea", "mug", "saws"]
    assert seeds_of(UserFacts({"age": "25-34"})) == ["age 25-34"]
    assert len(seeds_of(UserFacts(searches=[f"search {n}" for n in range(20)]))) == MAX_SEEDS
    assert seeds_of(UserFacts()) == []


@pytest.mark.parametrize("mode", get_args(Mode))
def test_hostile_text_stays_on_its_line_in_every_prompt(mode: str) -> None:
    model = Shopkeeper()
    hostile = [Proposal(text, text, text, text) for text in HOSTILE_TEXTS]
    facts = UserFacts({"age": HOSTILE_TEXTS[1]}, HOSTILE_TEXTS, HOSTILE_TEXTS, [CategoryFact(HOSTILE_TEXTS[0], 1, 1)])
    prompting_of(mode).ask(model, [facts], Sampling(), [Shown(hostile, [hostile, hostile])])  # type: ignore[arg-type]
    for prompt, _ in model.asked:
        assert len(prompt.user) < 12_000
        assert not set("<|{}`\x00\x1b\u202e\ud800") & set(prompt.user) - set("<|{}`" if mode == "json" else "")
        assert "<|im_start|>" not in prompt.user
        prompt.user.encode("utf-8")
    if mode == "json":
        lines = model.asked[0][0].user.split("\n\n")
        assert set(json.loads(lines[0])) >= {"searches", "recent_categories"}
        assert all(json.loads(line.partition(": ")[2])["interests"] for line in lines[1:4])


def test_later_rounds_show_every_answer_and_a_lone_agent_is_asked_to_check_its_own() -> None:
    tea, saws = Proposal("coffee", "hot drinks", "green tea", "tea"), Proposal("", "", "hand saws", "saws")
    for mode in get_args(Mode):
        model = Shopkeeper()
        prompting_of(mode).ask(model, [DRINKER, DRINKER], Sampling(), [Shown([tea], [[saws]]), Shown([tea], [])])
        debated, alone = (prompt.user for prompt, _ in model.asked[-2:])
        assert "Your answer:" in debated
        assert "Answer of agent 1:" in debated
        assert "hand saws" in debated
        assert "updated answer" in debated
        assert "Check your answer" in alone
        assert "Answer of agent" not in alone
