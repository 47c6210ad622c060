"""From wanted lists to their records, with LLMs that answer as they are told."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import lmdb
import pytest
from structlog.testing import capture_logs

from serendipity import layout
from serendipity.channel.errors import ModelRefused, ModelUnavailable, SnapshotUnavailable
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.channel.nearline.housekeeping import census
from serendipity.channel.nearline.list_job import ListJob
from serendipity.channel.nearline.loop import BatchDone, NearlineLoop
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind, WantedList
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.groups.lists import alignment, is_current, llms_hash
from serendipity.v1 import records_pb2
from tests.channel.served import channel_settings
from tests.fixtures.grouped_world import GENERATION, GROUP_MODEL, GroupedWorld, make_grouped_world
from tests.fixtures.nearline_store import delayed, loop_of, spoil
from tests.fixtures.small_world import NOW, SmallWorld


class ScriptedLlms(CoevolutionLlms):
    """Both LLMs without a Triton. proposals: prompt → categories, best first; scores: prompt → f; either may raise."""

    def __init__(self, proposals: Callable[[str], Sequence[str]], scores: Callable[[str], float]) -> None:
        super().__init__("127.0.0.1:1")
        self.proposals = proposals
        self.scores = scores
        self.asked: list[list[str]] = []
        self.excluded: list[Collection[str]] = []

    async def propose(
        self,
        spec: records_pb2.CoevolutionSpec,
        prompts: Sequence[str],
        excluded: Sequence[Collection[str]],
        count: int,
        timeout: float,
    ) -> list[list[tuple[str, float]]]:
        self.asked.append(list(prompts))
        self.excluded += excluded
        answers = [self.proposals(prompt)[:count] for prompt in prompts]
        return [[(name, -float(place)) for place, name in enumerate(names)] for names in answers]

    async def score(
        self,
        spec: records_pb2.CoevolutionSpec,
        prompts: Sequence[str],
        timeout: float,
    ) -> list[float]:
        return [self.scores(prompt) for prompt in prompts]


@dataclass
class Observed:
    """Batches and errors a loop told of."""

    batches: list[BatchDone] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def done(self, kind: Kind, done: BatchDone) -> None:
        self.batches.append(done)

    def failed(self, kind: Kind, error: Exception) -> None:
        self.errors.append(error)


@dataclass
class Parts:
    """A loop, its job and all it works with."""

    store: NearlineStore
    loop: NearlineLoop[str]
    model: ListJob
    llms: ScriptedLlms
    names: list[str]

    def want(self, *wants: WantedList) -> list[records_pb2.NearlineEntry]:
        for want in wants:
            self.store.want_list(want)
        assert self.store.flush(10)
        return self.store.queue(Kind.LISTS).take(100, NOW)

    async def fill(self, *wants: WantedList) -> BatchDone:
        return await self.loop.work(self.want(*wants), self.model, NOW)

    def listed(self, want: WantedList) -> list[str] | None:
        record = self.store.novel_categories(want.key)
        return None if record is None else [self.names[number - 1] for number in record.categories]


@pytest.fixture(scope="module")
def grouped_world(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> GroupedWorld:
    return make_grouped_world(small_world, tmp_path_factory.mktemp("grouped"))


@pytest.fixture(scope="module")
def grouped_snapshot(grouped_world: GroupedWorld) -> Iterator[Snapshot]:
    opened = open_snapshot(grouped_world.snapshot_dir)
    yield opened
    opened.close()


@pytest.fixture
def parts(grouped_snapshot: Snapshot, grouped_world: GroupedWorld, tmp_path: Path) -> Iterator[Parts]:
    names = list(grouped_world.world.catalogue.categories)
    llms = ScriptedLlms(lambda _: names, lambda _: 1.0)
    model = job(grouped_snapshot, llms)
    with NearlineStore(tmp_path / "nearline", map_bytes=1 << 24, list_requests=1, commit_interval=0) as store:
        yield Parts(store, loop_of(store, Kind.LISTS, lambda _: False), model, llms, names)


def job(snapshot: Snapshot, llms: CoevolutionLlms) -> ListJob:
    assert snapshot.coevolution is not None
    return ListJob(snapshot, snapshot.coevolution, llms, timeout=5.0)


def want(*categories: str, group: int = 1, model: str = GROUP_MODEL) -> WantedList:
    return WantedList(model, group, categories)


async def test_a_list_holds_what_is_aligned_enough_best_first(parts: Parts) -> None:
    scores = {parts.names[3]: 0.5, parts.names[4]: 2.0, parts.names[5]: -5.0}
    parts.llms.proposals = lambda _: list(scores)
    parts.llms.scores = lambda prompt: next(f for name, f in scores.items() if prompt.endswith(f"candidate: {name}"))
    asked_for = want(parts.names[0])
    filled = await parts.fill(asked_for)
    assert (filled.ends, filled.counts["proposed"], filled.counts["empty"]) == (Counter(completed=1), 3, 0)
    record = parts.store.novel_categories(asked_for.key)
    assert record is not None
    assert parts.listed(asked_for) == [parts.names[4], parts.names[3]]
    assert list(record.scores) == pytest.approx([alignment(2.0, 1.0, 0.0), alignment(0.5, 1.0, 0.0)])
    assert (record.generated_at, record.group_model_id, record.generation) == (NOW, GROUP_MODEL, GENERATION)
    assert record.taxonomy_hash == parts.model.snapshot.taxonomy_hash
    assert record.llms_hash == llms_hash(parts.model.spec)
    assert is_current(record, parts.model.spec, parts.model.snapshot.taxonomy_hash)
    assert parts.store.queue(Kind.LISTS).take(10, NOW) == []


async def test_the_llms_are_told_the_groups_profile_and_the_categories(parts: Parts) -> None:
    await parts.fill(want(parts.names[2], parts.names[0], group=2))
    ((prompt,),) = parts.llms.asked
    profile = parts.model.groups.read(2)
    assert profile is not None
    assert f"group: {profile.profile}" in prompt
    assert f"recent: {parts.names[2]}; {parts.names[0]}" in prompt
    assert parts.llms.excluded == [(parts.names[2], parts.names[0])]


async def test_recent_unknown_and_repeated_categories_stay_off_the_list(parts: Parts) -> None:
    parts.llms.proposals = lambda _: [parts.names[0], "no such category", parts.names[1], parts.names[1]]
    asked_for = want(parts.names[0])
    await parts.fill(asked_for)
    assert parts.listed(asked_for) == [parts.names[1]]


async def test_a_list_that_comes_out_empty_is_stored_as_such_and_not_asked_for_again(parts: Parts) -> None:
    parts.llms.scores = lambda _: -20.0
    asked_for = want()
    assert (await parts.fill(asked_for)).counts["empty"] == 1
    assert parts.listed(asked_for) == []
    assert (await parts.fill(asked_for)).ends == Counter(unneeded=1)
    assert len(parts.llms.asked) == 1


async def test_lists_of_other_group_models_or_categories_are_not_filled(parts: Parts) -> None:
    filled = await parts.fill(want(model="another"), want("no such category"))
    assert (filled.ends, filled.asked) == (Counter(unneeded=2), 0)
    assert parts.llms.asked == []


async def test_a_group_that_does_not_exist_fails_with_its_number(parts: Parts) -> None:
    assert (await parts.fill(want(group=77))).ends == Counter(failed=1)
    (entry,) = delayed(parts.store, Kind.LISTS)
    assert entry.last_error == "group 77: found none in groups.lmdb, expected one"


async def test_a_group_that_cannot_be_read_fails_alone(
    parts: Parts, grouped_world: GroupedWorld, tmp_path: Path
) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(grouped_world.snapshot_dir, directory, ignore=shutil.ignore_patterns("lock.mdb"))
    with (
        lmdb.open(str(directory / layout.GROUPS), lock=False, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(layout.group_key(2), b"\xff")
    snapshot = open_snapshot(directory, verify=False)
    model = job(snapshot, parts.llms)
    wants = [want(group=group) for group in (1, 2, 3)]
    filled = await parts.loop.work(parts.want(*wants), model, NOW)
    snapshot.close()
    assert (filled.ends, filled.asked) == (Counter(completed=2, failed=1), 2)
    assert [parts.listed(one) is None for one in wants] == [False, True, False]
    (entry,) = delayed(parts.store, Kind.LISTS)
    assert entry.last_error.startswith("copy/groups.lmdb: key")


@pytest.mark.parametrize("by", ["proposals", "scores"])
async def test_the_prompt_that_spoils_a_batch_is_found(parts: Parts, by: str) -> None:
    answers = getattr(parts.llms, by)

    def refuse(prompt: str) -> object:
        if f"recent: {parts.names[5]}\n" in prompt:
            raise ModelRefused("too long")
        return answers(prompt)

    setattr(parts.llms, by, refuse)
    wants = [want(name) for name in parts.names]
    filled = await parts.fill(*wants)
    assert filled.ends == Counter(completed=len(wants) - 1, failed=1)
    assert [name for name, one in zip(parts.names, wants, strict=True) if parts.listed(one) is None] == [parts.names[5]]


async def test_while_triton_is_away_nothing_counts_against_anything(parts: Parts) -> None:
    def away(_: str) -> float:
        raise ModelUnavailable("away")

    parts.llms.scores = away
    with pytest.raises(ModelUnavailable):
        await parts.fill(want())
    (entry,) = parts.store.queue(Kind.LISTS).take(10, NOW)
    assert entry.attempts == 0


async def test_the_loop_puts_off_the_list_that_brings_triton_down_and_fills_the_others(
    parts: Parts, grouped_world: GroupedWorld
) -> None:
    def propose(prompt: str) -> Sequence[str]:
        if f"recent: {parts.names[5]}\n" in prompt:
            raise ModelUnavailable("away")
        return parts.names

    parts.llms.proposals = propose
    parts.want(*[want(name) for name in parts.names])
    holder, observed = SnapshotHolder(), Observed()
    holder.swap(grouped_world.snapshot_dir)
    queue = parts.store.queue(Kind.LISTS)
    loop = NearlineLoop(
        parts.store,
        Kind.LISTS,
        lambda snapshot: job(snapshot, parts.llms),
        holder,
        lambda _: False,
        channel_settings(),
        observed,
        batch=8,
        poll=0.0,
        longest_pause=0.0,
    )
    told = asyncio.Event()
    running = asyncio.create_task(loop.run(told))
    async with asyncio.timeout(20):
        while census(parts.store, Kind.LISTS).ready:
            await asyncio.sleep(0.01)
    told.set()
    await running
    loop.close()
    holder.close()
    missing = [name for name in parts.names if parts.listed(want(name)) is None]
    assert missing == [parts.names[5]]
    assert queue.totals()["failed"] == 1
    assert observed.errors


def test_a_prompt_style_that_nobody_knows_is_refused(parts: Parts, grouped_snapshot: Snapshot) -> None:
    spec = records_pb2.CoevolutionSpec()
    spec.CopyFrom(grouped_snapshot.coevolution or spec)
    spec.prompt_style = "verse"
    with pytest.raises(SnapshotUnavailable, match="prompt_style: found 'verse', expected a known one"):
        job(replace(grouped_snapshot, coevolution=spec), parts.llms)


async def test_a_stored_list_that_cannot_be_decoded_is_filled_anew_with_the_others(parts: Parts) -> None:
    wants = [want(name) for name in parts.names[:3]]
    spoil(parts.store, parts.store.records[Kind.LISTS][0], wants[1].key)
    with capture_logs() as logs:
        filled = await parts.fill(*wants)
    assert (filled.ends, filled.asked) == (Counter(completed=3), 3)
    assert all(parts.listed(one) for one in wants)
    (line,) = logs
    assert (line["event"], line["key"]) == ("unreadable record counts as absent", repr(wants[1].key))
    assert (await parts.fill(*wants)).ends == Counter(unneeded=3)
