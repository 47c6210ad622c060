"""One batch of novel-category lists: what the LLMs are asked, what they propose, what is kept of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from serendipity import layout
from serendipity.channel.errors import ModelRefused, RecordCorrupt, SnapshotUnavailable
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.channel.nearline.outcome import BatchDone, Completed, Failed, Outcome, Unneeded
from serendipity.channel.nearline.settlement import Settlement, ask_in_halves, read_if_readable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import wanted_list
from serendipity.channel.nearline.wanted_list import WantedList, is_current
from serendipity.channel.snapshot.group_stores import GroupStore
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.groups.lists import AlignedCategory, aligned_list, alignment, llms_hash
from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.interests.prompt import PromptStyle
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class ListModel:
    """The two LLMs as a snapshot names them, and the profiles they are told."""

    spec: records_pb2.CoevolutionSpec
    style: PromptStyle
    groups: GroupStore
    snapshot: Snapshot

    @classmethod
    def open(cls, snapshot: Snapshot) -> ListModel | None:
        """Take what a snapshot says; None if it names no LLMs. Raises SnapshotUnavailable for what cannot be used."""
        spec, groups = snapshot.coevolution, snapshot.groups
        if spec is None:
            return None
        path = snapshot.directory / layout.MANIFEST
        if groups is None:
            raise SnapshotUnavailable(f"{path}: coevolution without groups; expected the groups whose lists it fills")
        style = next((known for known in get_args(PromptStyle) if known == spec.prompt_style), None)
        if style is None:
            raise SnapshotUnavailable(f"{path}: prompt_style: found {spec.prompt_style!r}, expected a known one")
        if not spec.num_candidates:
            raise SnapshotUnavailable(f"{path}: coevolution: num_candidates: found 0, expected at least 1")
        return cls(spec, style, groups, snapshot)

    @property
    def name(self) -> str:
        """Both models' names."""
        return f"{self.spec.novelty_model_name} and {self.spec.relevance_model_name}"

    def close(self) -> None:
        """Nothing was opened beside the snapshot."""


@dataclass(frozen=True)
class Filled(BatchDone):
    """What became of a batch of lists.

    proposed: categories the Novelty LLM named; empty: lists on which nothing reached the threshold.
    """

    proposed: int = 0
    empty: int = 0


@dataclass(frozen=True)
class _Asked:
    """An entry the LLMs are asked about. profile: of its group."""

    entry: records_pb2.NearlineEntry
    want: WantedList
    profile: str


class ListFiller:
    """Fills wanted lists by the Novelty and the Relevance LLM (arXiv 2508.00450, eq. 10 to 14).

    timeout: seconds for one batch, for each of the two.
    """

    def __init__(self, store: NearlineStore, settlement: Settlement, llms: CoevolutionLlms, *, timeout: float) -> None:
        self._store = store
        self._settlement = settlement
        self._llms = llms
        self._timeout = timeout

    async def fill(self, entries: Sequence[records_pb2.NearlineEntry], model: ListModel, now: int) -> Filled:
        """Bring entries to their end: a list, a failure that is put off, or nothing to do.

        now: moment the lists are generated as of, Unix seconds. Raises ModelUnavailable, StateUnavailable and
        StoreUnavailable; then nothing is settled, the entries stay as they were, and it counts against none of them.
        """
        start = time.perf_counter()
        outcomes: list[Outcome] = []
        asked = await asyncio.to_thread(self._read, entries, model, outcomes)
        proposed = await self._propose(asked, model, outcomes)
        scored = await ask_in_halves(
            proposed,
            lambda some: self._score(some, model),
            lambda one, error: outcomes.append(Failed(one[0].entry, str(error))),
        )
        empty = 0
        for (one, candidates), scores in scored:
            spec = model.spec
            alignments = [alignment(score, spec.score_scale, spec.score_offset) for score in scores]
            kept = aligned_list(candidates, alignments, spec.threshold)
            empty += not kept
            outcomes.append(Completed(one.entry, (_record(kept, model, now),)))
        counts = {"proposed": sum(len(candidates) for _, candidates in proposed), "empty": empty}
        settled, _ = await asyncio.to_thread(self._settlement.settle, outcomes, entries, counts)
        seconds = time.perf_counter() - start
        return Filled(settled=settled, asked=len(scored), seconds=seconds, **counts)

    def _read(
        self, entries: Sequence[records_pb2.NearlineEntry], model: ListModel, outcomes: list[Outcome]
    ) -> list[_Asked]:
        """Read profiles; entries of other group models or taxonomies, and of lists that are current, are over."""
        asked = []
        snapshot = model.snapshot
        for entry in entries:
            want = wanted_list(entry)
            stored = read_if_readable(partial(self._store.novel_categories, want.key), entry)
            if (
                want.group_model_id != model.spec.group_model_id
                or not all(name in snapshot.category_numbers for name in want.categories)
                or (stored is not None and is_current(stored, model.spec, snapshot.taxonomy_hash))
            ):
                outcomes.append(Unneeded(entry))
                continue
            try:
                group = model.groups.read(want.group_id)
            except RecordCorrupt as error:
                outcomes.append(Failed(entry, str(error)))
                continue
            if group is None:
                outcomes.append(Failed(entry, f"group {want.group_id}: found none in {layout.GROUPS}, expected one"))
            else:
                asked.append(_Asked(entry, want, group.profile))
        return asked

    async def _propose(
        self, asked: Sequence[_Asked], model: ListModel, outcomes: list[Outcome]
    ) -> list[tuple[_Asked, list[str]]]:
        """Ask the Novelty LLM; what it names that may not be on the list is left out."""

        async def ask(some: Sequence[_Asked]) -> list[list[tuple[str, float]]]:
            prompts = [novelty_prompt(one.profile, one.want.categories, model.style) for one in some]
            excluded = [one.want.categories for one in some]
            return await self._llms.propose(model.spec, prompts, excluded, model.spec.num_candidates, self._timeout)

        def fail(one: _Asked, error: ModelRefused) -> None:
            outcomes.append(Failed(one.entry, str(error)))

        answered = await ask_in_halves(asked, ask, fail)
        known = model.snapshot.category_numbers
        proposed = []
        for one, answer in answered:
            allowed = known.keys() - {*one.want.categories}
            proposed.append((one, [name for name in dict.fromkeys(map(_name, answer)) if name in allowed]))
        return proposed

    async def _score(self, some: Sequence[tuple[_Asked, list[str]]], model: ListModel) -> list[list[float]]:
        """Ask the Relevance LLM about all candidates of some lists; f of each."""
        prompts = [
            relevance_prompt(one.profile, one.want.categories, candidate, model.style)
            for one, candidates in some
            for candidate in candidates
        ]
        scores = iter(await self._llms.score(model.spec, prompts, self._timeout) if prompts else ())
        return [[next(scores) for _ in candidates] for _, candidates in some]


def _name(proposal: tuple[str, float]) -> str:
    return proposal[0]


def _record(kept: Sequence[AlignedCategory], model: ListModel, now: int) -> records_pb2.NovelCategoriesRecord:
    return records_pb2.NovelCategoriesRecord(
        categories=[model.snapshot.category_numbers[aligned.category] for aligned in kept],
        scores=[aligned.alignment for aligned in kept],
        generated_at=now,
        group_model_id=model.spec.group_model_id,
        generation=model.spec.generation,
        taxonomy_hash=model.snapshot.taxonomy_hash,
        llms_hash=llms_hash(model.spec),
    )
