"""Everything of one snapshot that a refresh needs: the model's spec, the vocabulary to ground in, users to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from google.protobuf.message import DecodeError

from serendipity import layout
from serendipity.channel.errors import ChannelError, RecordCorrupt, SnapshotUnavailable
from serendipity.channel.nearline.context import ContextReader, ReadFeedback, SignalStore
from serendipity.channel.nearline.encodings import Encodings
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.interests.grounding import Grounder, GroundingNode
from serendipity.interests.prompt import PromptStyle
from serendipity.v1 import records_pb2

_ALL_FACTS = records_pb2.FactsSpec(search_days=30.0, clicked_titles="always", signal_titles=True)
"""What models are told whose spec does not say."""


@dataclass(frozen=True)
class RefreshModel:
    """InterestGPT as a snapshot names it, and what its answers are grounded in.

    grounder: over the snapshot's nodes, with the encodings that are made ahead; users: reads what the model is told;
    snapshot: must stay open.
    """

    spec: records_pb2.InterestGptSpec
    style: PromptStyle
    grounder: Grounder
    encodings: Encodings
    users: ContextReader
    snapshot: Snapshot
    signals: SignalStore | None

    @classmethod
    def open(cls, snapshot: Snapshot, feedback: ReadFeedback) -> RefreshModel | None:
        """Read a snapshot's spec, nodes and signals; None if it names no InterestGPT.

        Raises SnapshotUnavailable for a spec or nodes that cannot be used.
        """
        path = snapshot.directory / layout.MANIFEST
        try:
            manifest = layout.read_manifest(snapshot.directory)
            if not manifest.HasField("interest_gpt"):
                return None
            spec = manifest.interest_gpt
            style = next((known for known in get_args(PromptStyle) if known == spec.prompt_style), None)
            if style is None:
                raise SnapshotUnavailable(f"{path}: prompt_style: found {spec.prompt_style!r}, expected a known one")
            if not spec.rank_weights or not spec.num_interests:
                raise SnapshotUnavailable(
                    f"{path}: interest_gpt: found {len(spec.rank_weights)} rank_weights for {spec.num_interests} "
                    "interests, expected at least one of each"
                )
            encodings = Encodings(snapshot.interest_vectors.shape[1])
            nodes = grounding_nodes(snapshot)
            grounder = Grounder(
                nodes,
                snapshot.category_names,
                snapshot.interest_vectors,
                encodings,
                manifest.grounding_threshold,
            )
            signals = None
            if layout.SIGNALS in {name.partition("/")[0] for name in manifest.checksums}:
                signals = SignalStore(snapshot.directory / layout.SIGNALS)
        except (layout.SnapshotError, ChannelError) as error:
            raise SnapshotUnavailable(f"{path}: interests cannot be refreshed: {error}") from error
        rule = spec.facts if spec.HasField("facts") else _ALL_FACTS
        node_categories = {node.node_id: node.category for node in nodes}
        users = ContextReader(
            snapshot, signals, feedback, rule, hints=spec.facts.hints, node_categories=node_categories
        )
        return cls(spec, style, grounder, encodings, users, snapshot, signals)

    @property
    def name(self) -> str:
        """InterestGPT's name."""
        return self.spec.model_name

    def close(self) -> None:
        """Close what was opened beside the snapshot."""
        if self.signals is not None:
            self.signals.close()


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
