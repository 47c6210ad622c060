"""What a configuration opens, and why one opens nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from serendipity.offline.language_models.config import EndpointConfig, LocalConfig
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import LanguageModelError, Prompt, Sampling
from tests.fixtures.tiny_language_model import make_tiny_language_model


def test_with_a_cache_a_home_is_asked_once(tmp_path: Path) -> None:
    path = make_tiny_language_model(tmp_path / "model")
    config = LocalConfig(path=path)
    plain = open_language_model(config)
    cached = open_language_model(config, tmp_path / "cache")
    sampling = Sampling(max_new_tokens=4)
    expected = plain.complete([Prompt("tea")], sampling)
    assert [cached.complete([Prompt("tea")], sampling) for _ in range(2)] == [expected, expected]
    assert (cached.name, cached.usage.cache_hits) == (plain.name, 1)
    reopened = open_language_model(config, tmp_path / "cache")
    assert reopened.complete([Prompt("tea")], sampling) == expected
    assert (reopened.usage.prompts, reopened.usage.cache_hits, reopened.usage.prompt_tokens) == (1, 1, 0)
    month_later = open_language_model(config, tmp_path / "cache", clock=lambda: time.time() + 31 * 86_400)
    assert month_later.complete([Prompt("tea")], sampling) == expected
    assert month_later.usage.cache_hits == 0


def test_a_home_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"config\.json: cannot be read"):
        open_language_model(LocalConfig(path=tmp_path / "nothing"))
    config = EndpointConfig(base_url="http://h/v1", model="m", api_key_env="KEY")
    with pytest.raises(LanguageModelError, match="variable KEY: found nothing"):
        open_language_model(config, environment={})
