"""How the Novelty and the Relevance LLM are asked: one code for training data, batch inference and near-line.

The prompts of the paper (arXiv 2508.00450, figure 7) were not published; these are ours. A profile is written by a
model from catalogue data, never by users; it is cleaned and bounded all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from serendipity.interests.prompt import PromptStyle
from serendipity.interests.text import clean_text

MAX_PROFILE_CHARS = 400

NOVELTY_INSTRUCTIONS = (
    "You explore what a group of users may want next. You are told the profile of the group and the categories one "
    "of them chose last. Answer with the name of one catalogue category that this user has not chosen lately and "
    "may want now. Answer with the name alone."
)
"""System message of the Novelty LLM in the chat style."""

NOVELTY_TRIGGER = "Propose a novel category: one that is not among them."
"""Ends the user message when candidates are generated; tuning prompts leave it out where the base follows
instructions (arXiv 2508.00450, eq. 10). The compact style has it in both: a model trained from scratch knows only
what it was trained on."""

RELEVANCE_INSTRUCTIONS = (
    "You judge whether a user will like a category. You are told the profile of the user's group, the categories "
    "the user chose last and a candidate category."
)
"""System message of the Relevance LLM in the chat style."""


def novelty_prompt(profile: str, categories: Sequence[str], style: PromptStyle, *, trigger: bool = True) -> str:
    """Write the user message that asks the Novelty LLM for a category (p of eq. 8 and 10).

    profile: of the group, empty where groups are not told; categories: the short-term set, newest first.
    The answer is a category's name, after a space in the compact style.
    """
    told = _told(profile, categories, style)
    if style == "compact":
        return f"{told}novel:"
    return f"{told}{NOVELTY_TRIGGER}" if trigger else f"{told}Next category?"


def relevance_prompt(profile: str, categories: Sequence[str], candidate: str, style: PromptStyle) -> str:
    """Write the user message that the Relevance LLM scores (x and c of eq. 11 to 13)."""
    told = _told(profile, categories, style)
    candidate = clean_text(candidate)
    return f"{told}candidate: {candidate}" if style == "compact" else f"{told}Candidate category: {candidate}"


def answer(category: str, style: PromptStyle) -> str:
    """Write what the Novelty LLM answers for a category, after the prompt: its name, in the compact style spaced."""
    name = clean_text(category)
    return f" {name}" if style == "compact" else name


def _told(profile: str, categories: Sequence[str], style: PromptStyle) -> str:
    cleaned = clean_text(profile, MAX_PROFILE_CHARS)
    names = [name for name in map(clean_text, categories) if name]
    if style == "compact":
        return f"group: {cleaned}\nrecent: {'; '.join(names)}\n"
    lines = [f"Group profile: {cleaned}"] if cleaned else []
    lines.append(f"Latest categories: {'; '.join(names) or 'none'}")
    return "\n".join(lines) + "\n"
