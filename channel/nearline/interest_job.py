"""Users' interests: what is known of a user, InterestGPT's answers, what grounds of these, records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from serendipity import layout
from serendipity.channel.errors import ChannelError, RecordCorrupt, SnapshotUnavailable
from serendipity.channel.nearline.context import ContextReader, KnownUser, ReadFeedback, SignalStore
from serendipity.channel.nearline.encodings import EncodeAhead, Encodings
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt
from serendipity.channel.nearline.job import Asked, Generated, Job, ask_about, prompt_style
from serendipity.channel.nearline.outcome import Completed, Failed, Outcome, Unneeded
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.interests.answer import AnswerError, Proposal, read_answer
from serendipity.interests.grounding import GroundedInterest, Grounder, GroundingNode, ground_answer
from serendipity.interests.life import expires_at
from serendipity.interests.prompt import bounded, render
from serendipity.novelty import NO_CATEGORY
from serendipity.v1 import records_pb2

MAX_INTERESTS = 16
"""Interests of a hot record at most, whatever a spec says: it stays within 120 bytes."""

_ALL_FACTS = records_pb2.FactsSpec(search_days=30.0, clicked_titles="always", signal_titles=True)
"""What models are told whose spec does not say."""


class InterestJob(Job[KnownUser]):
    """Generates users' interests by the InterestGPT that a snapshot names, grounded in the snapshot's nodes.

    encode: the text encoder of the snapshot's interest vectors; feedback: of this host; timeout: seconds for the
    answers of one batch. Raises SnapshotUnavailable for a spec, nodes or signals that cannot be used.
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
            if not spec.rank_weights or not spec.num_interests:
                raise SnapshotUnavailable(
                    f"{path}: interest_gpt: found {len(spec.rank_weights)} rank_weights for {spec.num_interests} "
                    "interests, expected at least one of each"
                )
            self._encodings = Encodings(snapshot.interest_vectors.shape[1])
            nodes = grounding_nodes(snapshot)
            self._grounder = Grounder(
                nodes, snapshot.category_names, snapshot.interest_vectors, self._encodings, manifest.grounding_threshold
            )
            if layout.SIGNALS in {name.partition("/")[0] for name in manifest.checksums}:
                self._signals = SignalStore(snapshot.directory / layout.SIGNALS)
        except (layout.SnapshotError, ChannelError) as error:
            raise SnapshotUnavailable(f"{path}: interests cannot be refreshed: {error}") from error
        self.users = ContextReader(
            snapshot,
            self._signals,
            feedback,
            spec.facts if spec.HasField("facts") else _ALL_FACTS,
            hints=spec.facts.hints,
            node_categories={node.node_id: node.category for node in nodes},
        )

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
        """Ask InterestGPT, and ground its answers.

        counts: prompt_tokens, completion_tokens: as the model counted them; dropped_<reason>: proposals not stored.
        """
        outcomes: list[Outcome] = []
        answered = await ask_about(asked, self._ask, outcomes)
        counts = Counter(
            prompt_tokens=sum(answer.prompt_tokens for _, answer in answered),
            completion_tokens=sum(answer.completion_tokens for _, answer in answered),
        )
        proposed = []
        for one, answer in answered:
            try:
                proposed.append((one, read_answer(answer.text, whole=False)))
            except AnswerError as error:
                outcomes.append(Failed(one.entry, str(error)))
        texts = (text for _, proposals in proposed for text in self._grounder.texts(proposals))
        refused = await self._encodings.encode_ahead(texts, self._encode)

        def ground_all() -> list[Outcome]:
            return [self._ground(one, proposals, refused, now, counts) for one, proposals in proposed]

        outcomes += await asyncio.to_thread(ground_all)
        return Generated(outcomes, counts)

    def close(self) -> None:
        """Close the signals."""
        if self._signals is not None:
            self._signals.close()

    async def _ask(self, some: Sequence[Asked[KnownUser]]) -> list[Answer]:
        """Ask about users; the categories among their latest 200 clicks would waste a place of an answer."""
        prompts = [render(one.question.facts, self._style) for one in some]
        names = self.snapshot.category_names
        excluded = [[names[n - 1] for n in sorted(one.question.known) if n != NO_CATEGORY] for one in some]
        return await self._gpt.answers(self.spec, prompts, self._timeout, excluded=excluded)

    def _ground(
        self,
        one: Asked[KnownUser],
        proposals: list[Proposal],
        refused: set[str],
        now: int,
        counts: Counter[str],
    ) -> Outcome:
        """Ground what was proposed for one user. refused: texts the encoder refuses."""
        if bad := refused.intersection(self._grounder.texts(proposals)):
            return Failed(one.entry, f"answer: the text encoder refuses {min(bad)!r}")
        most = min(self.spec.num_interests, MAX_INTERESTS)
        answer = ground_answer(proposals, one.question.facts, self._grounder, one.question.known, most)
        counts.update({f"dropped_{reason}": count for reason, count in answer.dropped.items()})
        if not answer.interests:
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(answer.dropped.items()))
            return Failed(one.entry, f"answer: found no interest that may be stored ({why or 'none at all'})")
        return Completed(one.entry, self._records(one.entry.user_id, answer.interests, now))

    def _records(
        self, user_id: str, interests: Sequence[GroundedInterest], now: int
    ) -> tuple[records_pb2.InterestsRecord, records_pb2.InterestPathsRecord]:
        rank_weights = self.spec.rank_weights
        weights = [rank_weights[min(rank, len(rank_weights) - 1)] for rank in range(len(interests))]
        return (
            records_pb2.InterestsRecord(
                node_ids=[interest.node.node_id for interest in interests],
                weights=[round(1000 * min(max(weight, 0.0), 1.0)) for weight in weights],
                generated_at=now,
                expires_at=expires_at(user_id, now),
                taxonomy_hash=self.snapshot.taxonomy_hash,
                vocabulary_id=self.snapshot.vocabulary_id,
            ),
            records_pb2.InterestPathsRecord(
                paths=[interest.path for interest in interests], reasoner=self.spec.model_name
            ),
        )


def grounding_nodes(snapshot: Snapshot) -> list[GroundingNode]:
    """Read the nodes that interests may ground in: those of one top-level category. Raises RecordCorrupt."""
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
        if len(node.categories) == 1:
            num_items = sum(end - start for start, end in zip(node.starts, node.ends, strict=True))
            path, aliases = tuple(node.path), tuple(node.aliases)
            nodes.append(GroundingNode(node.node_id, path, node.categories[0], aliases, num_items))
    return nodes
