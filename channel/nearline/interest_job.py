"""Users' interests: what is known of a user, what the reasoner proposes, InterestGPT's word on it, records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import ChannelError, RecordCorrupt, SnapshotUnavailable
from serendipity.channel.nearline.context import ContextReader, KnownUser, ReadFeedback, SignalStore
from serendipity.channel.nearline.encodings import EncodeAhead, Encodings
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt, Likelihoods
from serendipity.channel.nearline.job import Asked, Generated, Job, ask_about, prompt_style
from serendipity.channel.nearline.outcome import Completed, Failed, Outcome, Unneeded
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.interests.answer import AnswerError, Proposal, read_answer
from serendipity.interests.grounding import Grounder, GroundingNode, ground_answer
from serendipity.interests.life import expires_at
from serendipity.interests.mixing import mixed
from serendipity.interests.prompt import bounded, render
from serendipity.interests.taxonomy_reasoner import TaxonomyReasoner, likeliest
from serendipity.v1 import records_pb2

MAX_INTERESTS = 16
"""Interests of a hot record at most, whatever a spec says: it stays within 120 bytes."""


@dataclass(frozen=True)
class Proposed:
    """A user, and what the reasoner says. probabilities: [C + 1] float32, P(enter) by category number; candidates: the
    numbers of the likeliest that are novel, likeliest first."""

    user: KnownUser
    probabilities: NDArray[np.float32]
    candidates: list[int]


class InterestJob(Job[KnownUser]):
    """Refreshes users' interests: what the snapshot's reasoner proposes, weighed by the InterestGPT that it names.

    encode: the text encoder of the snapshot's interest vectors, for an InterestGPT that writes; feedback: of this host;
    timeout: seconds for the answers of one batch. Raises SnapshotUnavailable for a spec, nodes, reasoner or signals
    that cannot be used.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        feedback: ReadFeedback,
        gpt: InterestGpt,
        encode: EncodeAhead,
        *,
        timeout: float,
    ) -> None:
        path = snapshot.directory / layout.MANIFEST
        self.snapshot = snapshot
        self._gpt = gpt
        self._encode = encode
        self._timeout = timeout
        self._signals: SignalStore | None = None
        try:
            manifest = layout.read_manifest(snapshot.directory)
            self.spec = spec = manifest.interest_gpt
            self._style = prompt_style(snapshot, spec.prompt_style)
            if not spec.num_candidates or not spec.num_interests:
                raise SnapshotUnavailable(
                    f"{path}: interest_gpt: found {spec.num_candidates} num_candidates for {spec.num_interests} "
                    "interests, expected at least one of each"
                )
            nodes = _nodes(snapshot)
            self.reasoner = _reasoner(snapshot, nodes, manifest.novelty_level)
            self._encodings = Encodings(snapshot.interest_vectors.shape[1])
            self._grounder = Grounder(
                grounding_nodes(nodes),
                snapshot.category_names,
                snapshot.interest_vectors,
                self._encodings,
                manifest.grounding_threshold,
            )
            if layout.SIGNALS in {name.partition("/")[0] for name in manifest.checksums}:
                self._signals = SignalStore(snapshot.directory / layout.SIGNALS)
        except (layout.SnapshotError, ChannelError) as error:
            raise SnapshotUnavailable(f"{path}: interests cannot be refreshed: {error}") from error
        self.users = ContextReader(snapshot, self._signals, feedback, spec.facts)

    def is_current(self, record: records_pb2.InterestsRecord, now: int) -> bool:
        """Tell whether interests are fresh and of this vocabulary."""
        return (
            record.taxonomy_hash == self.snapshot.taxonomy_hash
            and record.vocabulary_id == self.snapshot.vocabulary_id
            and now < record.expires_at
        )

    def read(self, entry: records_pb2.NearlineEntry, now: int) -> KnownUser | Unneeded:
        """Read what is known of a user; one of whom nothing is known is left in peace."""
        user = self.users.read(entry.user_id, now)
        return Unneeded(entry) if bounded(user.facts).is_empty else user

    async def generate(self, asked: Sequence[Asked[KnownUser]], now: int) -> Generated:
        """Ask InterestGPT how likely the proposed categories are, or to write.

        counts: prompt_tokens, completion_tokens: as the model counted them; dropped_<reason>: proposals not stored.
        """
        contexts = [one.question.context for one in asked]
        probabilities = await asyncio.to_thread(self.reasoner.probabilities, contexts)
        candidates = likeliest(probabilities, self.spec.num_candidates)
        proposed = [
            Asked(one.entry, Proposed(one.question, row, best))
            for one, row, best in zip(asked, probabilities, candidates, strict=True)
        ]
        outcomes: list[Outcome] = []
        counts = Counter[str]()
        work = self._written if self.spec.writes else self._scored
        await work(proposed, now, outcomes, counts)
        return Generated(outcomes, counts)

    def close(self) -> None:
        """Close the signals."""
        if self._signals is not None:
            self._signals.close()

    async def _scored(
        self, asked: Sequence[Asked[Proposed]], now: int, outcomes: list[Outcome], counts: Counter[str]
    ) -> None:
        """Order the likeliest categories by the reasoner's word and InterestGPT's."""
        some = []
        for one in asked:
            if one.question.candidates:
                some.append(one)
            else:
                outcomes.append(Failed(one.entry, "reasoner: found no category that is novel, expected one"))
        answered = await ask_about(some, self._ask_likelihoods, outcomes)
        counts["prompt_tokens"] += sum(likelihoods.prompt_tokens for _, likelihoods in answered)
        chosen = [self._mix(one.question, likelihoods) for one, likelihoods in answered]
        contexts = [one.question.user.context for one, _ in answered]
        reasoned = await asyncio.to_thread(self.reasoner.interests, contexts, chosen)
        for (one, _), interests in zip(answered, reasoned, strict=True):
            found = [
                (interest.node_id, interest.weight, records_pb2.InterestPath(**vars(interest.path)))
                for interest in interests
            ]
            outcomes.append(Completed(one.entry, self._records(one.entry.user_id, found, now)))

    def _mix(self, proposed: Proposed, likelihoods: Likelihoods) -> list[tuple[int, float]]:
        """Choose the best candidates: category number and weight of each, best first."""
        candidates = proposed.candidates
        weights = mixed(proposed.probabilities[candidates], likelihoods.values, self.spec.likelihood_weight)
        best = np.argsort(-weights, kind="stable")[: self._most]
        return [(candidates[place], float(weights[place])) for place in best.tolist()]

    async def _written(
        self, asked: Sequence[Asked[Proposed]], now: int, outcomes: list[Outcome], counts: Counter[str]
    ) -> None:
        """Ground what InterestGPT writes, in its order; the reasoner says what each is worth."""
        proposed = []
        for one, answer in await ask_about(asked, self._ask_answers, outcomes):
            counts.update(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
            try:
                proposed.append((one, read_answer(answer.text, whole=False)))
            except AnswerError as error:
                outcomes.append(Failed(one.entry, str(error)))
        texts = (text for _, proposals in proposed for text in self._grounder.texts(proposals))
        refused = await self._encodings.encode_ahead(texts, self._encode)

        def ground_all() -> list[Outcome]:
            return [self._ground(one, proposals, refused, now, counts) for one, proposals in proposed]

        outcomes += await asyncio.to_thread(ground_all)

    @property
    def _most(self) -> int:
        return min(self.spec.num_interests, MAX_INTERESTS)

    async def _ask_likelihoods(self, some: Sequence[Asked[Proposed]]) -> list[Likelihoods]:
        names = self.snapshot.category_names
        candidates = [[names[number - 1] for number in one.question.candidates] for one in some]
        return await self._gpt.log_likelihoods(self.spec, self._prompts(some), candidates, self._timeout)

    async def _ask_answers(self, some: Sequence[Asked[Proposed]]) -> list[Answer]:
        return await self._gpt.answers(self.spec, self._prompts(some), self._timeout)

    def _prompts(self, some: Sequence[Asked[Proposed]]) -> list[str]:
        return [render(one.question.user.facts, self._style) for one in some]

    def _ground(
        self,
        one: Asked[Proposed],
        proposals: list[Proposal],
        refused: set[str],
        now: int,
        counts: Counter[str],
    ) -> Outcome:
        """Ground what was written for one user. refused: texts the encoder refuses."""
        if bad := refused.intersection(self._grounder.texts(proposals)):
            return Failed(one.entry, f"answer: the text encoder refuses {min(bad)!r}")
        user = one.question.user
        answer = ground_answer(proposals, user.facts, self._grounder, user.known, self._most)
        counts.update({f"dropped_{reason}": count for reason, count in answer.dropped.items()})
        if not answer.interests:
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(answer.dropped.items()))
            return Failed(one.entry, f"answer: found no interest that may be stored ({why or 'none at all'})")
        found = [
            (interest.node.node_id, float(one.question.probabilities[interest.node.category]), interest.path)
            for interest in answer.interests
        ]
        return Completed(one.entry, self._records(one.entry.user_id, found, now))

    def _records(
        self, user_id: str, found: Sequence[tuple[int, float, records_pb2.InterestPath]], now: int
    ) -> tuple[records_pb2.InterestsRecord, records_pb2.InterestPathsRecord]:
        """Make the records of interests, best first: node id, weight and path of each."""
        return (
            records_pb2.InterestsRecord(
                node_ids=[node_id for node_id, _, _ in found],
                weights=[round(1000 * weight) for _, weight, _ in found],
                generated_at=now,
                expires_at=expires_at(user_id, now),
                taxonomy_hash=self.snapshot.taxonomy_hash,
                vocabulary_id=self.snapshot.vocabulary_id,
            ),
            records_pb2.InterestPathsRecord(paths=[path for _, _, path in found], reasoner=self.spec.model_name),
        )


def _nodes(snapshot: Snapshot) -> list[records_pb2.InterestNode]:
    """Read the interest nodes. Raises RecordCorrupt."""
    nodes = []
    for key, value in snapshot.nodes.values():
        try:
            node = records_pb2.InterestNode.FromString(value)
        except DecodeError as error:
            raise RecordCorrupt(f"{layout.INTEREST_NODES}: key {key!r}: no InterestNode ({error})") from error
        if node.node_id >= len(snapshot.interest_vectors) or not node.path:
            raise RecordCorrupt(
                f"{layout.INTEREST_NODES}: key {key!r}: found node {node.node_id} with path {list(node.path)}; "
                f"expected one below {len(snapshot.interest_vectors)} with a path"
            )
        nodes.append(node)
    return nodes


def grounding_nodes(nodes: Iterable[records_pb2.InterestNode]) -> list[GroundingNode]:
    """List the nodes that interests may ground in: those of one top-level category."""
    return [
        GroundingNode(
            node.node_id,
            tuple(node.path),
            node.categories[0],
            tuple(node.aliases),
            sum(node.ends) - sum(node.starts),
        )
        for node in nodes
        if len(node.categories) == 1
    ]


def _reasoner(snapshot: Snapshot, nodes: Sequence[records_pb2.InterestNode], novelty_level: int) -> TaxonomyReasoner:
    """Read the reasoner that proposes. Raises SnapshotUnavailable."""
    paths = {node.node_id: tuple(node.path) for node in nodes}
    names = [
        (node.name, node.categories[0])
        for node in nodes
        if node.origin != records_pb2.NODE_ORIGIN_REASONER
        and len(node.path) > novelty_level
        and len(node.categories) == 1
    ]
    try:
        return TaxonomyReasoner.read(snapshot.directory / layout.REASONER, snapshot.num_categories, paths, names)
    except (OSError, ValueError) as error:
        raise SnapshotUnavailable(f"{error}; build the snapshot anew") from error
