"""Logs → latent interests of every user, their paths, and the vectors of the taxonomy's nodes.

nodes.parquet         the interest vocabulary, see `node_table`
interests.parquet     user_id (NULL: users of whom nothing is known), node_ids, weights; best first
paths.parquet         user_id, seed_kinds, seeds, core_demands, latent_interests, relations, scores; parallel to it
interest_vectors.npy  [nodes, D] float32, L2-normalised, row = node_id
interests.json        see `summary`; written last
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serendipity.layout import write_atomically
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.contexts import cold_context, contexts_at
from serendipity.offline.interests.node_table import read_nodes, vocabulary_id_of, write_nodes
from serendipity.offline.interests.parquet import write_rows
from serendipity.offline.interests.reasoner import MAX_INTERESTS, Interest, Reasoner
from serendipity.offline.interests.summary import INTEREST_VECTORS, InterestsSummary
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories

DEFAULT_THRESHOLD = 0.6
"""Least cosine at which a name grounds by the encoder where none was tuned."""


def build_interests(
    logs: Path,
    interests: Path,
    encoder: TextEncoder,
    reasoner: Reasoner | None = None,
    k: int = MAX_INTERESTS,
    cache: Path | None = None,
) -> InterestsSummary:
    """Reason about every user as of the end of the logs and write the interests directory.

    reasoner: one that is ready to reason in the taxonomy of these logs; None: the taxonomy reasoner, fitted here.
    cache: of the encoder's vectors. Node ids of an earlier build in the same directory are kept.
    """
    interests.mkdir(parents=True, exist_ok=True)
    catalogue, histories = Catalogue.read(logs), Histories.read(logs)
    until = LogsSummary.read(logs_directory(logs)).events_until
    before = read_nodes(interests)
    taxonomy = Taxonomy.from_catalogue(catalogue, before.known if before else ())
    reasoner = reasoner or TaxonomyReasoner(taxonomy).fit(histories, until)
    found = reasoner.reason([*contexts_at(histories, until), cold_context(until)], k)
    user_ids: list[str | None] = [*histories.user_ids, None]
    vectors = encoder.encode(taxonomy.texts, cache)
    vocabulary_id = before.vocabulary_id if before else vocabulary_id_of(taxonomy.nodes)
    write_nodes(interests, taxonomy, vocabulary_id)
    _write_interests(interests / "interests.parquet", user_ids, found)
    _write_paths(interests / "paths.parquet", user_ids, found)
    content = io.BytesIO()
    np.save(content, vectors)
    write_atomically(interests / INTEREST_VECTORS, content.getvalue())
    summary = InterestsSummary(
        taxonomy_hash=taxonomy.hash,
        vocabulary_id=vocabulary_id,
        grounding_threshold=DEFAULT_THRESHOLD,
        reasoner=reasoner.name,
        encoder=encoder.name,
        interest_dim=encoder.dim,
        novelty_level=taxonomy.novelty_level,
        generated_at=until,
        num_nodes=len(taxonomy),
        num_reasoner_nodes=sum(1 for node in taxonomy.nodes if not node.of_catalogue),
        num_users=sum(1 for user in found[:-1] if user),
        num_interests=sum(len(user) for user in found[:-1]),
    )
    summary.write(interests)
    return summary


def _write_interests(path: Path, user_ids: Sequence[str | None], found: Sequence[Sequence[Interest]]) -> None:
    types = {"user_id": "VARCHAR", "node_ids": "UINTEGER[]", "weights": "FLOAT[]"}
    rows = (
        {"user_id": user_id, "node_ids": [i.node_id for i in user], "weights": [i.weight for i in user]}
        for user_id, user in zip(user_ids, found, strict=True)
        if user or user_id is None
    )
    write_rows(path, types, rows)


def _write_paths(path: Path, user_ids: Sequence[str | None], found: Sequence[Sequence[Interest]]) -> None:
    types = {
        "user_id": "VARCHAR", "seed_kinds": "UTINYINT[]", "seeds": "VARCHAR[]", "core_demands": "VARCHAR[]",
        "latent_interests": "VARCHAR[]", "relations": "UTINYINT[]", "scores": "FLOAT[]",
    }  # fmt: skip
    rows = (
        {
            "user_id": user_id,
            "seed_kinds": [int(i.path.seed_kind) for i in user],
            "seeds": [i.path.seed for i in user],
            "core_demands": [i.path.core_demand for i in user],
            "latent_interests": [i.path.latent_interest for i in user],
            "relations": [int(i.path.relation) for i in user],
            "scores": [i.path.score for i in user],
        }
        for user_id, user in zip(user_ids, found, strict=True)
        if user or user_id is None
    )
    write_rows(path, types, rows)
