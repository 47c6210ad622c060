"""Opens the language model that a configuration names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from serendipity.offline.language_models.completion_cache import CachedModel, CompletionCache
from serendipity.offline.language_models.config import (
    EndpointConfig,
    LanguageModelConfig,
)
from serendipity.offline.language_models.language_model import AnsweringModel

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
    if cache is None:
        return _home(config, environment)
    completions = CompletionCache.at(cache)
    completions.expire(clock() - KEEP_DAYS * 86_400)
    return CachedModel(_home(config, environment), completions)


def _home(config: LanguageModelConfig, environment: Mapping[str, str]) -> AnsweringModel:
    # Each home is imported where it is opened: none needs what the others are made with.
    if isinstance(config, EndpointConfig):
        from serendipity.offline.language_models.endpoint import EndpointModel

        return EndpointModel(config, environment=environment)
    from serendipity.offline.language_models.local import LocalModel

    return LocalModel.from_path(
        config.path, device=config.device, dtype=config.dtype, batch_size=config.batch_size, threads=config.threads
    )
