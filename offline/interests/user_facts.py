"""Which of a user's signals a build tells language models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serendipity.offline.configuration import Configuration


class FactsConfig(Configuration):
    """Which of a user's signals feed the prompt. Profile and categories always do, as far as they are known."""

    search_days: Annotated[float, Field(ge=0, le=30)] = 30.0
    """Days of searches (Dewu, arXiv 2508.04032: 30). 0: none."""
    clicked_titles: Literal["always", "without searches", "never"] = "always"
    """When titles of the items clicked last are told."""
    signal_titles: bool = True
    """Tell titles of items that were viewed, made a favourite and the like as well, where the logs have them."""


EVERYTHING = FactsConfig()
