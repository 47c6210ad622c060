"""The interest vocabulary: the nodes that latent interests may ground in, each with one vector.

Nodes of the catalogue's taxonomy and clusters of what reasoners named share one append-only id space (`node_table`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.grounding import Grounder, GroundingNode
from serendipity.offline.encoder import RememberingEncoder, TextEncoder
from serendipity.offline.errors import BuilderError
from serendipity.offline.interests.node_table import read_nodes
from serendipity.offline.interests.summary import INTEREST_VECTORS, InterestsSummary
from serendipity.offline.interests.taxonomy import TaxonomyNode


class VocabularyError(BuilderError):
    """A vocabulary cannot be read or used: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class Vocabulary:
    """Interest nodes by id.

    nodes: nodes[i].node_id == i. categories: names of the top-level categories, by number − 1. vectors: [n, D] float32
    of norm 1, by node id. encoder: name of the text encoder they are from. vocabulary_id: 16 hex digits, fixed when
    the id space was made. taxonomy_hash: SHA-256 (hex) of the catalogue's nodes. grounding_threshold: least cosine.
    """

    nodes: tuple[TaxonomyNode, ...]
    categories: tuple[str, ...]
    vectors: NDArray[np.float32]
    encoder: str
    vocabulary_id: str
    taxonomy_hash: str
    grounding_threshold: float

    @classmethod
    def read(cls, interests: Path) -> Vocabulary:
        """Read an interests directory.

        Raises VocabularyError when a file is missing or they do not belong together, NodeTableError when the table of
        nodes cannot be read.
        """
        table = read_nodes(interests)
        if table is None:
            raise VocabularyError(f"{interests}: holds no nodes; expected the output of the interests builder")
        try:
            summary = InterestsSummary.read(interests)
            vectors: NDArray[np.float32] = np.load(interests / INTEREST_VECTORS, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise VocabularyError(f"{interests}: cannot be read ({error}); build the interests anew") from error
        if table.vocabulary_id != summary.vocabulary_id or len(vectors) != len(table.nodes):
            raise VocabularyError(
                f"{interests}: found {len(vectors)} vectors of vocabulary {summary.vocabulary_id}, expected "
                f"{len(table.nodes)} of {table.vocabulary_id}; build the interests anew"
            )
        return cls(
            nodes=table.nodes,
            categories=category_names(table.nodes, summary.novelty_level),
            vectors=vectors,
            encoder=summary.encoder,
            vocabulary_id=table.vocabulary_id,
            taxonomy_hash=summary.taxonomy_hash,
            grounding_threshold=summary.grounding_threshold,
        )

    def grounder(self, encoder: TextEncoder | RememberingEncoder) -> Grounder:
        """Make a grounder over the vocabulary. Raises VocabularyError for another encoder than the vectors' own."""
        if encoder.name != self.encoder:
            raise VocabularyError(f"text encoder: found {encoder.name!r}, expected {self.encoder!r} of the vectors")
        return Grounder(
            grounding_nodes(self.nodes),
            self.categories,
            self.vectors,
            encoder.encode,
            self.grounding_threshold,
        )


def grounding_nodes(nodes: Sequence[TaxonomyNode]) -> list[GroundingNode]:
    """List the nodes that interests may ground in: those with items of one top-level category and no other."""
    return [
        GroundingNode(
            node_id=node.node_id,
            path=node.path,
            category=node.categories[0],
            aliases=node.aliases,
            num_items=sum(end - start for start, end in node.ranges),
        )
        for node in nodes
        if len(node.categories) == 1
    ]


def category_names(nodes: Sequence[TaxonomyNode], novelty_level: int) -> tuple[str, ...]:
    """Name the top-level categories, by number − 1: what the catalogue's nodes at that level are called."""
    names = {
        node.categories[0]: node.name
        for node in nodes
        if node.of_catalogue and node.categories and len(node.path) == novelty_level + 1
    }
    return tuple(names[number] for number in sorted(names))
