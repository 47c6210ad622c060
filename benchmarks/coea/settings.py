"""What the comparison's LLMs learn from: more than a build's, which has no time for it."""

from __future__ import annotations

from serendipity.offline.coevolution.config import CoevolutionConfig, ExamplesConfig
from serendipity.offline.coevolution.pco_config import PcoConfig


def llms_of(base: str) -> CoevolutionConfig:
    """Give the configuration of both LLMs. base: as in CoevolutionConfig."""
    return CoevolutionConfig(
        base=base, examples=ExamplesConfig(max_novelty=16_000, max_relevance=16_000), pco=PcoConfig(cycles=10)
    )
