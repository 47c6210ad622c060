"""Configuration: what a table opens, and what is wrong with one that opens nothing."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest

from serendipity.offline.language_models.config import (
    EndpointConfig,
    LocalConfig,
    read_language_model_config,
)
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import LanguageModelError, Prompt, Sampling
from tests.fixtures.tiny_language_model import make_tiny_language_model


def test_a_table_names_its_home() -> None:
    tables = tomllib.loads(
        """
        b = {kind = "local", path = "models/qwen", dtype = "bfloat16"}
        c = {kind = "endpoint", base_url = "https://api.deepseek.com/v1", model = "deepseek-reasoner"}
        """
    )
    kinds = [type(read_language_model_config(table)) for table in tables.values()]
    assert kinds == [LocalConfig, EndpointConfig]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "telepathy"}, "telepathy"),
        ({}, "kind"),
        ({"kind": "local"}, "local.path: Field required"),
        ({"kind": "local", "path": "x", "colour": "red"}, "local.colour: Extra inputs"),
        ({"kind": "endpoint", "base_url": "localhost:1", "model": "m"}, r"endpoint.base_url: .*expected http\(s\)"),
        ({"kind": "endpoint", "base_url": "http://me:pass@host/v1", "model": "m"}, "without credentials"),
        ({"kind": "endpoint", "base_url": "http://h/v1", "model": "m", "api_key": "sk-secret"}, "api_key: Extra"),
        ({"kind": "endpoint", "base_url": "http://h/v1", "model": "m", "api_key_env": "sk-secret"}, "api_key_env"),
    ],
)
def test_a_wrong_field_is_named_and_secrets_are_not_repeated(table: dict[str, object], said: str) -> None:
    with pytest.raises(LanguageModelError, match=said) as caught:
        read_language_model_config(table)
    assert "sk-secret" not in str(caught.value)
    assert "pass@" not in str(caught.value)


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
