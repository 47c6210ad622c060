"""How a build finds its users' latent interests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.configuration import Configuration
from serendipity.offline.interests.clusters import ClustersConfig
from serendipity.offline.interests.debate import NO_DEBATE, DebateConfig
from serendipity.offline.interests.hops import Mode
from serendipity.offline.interests.user_facts import EVERYTHING, FactsConfig
from serendipity.offline.language_models.config import LanguageModelConfig


class LlmReasonerConfig(Configuration):
    """Reasoning by language models, one or several in a debate: [[interests.reasoner.models]]."""

    models: Annotated[tuple[LanguageModelConfig, ...], Field(min_length=1)]
    """The models; agents of a debate are given them in turn."""
    mode: Mode = "two-hop"
    """How they are asked: two-hop, or json for models that can do both hops in one answer."""
    style: PromptStyle = "chat"
    """How a user is described in mode json."""
    debate: DebateConfig = NO_DEBATE
    """Agents and rounds."""
    facts: FactsConfig = EVERYTHING
    """Which of a user's signals the models are told."""


class InterestsConfig(Configuration):
    """Latent interests: who finds them, and what they ground in."""

    reasoner: Literal["taxonomy"] | LlmReasonerConfig = "taxonomy"
    """Who finds them: the catalogue's taxonomy and the logs alone, or a table of language models."""
    clusters: ClustersConfig = ClustersConfig()
    """When what reasoners name becomes a node of the vocabulary."""
    grounding_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Least cosine at which a name grounds by the text encoder; none: tuned on the catalogue's names."""
