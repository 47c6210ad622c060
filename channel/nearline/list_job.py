"""Novel-category lists: what the LLMs are asked, what they propose, what is kept (arXiv 2508.00450, eq. 10 to 14)."""

from __future__ import annotations

from collections.abc import Sequence

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.channel.nearline.job import Asked, Generated, Job, ask_about, prompt_style
from serendipity.channel.nearline.outcome import Completed, Failed, Outcome, Unneeded
from serendipity.channel.nearline.subject import wanted_list
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.groups.lists import AlignedCategory, aligned_list, alignment, is_current, llms_hash
from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.v1 import records_pb2


class ListJob(Job[str]):
    """Fills lists by the Novelty and the Relevance LLM that a snapshot names; they are told the group's profile.

    timeout: seconds for one batch, for each of the two. Raises SnapshotUnavailable for what cannot be used.
    """

    def __init__(
        self, snapshot: Snapshot, spec: records_pb2.CoevolutionSpec, llms: CoevolutionLlms, *, timeout: float
    ) -> None:
        path = snapshot.directory / layout.MANIFEST
        if snapshot.groups is None:
            raise SnapshotUnavailable(f"{path}: coevolution without groups; expected the groups whose lists it fills")
        if not spec.num_candidates:
            raise SnapshotUnavailable(f"{path}: coevolution: num_candidates: found 0, expected at least 1")
        self.snapshot = snapshot
        self.spec = spec
        self.groups = snapshot.groups
        self._style = prompt_style(snapshot, spec.prompt_style)
        self._llms = llms
        self._timeout = timeout

    def is_current(self, record: records_pb2.NovelCategoriesRecord, now: int) -> bool:  # noqa: ARG002
        """Tell whether a list is what these LLMs would give."""
        return is_current(record, self.spec, self.snapshot.taxonomy_hash)

    def read(self, entry: records_pb2.NearlineEntry, now: int) -> str | Failed | Unneeded:  # noqa: ARG002
        """Read the group's profile; entries of other group models or taxonomies are over."""
        want = wanted_list(entry)
        known = self.snapshot.category_numbers
        if want.group_model_id != self.spec.group_model_id or not all(name in known for name in want.categories):
            return Unneeded(entry)
        group = self.groups.read(want.group_id)
        if group is None:
            return Failed(entry, f"group {want.group_id}: found none in {layout.GROUPS}, expected one")
        return group.profile

    async def generate(self, asked: Sequence[Asked[str]], now: int) -> Generated:
        """Ask the Novelty LLM for categories and the Relevance LLM about each of them.

        counts: proposed: categories named; empty: lists on which nothing reached the threshold.
        """
        outcomes: list[Outcome] = []
        candidates = [
            Asked(one.entry, (one.question, self._allowed(one.entry, names)))
            for one, names in await ask_about(asked, self._propose, outcomes)
        ]
        empty = 0
        for one, scores in await ask_about(candidates, self._score, outcomes):
            alignments = [alignment(score, self.spec.score_scale, self.spec.score_offset) for score in scores]
            kept = aligned_list(one.question[1], alignments, self.spec.threshold)
            empty += not kept
            outcomes.append(Completed(one.entry, (self._record(kept, now),)))
        proposed = sum(len(one.question[1]) for one in candidates)
        return Generated(outcomes, {"proposed": proposed, "empty": empty})

    async def _propose(self, some: Sequence[Asked[str]]) -> list[list[str]]:
        excluded = [wanted_list(one.entry).categories for one in some]
        prompts = [novelty_prompt(one.question, names, self._style) for one, names in zip(some, excluded, strict=True)]
        count = self.spec.num_candidates
        proposed = await self._llms.propose(self.spec, prompts, excluded, count, self._timeout)
        return [[name for name, _ in proposals] for proposals in proposed]

    def _allowed(self, entry: records_pb2.NearlineEntry, proposed: Sequence[str]) -> list[str]:
        """Leave out what may not be on the list: unknown categories, and those of its key."""
        allowed = self.snapshot.category_numbers.keys() - {*entry.novel_categories.categories}
        return [name for name in dict.fromkeys(proposed) if name in allowed]

    async def _score(self, some: Sequence[Asked[tuple[str, list[str]]]]) -> list[list[float]]:
        """Ask the Relevance LLM about all candidates of some lists; f of each."""
        prompts = [
            relevance_prompt(profile, wanted_list(one.entry).categories, candidate, self._style)
            for one in some
            for profile, candidates in [one.question]
            for candidate in candidates
        ]
        scores = iter(await self._llms.score(self.spec, prompts, self._timeout) if prompts else ())
        return [[next(scores) for _ in one.question[1]] for one in some]

    def _record(self, kept: Sequence[AlignedCategory], now: int) -> records_pb2.NovelCategoriesRecord:
        return records_pb2.NovelCategoriesRecord(
            categories=[self.snapshot.category_numbers[aligned.category] for aligned in kept],
            scores=[aligned.alignment for aligned in kept],
            generated_at=now,
            group_model_id=self.spec.group_model_id,
            generation=self.spec.generation,
            taxonomy_hash=self.snapshot.taxonomy_hash,
            llms_hash=llms_hash(self.spec),
        )
