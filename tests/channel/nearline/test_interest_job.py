"""From queued users to their records by an InterestGPT that writes, against a server that speaks Triton's protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from serendipity.channel.errors import ModelUnavailable
from serendipity.channel.nearline.interest_gpt import InterestGpt, TritonTextEncoder
from serendipity.channel.nearline.interest_job import InterestJob, grounding_nodes
from serendipity.channel.nearline.loop import BatchDone, NearlineLoop
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.interests.life import expires_at
from serendipity.layout import user_key
from serendipity.v1 import records_pb2
from tests.fixtures.hostile_texts import HOSTILE_TEXTS
from tests.fixtures.nearline_store import delayed, loop_of, spoil
from tests.fixtures.nearline_world import (
    Answers,
    TalkingTriton,
    TritonStatus,
    answer_with,
    spec_of,
    talking_triton,
    unit_vectors,
    write_nearline_snapshot,
)
from tests.fixtures.small_world import NOW, SmallWorld

MISSING = records_pb2.REFRESH_CAUSE_MISSING


@dataclass
class Parts:
    """A loop, its job and all it works with. user, wanted: somebody, and two categories never clicked by them."""

    store: NearlineStore
    loop: NearlineLoop[Any]
    model: InterestJob
    triton: TalkingTriton
    forgotten: set[str]
    user: str
    wanted: list[str]

    async def refresh(self, *user_ids: str) -> BatchDone:
        for user_id in user_ids:
            self.store.want(user_id, MISSING, 0.5)
        assert self.store.flush(10)
        return await self.loop.work(self.store.queue(Kind.INTERESTS).take(100, NOW), self.model, NOW)


@pytest.fixture(scope="module")
def nearline_snapshot(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    spec = spec_of(small_world, writes=True)
    directory = write_nearline_snapshot(small_world, tmp_path_factory.mktemp("snapshots"), spec)
    opened = open_snapshot(directory)
    yield opened
    opened.close()


@asynccontextmanager
async def refreshing(
    snapshot: Snapshot, world: SmallWorld, tmp_path: Path, answers: Answers | None = None
) -> AsyncIterator[Parts]:
    user = next(user_id for user_id in world.user_ids if 2 <= len(world.planted[user_id]) <= 3)
    wanted = [world.catalogue.categories[number - 1] for number in world.planted[user]]
    async with talking_triton(answers or (lambda _: answer_with(*wanted))) as (url, triton):
        gpt, encoder = InterestGpt(url), TritonTextEncoder(url)
        model = InterestJob(snapshot, lambda _: None, gpt, encoder.encode, timeout=10.0)
        forgotten = set[str]()
        with NearlineStore(tmp_path / "nearline", map_bytes=1 << 24, commit_interval=0, clock=lambda: NOW) as store:
            yield Parts(
                store, loop_of(store, Kind.INTERESTS, forgotten.__contains__), model, triton, forgotten, user, wanted
            )
        model.close()
        await gpt.close()
        await encoder.close()


@pytest.fixture
async def parts(nearline_snapshot: Snapshot, small_world: SmallWorld, tmp_path: Path) -> AsyncIterator[Parts]:
    async with refreshing(nearline_snapshot, small_world, tmp_path) as opened:
        yield opened


def names(parts: Parts, record: records_pb2.InterestsRecord | None) -> list[str]:
    assert record is not None
    found = []
    for node_id in record.node_ids:
        node = parts.model.snapshot.nodes.read(node_id)
        assert node is not None
        found.append(node.name)
    return found


async def test_answers_become_records_with_their_paths(parts: Parts) -> None:
    refreshed = await parts.refresh(parts.user)
    assert refreshed.ends == Counter(completed=1)
    assert (refreshed.counts["prompt_tokens"] > 0, refreshed.counts["completion_tokens"]) == (True, 10)
    interests, paths = parts.store.interests(parts.user), parts.store.paths(parts.user)
    assert interests is not None
    assert paths is not None
    assert names(parts, interests) == parts.wanted
    reasoned = parts.model.reasoner.probabilities([parts.model.users.read(parts.user, NOW).context])[0]
    numbers = [parts.model.snapshot.category_numbers[name] for name in parts.wanted]
    assert list(interests.weights) == [round(1000 * weight) for weight in reasoned[numbers].tolist()]
    assert (interests.generated_at, interests.expires_at) == (NOW, expires_at(parts.user, NOW))
    assert interests.taxonomy_hash == parts.model.snapshot.taxonomy_hash != 0
    assert interests.vocabulary_id == parts.model.snapshot.vocabulary_id != 0
    assert len(interests.SerializeToString()) <= 120
    assert [path.latent_interest for path in paths.paths] == parts.wanted
    assert paths.reasoner == parts.model.spec.model_name
    assert parts.store.queue(Kind.INTERESTS).take(10, NOW) == []


async def test_the_model_is_told_what_is_known(parts: Parts) -> None:
    await parts.refresh(parts.user)
    ((prompt,),) = parts.triton.prompts
    user = parts.model.users.read(parts.user, NOW)
    assert all(fact.name in prompt for fact in user.facts.recent)
    assert prompt.endswith("interests:")


async def test_users_share_calls_of_the_models_size(parts: Parts, small_world: SmallWorld) -> None:
    await parts.refresh(*small_world.user_ids[:20])
    assert sorted(map(len, parts.triton.prompts)) == [4, 8, 8]


async def test_what_cannot_be_stored_fails_with_its_reason(parts: Parts, small_world: SmallWorld) -> None:
    clicked = [fact.name for fact in parts.model.users.read(parts.user, NOW).facts.recent]
    cases = {
        "I would rather not say": "answer: found 'I would rather not say', expected JSON",
        '{"interests": []}': r"answer: found no interest that may be stored \(none at all\)",
        answer_with(*clicked): rf"found no interest that may be stored \({len(clicked)} known\)",
        answer_with("no such category"): r"found no interest that may be stored \(1 ungrounded\)",
    }
    for attempt, (answer, _) in enumerate(cases.items(), 1):
        parts.triton.answers = lambda _, answer=answer: answer  # type: ignore[misc]
        refreshed = await parts.refresh(parts.user)
        assert refreshed.ends == Counter(failed=1), attempt
        parts.store.forget_all([parts.user])
    parts.triton.answers = lambda _: next(iter(cases))
    await parts.refresh(parts.user)
    (entry,) = delayed(parts.store, Kind.INTERESTS)
    assert "expected JSON" in entry.last_error
    assert parts.store.interests(parts.user) is None


async def test_an_answer_that_was_cut_off_is_taken_as_far_as_it_goes(parts: Parts) -> None:
    whole = answer_with(*parts.wanted)
    parts.triton.answers = lambda _: whole[: whole.rindex("{") + 12]
    await parts.refresh(parts.user)
    assert names(parts, parts.store.interests(parts.user)) == parts.wanted[:-1]


async def test_the_prompt_that_spoils_a_batch_is_found(parts: Parts, small_world: SmallWorld) -> None:
    users = small_world.user_ids[:8]
    poison = next(fact.name for fact in parts.model.users.read(users[5], NOW).facts.recent)
    spoilt = [u for u in users if poison in {f.name for f in parts.model.users.read(u, NOW).facts.recent}]

    def answers(prompt: str) -> str:
        if f"{poison} x" in prompt:
            raise TritonStatus(grpc.StatusCode.INVALID_ARGUMENT)
        return answer_with(*small_world.catalogue.categories)

    parts.triton.answers = answers
    refreshed = await parts.refresh(*users)
    assert refreshed.ends == Counter(completed=len(users) - len(spoilt), failed=len(spoilt))
    assert [user for user in users if parts.store.interests(user) is None] == spoilt


@pytest.mark.parametrize("model", ["interest_gpt", "text_encoder"])
async def test_while_triton_is_away_nothing_counts_against_anybody(parts: Parts, model: str) -> None:
    def away(_: object) -> str:
        raise TritonStatus(grpc.StatusCode.UNAVAILABLE)

    if model == "interest_gpt":
        parts.triton.answers = away
    else:
        parts.triton.encode = away  # type: ignore[assignment]
        parts.triton.answers = lambda _: answer_with(*parts.wanted, interest="something else")
    with pytest.raises((ModelUnavailable, ModelUnavailable)):
        await parts.refresh(parts.user)
    (entry,) = parts.store.queue(Kind.INTERESTS).take(10, NOW)
    assert (entry.attempts, entry.last_error) == (0, "")


async def test_another_encoder_than_the_snapshots_is_noticed(parts: Parts) -> None:
    parts.triton.encode = lambda texts: unit_vectors(texts, dim=7)
    with pytest.raises(ModelUnavailable, match=r"found vectors of shape \(\d+, 7\), expected \(\d+, 24\)"):
        await parts.refresh(parts.user)


async def test_a_user_of_whom_nothing_is_known_costs_no_call(parts: Parts) -> None:
    refreshed = await parts.refresh("nobody")
    assert (refreshed.ends, parts.triton.prompts) == (Counter(unneeded=1), [])


async def test_fresh_interests_are_not_generated_again(parts: Parts) -> None:
    await parts.refresh(parts.user)
    assert (await parts.refresh(parts.user)).ends == Counter(unneeded=1)


async def test_forgotten_users_are_skipped_and_all_of_them_goes(parts: Parts, small_world: SmallWorld) -> None:
    await parts.refresh(parts.user)
    parts.forgotten.add(parts.user)
    refreshed = await parts.refresh(parts.user, small_world.user_ids[-1])
    assert refreshed.ends["forgotten"] == 1
    assert parts.store.interests(parts.user) is None
    assert len(parts.triton.prompts) == 2


async def test_who_asks_to_be_forgotten_while_the_model_thinks_is_forgotten(parts: Parts) -> None:
    def answers(_: str) -> str:
        parts.forgotten.add(parts.user)
        return answer_with(*parts.wanted)

    parts.triton.answers = answers
    refreshed = await parts.refresh(parts.user)
    assert refreshed.ends == Counter(forgotten=1)
    assert (parts.store.interests(parts.user), parts.store.queue(Kind.INTERESTS).take(10, NOW)) == (None, [])


async def test_nothing_a_hostile_model_says_reaches_a_record(parts: Parts) -> None:
    """Whatever texts come with a category, the record holds the category's own name and demand."""
    hostile: Sequence[str] = HOSTILE_TEXTS
    written = 0
    for text in hostile:
        parts.triton.answers = lambda _, text=text: answer_with(parts.wanted[0], demand=text, interest=text)  # type: ignore[misc]
        parts.store.forget_all([parts.user])
        await parts.refresh(parts.user)
        # Of an answer that cannot be read nothing is written.
        record = parts.store.paths(parts.user) or records_pb2.InterestPathsRecord()
        written += len(record.paths)
        assert {path.latent_interest for path in record.paths} <= {*parts.wanted}
        assert {path.core_demand for path in record.paths} <= {*parts.wanted}
    assert written > len(hostile) / 2


def test_every_node_of_one_category_may_be_grounded_in(nearline_snapshot: Snapshot, small_world: SmallWorld) -> None:
    records = [records_pb2.InterestNode.FromString(value) for _, value in nearline_snapshot.nodes.values()]
    nodes = grounding_nodes(records)
    assert {node.node_id for node in nodes} == {node.node_id for node in small_world.contents.nodes}
    assert sum(node.num_items for node in nodes if len(node.path) == 1) == small_world.catalogue.category_offsets[-1]


async def test_stored_interests_that_cannot_be_decoded_are_generated_anew(parts: Parts) -> None:
    spoil(parts.store, parts.store.records[Kind.INTERESTS][0], user_key(parts.user))
    assert (await parts.refresh(parts.user)).ends == Counter(completed=1)
    assert names(parts, parts.store.interests(parts.user)) == parts.wanted
