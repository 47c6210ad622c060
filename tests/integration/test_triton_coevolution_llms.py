"""The Novelty and the Relevance LLM under the real tritonserver, asked by the near-line client."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from serendipity.channel.errors import ModelRefused, ModelUnavailable
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.groups import model
from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.tools.serving import deployment
from serendipity.tools.serving.deployment import tensor
from serendipity.tools.serving.kinds import NOVELTY_LLM, RELEVANCE_LLM, novelty_llm, relevance_llm
from serendipity.v1 import records_pb2
from tests.fixtures.tiny_coevolution import CATEGORIES, make_tiny_coevolution
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration

TIMEOUT = 60.0
PROFILES = ("people who cook", "people who drink wine on weekends", "")


@dataclass(frozen=True)
class Served:
    """A directory of both LLMs and the spec under which they are loaded."""

    directory: Path
    spec: records_pb2.CoevolutionSpec


@pytest.fixture(scope="module")
def served(triton_server: RunningTriton, tmp_path_factory: pytest.TempPathFactory) -> Served:
    directory = tmp_path_factory.mktemp("tuned") / "coevolution"
    spec = make_tiny_coevolution(directory, max_prompt_tokens=200)
    serve(triton_server, directory, spec)
    return Served(directory, spec)


def serve(triton_server: RunningTriton, directory: Path, spec: records_pb2.CoevolutionSpec) -> None:
    assert deployment.place(NOVELTY_LLM, directory, triton_server.models_dir) == spec.novelty_model_name
    assert deployment.place(RELEVANCE_LLM, directory, triton_server.models_dir) == spec.relevance_model_name
    for pinned in (novelty_llm(spec), relevance_llm(spec)):
        deployment.load(triton_server.grpc_url, pinned)


@pytest.fixture
async def client(triton_server: RunningTriton) -> AsyncIterator[CoevolutionLlms]:
    connection = CoevolutionLlms(triton_server.url)
    yield connection
    await connection.close()


@pytest.fixture
def raw(triton_server: RunningTriton) -> Iterator[Any]:
    connection = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    yield connection
    connection.close()


def recents() -> list[list[str]]:
    return [[], ["TEA"], ["WINE", "BEEF"], ["TEA", "CITRUS", "BEEF JERKY"]]


def novelty_prompts() -> list[str]:
    return [novelty_prompt(profile, recent, "compact") for profile in PROFILES for recent in recents()]


def relevance_prompts() -> list[str]:
    return [
        relevance_prompt(profile, recent, candidate, "compact")
        for profile in PROFILES
        for recent in recents()
        for candidate in CATEGORIES
    ]


def excluded_of_prompts() -> list[list[str]]:
    return [recent for _ in PROFILES for recent in recents()]


def assert_same_proposals(
    found: Sequence[Sequence[tuple[str, float]]], expected: Sequence[Sequence[tuple[str, float]]]
) -> None:
    assert [[name for name, _ in row] for row in found] == [[name for name, _ in row] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose([value for _, value in row], [value for _, value in wanted], atol=1e-4)


async def test_proposals_are_those_of_the_model_in_process(served: Served, client: CoevolutionLlms) -> None:
    prompts, excluded = novelty_prompts(), excluded_of_prompts()
    found = await client.propose(served.spec, prompts, excluded, 5, TIMEOUT)
    in_process = NoveltyLlm.read(served.directory / model.NOVELTY)
    assert_same_proposals(found, in_process.rank(prompts, 5, excluded))


async def test_scores_are_those_of_the_model_in_process(served: Served, client: CoevolutionLlms) -> None:
    prompts = relevance_prompts()
    found = await client.score(served.spec, prompts, TIMEOUT)
    expected = RelevanceLlm.read(served.directory / model.RELEVANCE).score(prompts)
    assert len(set(np.round(expected, 4).tolist())) > len(prompts) // 2
    np.testing.assert_allclose(found, expected, atol=1e-4)


async def test_answers_of_a_batch_are_those_of_its_prompts_alone(served: Served, client: CoevolutionLlms) -> None:
    prompts, excluded = novelty_prompts()[:5], excluded_of_prompts()[:5]
    alone = [
        (await client.propose(served.spec, [prompt], [names], 3, TIMEOUT))[0]
        for prompt, names in zip(prompts, excluded, strict=True)
    ]
    assert_same_proposals(await client.propose(served.spec, prompts, excluded, 3, TIMEOUT), alone)
    texts = relevance_prompts()[:5]
    scores = [(await client.score(served.spec, [text], TIMEOUT))[0] for text in texts]
    np.testing.assert_allclose(await client.score(served.spec, texts, TIMEOUT), scores, atol=1e-4)


async def test_every_other_category_is_proposed_once_and_an_excluded_one_never(
    served: Served, client: CoevolutionLlms
) -> None:
    excluded = [list(CATEGORIES[:n]) for n in range(len(CATEGORIES) + 1)] + [["no category of the catalogue"]]
    prompts = [novelty_prompt(PROFILES[0], ["TEA"], "compact")] * len(excluded)
    rows = await client.propose(served.spec, prompts, excluded, 100, TIMEOUT)
    for names, row in zip(excluded, rows, strict=True):
        assert sorted(category for category, _ in row) == sorted(set(CATEGORIES) - set(names))
        values = [value for _, value in row]
        assert values == sorted(values, reverse=True)
    assert np.exp([value for _, value in rows[0]]).sum() == pytest.approx(1, abs=1e-4)


def propose_raw(raw: Any, name: str, prompts: Sequence[bytes], counts: Sequence[int], excluded: Sequence[bytes]) -> Any:
    inputs = {
        model.PROMPT: np.array(prompts, np.object_)[:, None],
        model.COUNT: np.array(counts, np.int32)[:, None],
        model.EXCLUDED: np.array(excluded, np.object_)[:, None],
    }
    inputs = {key: values for key, values in inputs.items() if values.size}
    answers = raw.infer(name, [tensor(key, values) for key, values in inputs.items()]).as_numpy(model.PROPOSALS)
    return [json.loads(cell) for cell in answers[:, 0]]


def test_exclusion_may_be_left_out_and_rows_may_want_different_numbers(served: Served, raw: Any) -> None:
    prompt = novelty_prompt(PROFILES[0], ["TEA"], "compact").encode()
    rows = propose_raw(raw, served.spec.novelty_model_name, [prompt] * 3, [1, 4, 2], [])
    assert [len(row) for row in rows] == [1, 4, 2]
    assert_same_proposals([rows[0], rows[2]], [rows[1][:1], rows[1][:2]])


@pytest.mark.parametrize(
    ("prompt", "count", "excluded", "found"),
    [
        (b"novel:", 0, b"[]", "count 0: found 0, expected at least 1"),
        (b"novel:", -1, b"[]", "count 0: found -1, expected at least 1"),
        (b"novel:", 2, b"[", "expected a JSON list of categories"),
        (b"novel:", 2, b'["TEA", 3]', "expected a JSON list of categories"),
        (b"novel:", 2, b"[" * 100_000, "expected a JSON list of categories"),
        (b"novel:", 2, b'{"TEA": 1}', "expected a JSON list of categories"),
        (b"", 2, b"[]", "prompt 0: found no text"),
        (b"\xff", 2, b"[]", "prompt 0: 'utf-8' codec can't decode"),
        (b"tea " * 300, 2, b"[]", r"prompt 0: found \d+ tokens, expected at most 200"),
        (b"tea " * 30_000, 2, b"[]", r"prompt 0: found 120000 characters, expected at most 3200"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_an_error_of_its_own(
    served: Served, raw: Any, prompt: bytes, count: int, excluded: bytes, found: str
) -> None:
    name = served.spec.novelty_model_name
    good = {model.PROMPT: np.array([[b"novel:"]], np.object_), model.COUNT: np.full((1, 1), 2, np.int32)}
    inputs = [tensor(key, values) for key, values in good.items()]
    answers: list[Future[Any]] = [Future() for _ in range(3)]
    for answer in answers:
        raw.async_infer(name, inputs, lambda result, error, answer=answer: answer.set_result(error or result))
    with pytest.raises(triton_grpc.InferenceServerException, match=found) as refusal:
        propose_raw(raw, name, [prompt], [count], [excluded])
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
    for answer in answers:
        assert len(json.loads(answer.result(TIMEOUT).as_numpy(model.PROPOSALS).item())) == 2


async def test_refusals_fail_nobody_elses_call(served: Served, client: CoevolutionLlms) -> None:
    calls = [client.score(served.spec, [text], TIMEOUT) for text in ("tea", "", "tea", "tea " * 300)]
    first, empty, last, long = await asyncio.gather(*calls, return_exceptions=True)
    assert first == pytest.approx(last, abs=1e-4)
    assert isinstance(empty, ModelRefused)
    assert isinstance(long, ModelRefused)
    assert "prompt 0: found no text" in str(empty)
    with pytest.raises(ModelRefused, match="count 0: found 0"):
        await client.propose(served.spec, ["tea"], [[]], 0, TIMEOUT)


async def test_more_prompts_than_a_batch_holds_keep_their_order(
    triton_server: RunningTriton, served: Served, client: CoevolutionLlms, raw: Any
) -> None:
    prompts = relevance_prompts()[:20]
    assert len(prompts) > 2 * served.spec.max_batch
    in_order, backwards = await asyncio.gather(
        client.score(served.spec, prompts, TIMEOUT), client.score(served.spec, prompts[::-1], TIMEOUT)
    )
    np.testing.assert_allclose(in_order, backwards[::-1], atol=1e-4)
    with pytest.raises(triton_grpc.InferenceServerException, match=r"batch-size must be <= 8"):
        raw.infer(
            served.spec.relevance_model_name,
            [tensor(model.PROMPT, np.array([[b"tea"]] * 9, np.object_))],
        )


async def test_a_caller_that_gives_up_leaves_the_models_serving(
    triton_server: RunningTriton, served: Served, client: CoevolutionLlms
) -> None:
    # The connection is there before, so that what is given up has been sent.
    await client.score(served.spec, ["tea"], TIMEOUT)
    with triton_server.suspended():
        with pytest.raises(ModelUnavailable):
            await client.score(served.spec, relevance_prompts(), 0.1)
        with pytest.raises(ModelUnavailable):
            await client.propose(served.spec, novelty_prompts(), excluded_of_prompts(), 4, 0.1)
    assert len(await client.score(served.spec, ["tea"], TIMEOUT)) == 1
    assert len(await client.propose(served.spec, ["tea"], [[]], 1, TIMEOUT)) == 1


async def test_models_that_are_not_loaded_are_worth_another_try(client: CoevolutionLlms) -> None:
    away = records_pb2.CoevolutionSpec(
        novelty_model_name="novelty_llm_" + "0" * 16, relevance_model_name="relevance_llm_" + "0" * 16, max_batch=4
    )
    with pytest.raises(ModelUnavailable, match="novelty_llm_0000000000000000"):
        await client.propose(away, ["tea"], [[]], 1, TIMEOUT)
    with pytest.raises(ModelUnavailable, match="relevance_llm_0000000000000000"):
        await client.score(away, ["tea"], TIMEOUT)


async def test_a_server_that_is_away_is_worth_another_try(served: Served) -> None:
    client = CoevolutionLlms("127.0.0.1:1")
    with pytest.raises(ModelUnavailable):
        await client.propose(served.spec, ["tea"], [[]], 1, 5.0)
    await client.close()


@pytest.mark.parametrize("field", ["novelty_fingerprint", "relevance_fingerprint", "base", "max_prompt_tokens"])
def test_a_model_that_reports_another_origin_than_the_snapshot_pins_is_refused(
    triton_server: RunningTriton, served: Served, field: str
) -> None:
    pinned = records_pb2.CoevolutionSpec()
    pinned.CopyFrom(served.spec)
    setattr(pinned, field, 7 if field == "max_prompt_tokens" else "another")
    make = relevance_llm if field.startswith("relevance") else novelty_llm
    with pytest.raises(deployment.DeployError, match=r"found .*, expected (another|7)"):
        deployment.load(triton_server.grpc_url, make(pinned))


async def test_chat_models_serve_beside_compact_ones(
    triton_server: RunningTriton, served: Served, client: CoevolutionLlms, tmp_path: Path
) -> None:
    spec = make_tiny_coevolution(tmp_path, seed=5, style="chat")
    serve(triton_server, tmp_path, spec)
    prompts = [novelty_prompt(PROFILES[0], recent, "chat") for recent in recents()]
    found = await client.propose(spec, prompts, recents(), 4, TIMEOUT)
    in_process = NoveltyLlm.read(tmp_path / model.NOVELTY, "chat")
    assert_same_proposals(found, in_process.rank(prompts, 4, recents()))
    texts = [relevance_prompt(PROFILES[0], recents()[1], name, "chat") for name in CATEGORIES]
    expected = RelevanceLlm.read(tmp_path / model.RELEVANCE, "chat").score(texts)
    np.testing.assert_allclose(await client.score(spec, texts, TIMEOUT), expected, atol=1e-4)
    names = {spec.novelty_model_name, spec.relevance_model_name}
    raw = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    ready = {entry.name for entry in raw.get_model_repository_index().models if entry.state == "READY"}
    raw.close()
    assert deployment.unload_unused(triton_server.grpc_url, ready - names) == sorted(names)
    assert len(await client.score(served.spec, ["tea"], TIMEOUT)) == 1


@pytest.mark.parametrize("kind", [model.NOVELTY, model.RELEVANCE])
async def test_weights_of_another_model_are_refused_and_the_old_one_keeps_serving(
    triton_server: RunningTriton, served: Served, client: CoevolutionLlms, tmp_path: Path, kind: str
) -> None:
    make_tiny_coevolution(tmp_path, seed=9)
    is_novelty = kind == model.NOVELTY
    pinned = novelty_llm(served.spec) if is_novelty else relevance_llm(served.spec)
    placed = triton_server.models_dir / pinned.name / "1" / "model"
    before = await client.score(served.spec, ["tea"], TIMEOUT)
    shutil.copy(tmp_path / kind / "model.safetensors", placed)
    fingerprint = pinned.reported["fingerprint"]
    with pytest.raises(deployment.DeployError, match=f"fingerprint: found .*, expected {fingerprint}"):
        deployment.load(triton_server.grpc_url, pinned)
    assert await client.score(served.spec, ["tea"], TIMEOUT) == before
    # Placing again repairs what lies there.
    deployment.place(NOVELTY_LLM if is_novelty else RELEVANCE_LLM, served.directory, triton_server.models_dir)
    assert model.llm_fingerprint(placed) == fingerprint
