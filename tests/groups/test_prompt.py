"""How the Novelty and Relevance LLMs are asked."""

from __future__ import annotations

from serendipity.groups.prompt import MAX_PROFILE_CHARS, NOVELTY_TRIGGER, novelty_prompt, relevance_prompt


def test_compact_prompts_are_bare_facts() -> None:
    assert novelty_prompt("likes War", ["Drama", "Comedy"], "compact") == (
        "group: likes War\nrecent: Drama; Comedy\nnovel:"
    )
    assert relevance_prompt("", [], "War", "compact") == "group: \nrecent: \ncandidate: War"


def test_chat_prompts_end_in_the_novelty_trigger_when_candidates_are_wanted() -> None:
    assert novelty_prompt("p", ["Drama"], "chat").endswith(NOVELTY_TRIGGER)
    assert NOVELTY_TRIGGER not in novelty_prompt("p", ["Drama"], "chat", trigger=False)


def test_profiles_are_cleaned_and_bounded() -> None:
    prompt = novelty_prompt("line\nbreak\x00 " + "x" * 1_000, ["Dra\nma"], "compact")
    assert prompt.count("\n") == 2
    assert len(prompt) < MAX_PROFILE_CHARS + 60
