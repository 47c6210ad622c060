"""The endpoint's client against servers that are ill, slow or talkative."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from serendipity.offline.language_models.completion_cache import CompletionCache
from serendipity.offline.language_models.config import EndpointConfig
from serendipity.offline.language_models.endpoint import EndpointModel
from serendipity.offline.language_models.language_model import Completion, LanguageModelError, Prompt, Sampling
from tests.offline.language_models.scripted_endpoint import Reply, answered, scripted_endpoint

SOON = {"retry-after": "0.01"}
"""What an ill server says for the next attempt to come at once."""


def endpoint_model(
    url: str, environment: dict[str, str] | None = None, cache: CompletionCache | None = None, **fields: Any
) -> EndpointModel:
    config = EndpointConfig(base_url=url, model="scripted", **fields)
    return EndpointModel(config, cache, environment=environment or {})


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"prompt {i}") for i in range(count)]


def test_answers_keep_the_order_of_the_prompts_and_the_counts_of_the_endpoint() -> None:
    first_answered = threading.Event()

    def script(prompt: str, before: int) -> Reply:
        if prompt == "prompt 0":
            first_answered.wait(10)
        elif prompt == "prompt 5":
            first_answered.set()
        return answered(f"answer to {prompt}", prompt_tokens=7, completion_tokens=3)

    with scripted_endpoint(script) as server:
        model = endpoint_model(server.url, max_concurrency=3)
        found = model.complete([*prompts(6)])
    assert found == [Completion(f"answer to prompt {i}", 7, 3, True) for i in range(6)]
    assert (model.usage.prompts, model.usage.prompt_tokens, model.usage.completion_tokens) == (6, 42, 18)


def test_the_request_says_what_was_asked_and_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "not-for-this-endpoint")
    with scripted_endpoint(lambda *_: answered("{}")) as server:
        sampling = Sampling(max_new_tokens=9, temperature=0.5, seed=3)
        endpoint_model(server.url, reasoning_tokens=100).complete([Prompt("hello", system="be brief")], sampling)
        model = endpoint_model(
            server.url,
            {"KEY": "secret"},
            api_key_env="KEY",
            takes_sampling=False,
            max_tokens_field="max_completion_tokens",
        )
        model.complete([Prompt("hello")], sampling)
    assert server.requests[0] == {
        "model": "scripted",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "max_tokens": 109,
        "temperature": 0.5,
        "seed": 3,
    }
    assert server.requests[1] == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 9,
    }
    assert "not-for-this-endpoint" not in str(server.headers)
    assert server.headers[1]["authorization"] == "Bearer secret"


def test_limits_failing_servers_and_lost_connections_are_tried_again() -> None:
    ill = [Reply(429, {"error": "slow down"}, SOON), Reply(503, {}, SOON), Reply(hangs_up=True)]
    with scripted_endpoint(lambda _, before: ill[before] if before < 3 else answered("well")) as server:
        assert [found.text for found in endpoint_model(server.url).complete(prompts(2))] == ["well", "well"]
    assert Counter(server.prompts) == {"prompt 0": 4, "prompt 1": 4}


def test_a_server_that_stays_ill_is_given_up_after_the_retries() -> None:
    with scripted_endpoint(lambda *_: Reply(500, {"error": {"message": "out of memory"}}, SOON)) as server:
        model = endpoint_model(server.url, max_retries=2, max_concurrency=1)
        with pytest.raises(LanguageModelError, match=r"scripted at 127.*HTTP 500.*out of memory"):
            model.complete(prompts(5))
    assert server.prompts == ["prompt 0"] * 3


def test_a_server_that_asks_for_too_long_a_wait_is_given_up_at_once() -> None:
    with scripted_endpoint(lambda *_: Reply(429, {}, {"retry-after": "3600"})) as server:
        with pytest.raises(LanguageModelError, match="HTTP 429"):
            endpoint_model(server.url).complete(prompts(1))
        assert len(server.requests) == 1


def test_an_answer_that_takes_too_long_is_asked_for_again() -> None:
    late = threading.Event()

    def script(prompt: str, before: int) -> Reply:
        if not before:
            late.wait(10)
        return answered("in time")

    with scripted_endpoint(script) as server:
        # On a busy machine a later try may be too late as well.
        assert endpoint_model(server.url, timeout=0.2, max_retries=9).complete(prompts(1))[0].text == "in time"
        late.set()
    assert len(server.requests) >= 2


def test_nobody_there_is_an_error_that_names_the_endpoint() -> None:
    with scripted_endpoint(lambda *_: Reply()) as server:
        pass
    with pytest.raises(LanguageModelError, match=r"scripted at 127\.0\.0\.1:\d+: no connection"):
        endpoint_model(server.url, max_retries=0).complete(prompts(3))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404, {"error": {"message": "The model `scripted` does not exist"}}), "HTTP 404: .*does not exist"),
        (Reply(401, {"error": {"message": "Incorrect API key provided: sk-very-secret"}}), "HTTP 401: .*provided: …"),
        (Reply(200, "<html>a login page</html>"), "found '<html>.*expected a chat completion"),
        (Reply(200, {"choices": []}), "expected a chat completion with a choice"),
        (Reply(200, {"choices": 3}), "scripted at"),
    ],
)
def test_what_would_be_refused_again_is_not_tried_again(reply: Reply, said: str) -> None:
    with scripted_endpoint(lambda *_: reply) as server:
        model = endpoint_model(server.url, {"KEY": "sk-very-secret"}, api_key_env="KEY")
        with pytest.raises(LanguageModelError, match=said) as caught:
            model.complete(prompts(1))
    assert len(server.requests) == 1
    assert "sk-very-secret" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_reasoning_is_kept_apart_and_cut_answers_are_told() -> None:
    replies = {
        "prompt 0": answered("it is tea", message={"reasoning_content": "they like mugs"}),
        "prompt 1": answered("it is tea", message={"reasoning": "they like mugs"}),
        "prompt 2": answered("<think>they like mugs</think>\n\nit is tea"),
        "prompt 3": answered("it is", finish_reason="length"),
        "prompt 4": answered(None, message={"reasoning_content": "they like"}, finish_reason="length"),
        "prompt 5": answered("x" * 10_000),
    }
    with scripted_endpoint(lambda prompt, _: replies[prompt]) as server:
        found = endpoint_model(server.url).complete(prompts(6), Sampling(max_new_tokens=8))
    assert [(c.reasoning, c.text, c.finished) for c in found[:5]] == [
        ("they like mugs", "it is tea", True),
        ("they like mugs", "it is tea", True),
        ("they like mugs", "it is tea", True),
        ("", "it is", False),
        ("they like", "", False),
    ]
    assert (found[5].text, found[5].finished) == ("x" * 256, False)


def test_what_was_answered_before_a_failure_is_kept_and_only_the_rest_is_asked_again(tmp_path: Path) -> None:
    is_ill = threading.Event()
    is_ill.set()

    def script(prompt: str, before: int) -> Reply:
        if is_ill.is_set() and prompt == "prompt 3":
            return Reply(400, {"error": "no"})
        return answered(f"answer to {prompt}")

    with scripted_endpoint(script) as server:
        model = endpoint_model(server.url, cache=CompletionCache.at(tmp_path), max_concurrency=1)
        with pytest.raises(LanguageModelError, match="HTTP 400"):
            model.complete(prompts(6))
        assert server.prompts == [f"prompt {i}" for i in range(4)]
        is_ill.clear()
        found = model.complete(prompts(6))
    assert [answer.text for answer in found] == [f"answer to prompt {i}" for i in range(6)]
    assert server.prompts[4:] == ["prompt 3", "prompt 4", "prompt 5"]
    assert (model.usage.prompts, model.usage.cache_hits) == (9, 3)


def test_a_caller_that_leaves_ends_the_requests_it_left() -> None:
    asked, let_go = threading.Event(), threading.Event()

    def script(prompt: str, before: int) -> Reply:
        if prompt != "prompt 0":
            asked.set()
            let_go.wait(10)
        return answered("here")

    with scripted_endpoint(script) as server:
        answers = endpoint_model(server.url, max_concurrency=2)._answers(prompts(50), Sampling())
        next(answers)
        assert asked.wait(10)
        answers.close()  # type: ignore[attr-defined]
        let_go.set()
    assert len(server.requests) < 50


async def test_it_can_be_called_from_inside_an_event_loop() -> None:
    with scripted_endpoint(lambda *_: answered("here")) as server:
        assert [found.text for found in endpoint_model(server.url).complete(prompts(2))] == ["here", "here"]
    assert asyncio.get_running_loop().is_running()


def test_an_empty_variable_for_the_key_is_found_out_before_anything_is_asked() -> None:
    with pytest.raises(LanguageModelError, match="environment variable NO_SUCH_KEY: found nothing"):
        endpoint_model("http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")
