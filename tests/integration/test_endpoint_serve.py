"""The endpoint's client against a real OpenAI-compatible server: `transformers serve` with the packaged SmolLM2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.smollm2 import default_cache_dir, smollm2_path
from serendipity.offline.language_models.completion_cache import CompletionCache
from serendipity.offline.language_models.config import EndpointConfig, LocalConfig
from serendipity.offline.language_models.endpoint import EndpointModel
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import Completion, LanguageModelError, Prompt, Sampling

pytestmark = pytest.mark.integration

SHORT = Sampling(max_new_tokens=4)
PROMPTS = [Prompt(f"What comes after {number}? Say only the number.") for number in range(12)]


@dataclass(frozen=True)
class Serving:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def serving(model: Path, log: Path) -> Iterator[Serving]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=output,
            stderr=output,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield Serving(process, f"http://127.0.0.1:{port}/v1")
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if json.load(answer) == {"status": "ok"}:
                    return
        except OSError:
            # Not listening yet.
            time.sleep(0.1)
    pytest.fail(f"transformers serve: not healthy; it said: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return smollm2_path(default_cache_dir())


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(smollm2, tmp_path_factory.mktemp("serve") / "serve.log") as running:
        yield running


def endpoint_model(url: str, model: Path, cache: CompletionCache | None = None, **fields: object) -> EndpointModel:
    config = EndpointConfig.model_validate(
        {"base_url": url, "model": str(model), "name": "smollm2", "max_concurrency": 2, **fields}
    )
    return EndpointModel(config, cache)


def test_an_endpoint_answers_and_counts_as_the_model_does_that_runs_here(server: Serving, smollm2: Path) -> None:
    remote = endpoint_model(server.url, smollm2)
    prompts = [PROMPTS[0], Prompt("What is the capital of France?", system="Answer with one word.")]
    found = remote.complete(prompts, SHORT)
    local = open_language_model(LocalConfig(path=smollm2, device="cpu")).complete(prompts, SHORT)
    assert [(c.text, c.prompt_tokens) for c in found] == [(c.text, c.prompt_tokens) for c in local]
    assert [(c.completion_tokens, c.finished) for c in found] == [(4, False)] * 2
    assert remote.usage.prompts == 2
    assert remote.usage.prompt_tokens == sum(c.prompt_tokens for c in local)


def test_a_model_that_is_not_served_is_a_clear_error(server: Serving) -> None:
    with pytest.raises(LanguageModelError, match=r"no/such-model at 127.0.0.1:\d+: HTTP 4\d\d: .*no/such-model"):
        endpoint_model(server.url, Path("no/such-model")).complete(PROMPTS[:1], SHORT)


def test_a_server_killed_in_the_middle_costs_only_what_it_had_not_answered(
    server: Serving, smollm2: Path, tmp_path: Path
) -> None:
    with serving(smollm2, tmp_path / "serve.log") as doomed:

        class KillingCache(CompletionCache):
            def put(self, completions: Mapping[bytes, Completion]) -> None:
                super().put(completions)
                doomed.process.kill()
                doomed.process.wait()

        # Prompts go on being asked until the kill: one after the other, and more of them than the kill lets through.
        cache = KillingCache(tmp_path / "cache")
        model = endpoint_model(doomed.url, smollm2, cache, max_retries=2, max_concurrency=1)
        with pytest.raises(LanguageModelError, match="no connection: "):
            model.complete(PROMPTS, SHORT)
    before = len(cache)
    assert 1 <= before < len(PROMPTS)

    resumed = endpoint_model(server.url, smollm2, cache)
    assert len(resumed.complete(PROMPTS, SHORT)) == len(PROMPTS)
    assert (resumed.usage.prompts, resumed.usage.cache_hits) == (len(PROMPTS), before)

    again = endpoint_model(server.url, smollm2, cache)
    assert again.complete(PROMPTS, SHORT) == resumed.complete(PROMPTS, SHORT)
    assert (again.usage.cache_hits, again.usage.prompt_tokens) == (len(PROMPTS), 0)
