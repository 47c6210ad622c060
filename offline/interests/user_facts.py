"""A user's context at a moment → what a language model is told of the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serendipity.interests.facts import user_facts
from serendipity.interests.prompt import MAX_SEARCHES, MAX_TITLES, UserFacts
from serendipity.offline.interests.reasoner import UserContext

_DAY = 86_400


class FactsConfig(BaseModel):
    """Which of a user's signals feed the prompt. Profile and categories always do, as far as they are known."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    search_days: Annotated[float, Field(ge=0, le=30)] = 30.0
    """Days of searches (Dewu, arXiv 2508.04032: 30). 0: none."""
    clicked_titles: Literal["always", "without searches", "never"] = "always"
    """When titles of the items clicked last are told."""
    signal_titles: bool = True
    """Tell titles of items that were viewed, made a favourite and the like as well, where the logs have them."""


EVERYTHING = FactsConfig()


def facts_of(
    context: UserContext, categories: Sequence[str], titles: Sequence[str], config: FactsConfig = EVERYTHING
) -> UserFacts:
    """Describe a user as of the context's moment.

    categories: names of the top-level categories by number − 1; titles: of the catalogue's items, by row. Titles come
    newest first, each item once, clicks before other signals of the same second.
    """
    earliest = context.now - config.search_days * _DAY
    searches = [query for query, time in context.searches if time >= earliest and config.search_days]
    told = [*dict.fromkeys(searches)][: 4 * MAX_SEARCHES]
    return user_facts(
        context.clicks,
        context.long_history,
        categories,
        context.now,
        profile=context.profile,
        searches=told,
        titles=_titles(context, titles, config, bool(told)),
    )


def _titles(context: UserContext, titles: Sequence[str], config: FactsConfig, has_searches: bool) -> list[str]:
    seen: list[tuple[int, int]] = []
    if config.clicked_titles == "always" or (config.clicked_titles == "without searches" and not has_searches):
        seen += zip(context.clicks.items.tolist(), context.clicks.times.tolist(), strict=True)
    if config.signal_titles:
        seen += context.signals
    newest = sorted(seen, key=lambda event: -event[1])
    rows = dict.fromkeys(item - 1 for item, _ in newest if item)
    return [*dict.fromkeys(titles[row] for row in rows)][: 4 * MAX_TITLES]
