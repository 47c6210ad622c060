"""`python -m benchmarks.interests` says what it lacks."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmarks.interests.__main__ import main, read_language_model_config
from serendipity.offline.language_models.config import EndpointConfig, LocalConfig
from serendipity.offline.language_models.language_model import LanguageModelError


def test_a_build_that_held_nothing_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path / "none")]) == 1
    assert f"{tmp_path / 'none'}: no such directory" in capsys.readouterr().err
    (tmp_path / "logs").mkdir()
    assert main(["--build", str(tmp_path)]) == 1
    assert "expected a build with hold_out above 0" in capsys.readouterr().err


def test_an_encoder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path), "--text-encoder", str(tmp_path)]) == 1
    assert f"{tmp_path / 'config.json'}: missing" in capsys.readouterr().err


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
