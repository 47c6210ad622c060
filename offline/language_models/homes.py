"""Opens the language model that a configuration names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from serendipity.offline.language_models.answering_model import AnsweringModel
from serendipity.offline.language_models.completion_cache import CompletionCache
from serendipity.offline.language_models.config import EndpointConfig, LanguageModelConfig

KEEP_DAYS = 30
"""Days an answer is kept: it may quote what a user typed who is to be forgotten, and users have changed by then."""


def open_language_model(
    config: LanguageModelConfig,
    cache: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> AnsweringModel:
    """Open a language model.

    cache: directory of completions, shared by all models; none: every prompt is asked anew. Answers older than 30 days
    are deleted from it first. environment: holds the API key. clock: Unix seconds.
    Raises LanguageModelError when it cannot be opened; an endpoint that is away is found out at the first
    prompt.
    """
    completions = None
    if cache is not None:
        completions = CompletionCache.at(cache)
        completions.expire(clock() - KEEP_DAYS * 86_400)
    # Each home is imported where it is opened: none needs what the others are made with.
    if isinstance(config, EndpointConfig):
        from serendipity.offline.language_models.endpoint import EndpointModel

        return EndpointModel(config, completions, environment=environment)
    from serendipity.offline.language_models.local import LocalModel

    return LocalModel.open(config, completions)
