"""A user's context at a moment → what a language model is told of the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from serendipity.interests.facts import FactsRule, told_searches, told_titles, user_facts
from serendipity.interests.prompt import UserFacts
from serendipity.offline.configuration import Configuration
from serendipity.offline.interests.reasoner import UserContext


class FactsConfig(Configuration):
    """Which of a user's signals feed the prompt. Profile and categories always do, as far as they are known."""

    search_days: Annotated[float, Field(ge=0, le=30)] = 30.0
    """Days of searches (Dewu, arXiv 2508.04032: 30). 0: none."""
    clicked_titles: Literal["always", "without searches", "never"] = "always"
    """When titles of the items clicked last are told."""
    signal_titles: bool = True
    """Tell titles of items that were viewed, made a favourite and the like as well, where the logs have them."""


EVERYTHING = FactsConfig()


def facts_of(
    context: UserContext, categories: Sequence[str], titles: Sequence[str], rule: FactsRule = EVERYTHING
) -> UserFacts:
    """Describe a user as of the context's moment.

    categories: names of the top-level categories by number − 1; titles: of the catalogue's items, by row.
    """
    searches = told_searches(context.searches, context.now, rule)
    return user_facts(
        context.clicks,
        context.long_history,
        categories,
        context.now,
        profile=context.profile,
        searches=searches,
        titles=told_titles(context.clicks, context.signals, titles.__getitem__, rule, has_searches=bool(searches)),
    )
