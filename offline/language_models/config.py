"""Which language model answers, and where it runs: tables of a TOML file.

[interests.language_model]
kind = "endpoint"
base_url = "http://127.0.0.1:8000/v1"
model = "deepseek-ai/DeepSeek-R1"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from serendipity.offline.configuration import Configuration


class LocalConfig(Configuration):
    """A causal language model that transformers loads."""

    kind: Literal["local"] = "local"
    """That it is such a model."""
    path: Path
    """Directory as save_pretrained writes it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto: on all GPUs if there are any."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto: bfloat16 on GPUs, float32 on the CPU."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Prompts answered at a time. SmolLM2-135M on two cores writes 135 tokens/s at 32, and 15 at 8."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads on the CPU. More help where their cores are idle; where others use them too, two took ten times as long
    as one."""


class EndpointConfig(Configuration):
    """An OpenAI-compatible endpoint: DeepSeek, vLLM, `transformers serve` …"""

    kind: Literal["endpoint"] = "endpoint"
    """That it is such a model."""
    base_url: str
    """Up to and with /v1, without credentials."""
    model: Annotated[str, Field(min_length=1)]
    """As the endpoint names it."""
    name: str = ""
    """Under which answers are cached; empty: as the endpoint names it. Change it when the endpoint's weights change."""
    api_key_env: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", max_length=64)] = ""
    """Environment variable that holds the API key; empty: the endpoint wants none."""
    takes_sampling: bool = True
    """The endpoint takes temperature and seed. Where it refuses them, only the cache makes answers repeatable."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the bound of an answer."""
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens a reasoning model may think beyond those of its answer."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Requests in flight at most."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds of one attempt."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 5
    """Further attempts after one that met a limit (429), a failing server (5xx), a lost connection or its timeout."""

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError("expected http(s)://host/… without credentials")
        return url


LanguageModelConfig = Annotated[LocalConfig | EndpointConfig, Field(discriminator="kind")]
"""A table with `kind` and the fields of that kind."""
