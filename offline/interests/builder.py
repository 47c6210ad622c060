"""Logs → latent interests of every user, their paths, and the vectors of the taxonomy's nodes.

nodes.parquet         node_id, name, path, parent (NULL at the root), starts, ends, categories; sorted by node_id
interests.parquet     user_id (NULL: users of whom nothing is known), node_ids, weights; best first
paths.parquet         user_id, seed_kinds, seeds, core_demands, latent_interests, relations, scores; parallel to it
interest_vectors.npy  [nodes, D] float32, L2-normalised, row = node_id
interests.json        taxonomy hash, reasoner, encoder, generated_at, counts; written last
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from serendipity.layout import write_atomically
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.contexts import cold_context, contexts_at
from serendipity.offline.interests.reasoner import MAX_INTERESTS, Interest, Reasoner
from serendipity.offline.interests.taxonomy import NO_NODE, Taxonomy, read_paths
from serendipity.offline.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories

SUMMARY = "interests.json"


@dataclass(frozen=True)
class InterestsSummary:
    """What the interests directory holds.

    taxonomy_hash: SHA-256 (hex); reasoner, encoder: names; interest_dim: D; generated_at: Unix seconds, the moment the
    interests are as of; num_nodes; num_users: users with interests; num_interests: of all users.
    """

    taxonomy_hash: str
    reasoner: str
    encoder: str
    interest_dim: int
    generated_at: int
    num_nodes: int
    num_users: int
    num_interests: int

    @classmethod
    def read(cls, interests: Path) -> InterestsSummary:
        """Read interests.json below an interests directory."""
        return cls(**json.loads((interests / SUMMARY).read_text(encoding="utf-8")))


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
    taxonomy = Taxonomy.from_catalogue(catalogue, read_paths(interests / "nodes.parquet"))
    reasoner = reasoner or TaxonomyReasoner(taxonomy).fit(histories, until)
    found = reasoner.reason([*contexts_at(histories, until), cold_context(until)], k)
    user_ids: list[str | None] = [*histories.user_ids, None]
    vectors = encoder.encode(taxonomy.texts, cache)
    _write_nodes(interests / "nodes.parquet", taxonomy)
    _write_interests(interests / "interests.parquet", user_ids, found)
    _write_paths(interests / "paths.parquet", user_ids, found)
    content = io.BytesIO()
    np.save(content, vectors)
    write_atomically(interests / "interest_vectors.npy", content.getvalue())
    summary = InterestsSummary(
        taxonomy_hash=taxonomy.hash,
        reasoner=reasoner.name,
        encoder=encoder.name,
        interest_dim=encoder.dim,
        generated_at=until,
        num_nodes=len(taxonomy),
        num_users=sum(1 for user in found[:-1] if user),
        num_interests=sum(len(user) for user in found[:-1]),
    )
    write_atomically(interests / SUMMARY, json.dumps(asdict(summary), indent=2, sort_keys=True).encode())
    return summary


def _write_nodes(path: Path, taxonomy: Taxonomy) -> None:
    types = {
        "node_id": "UINTEGER", "name": "VARCHAR", "path": "VARCHAR[]", "parent": "UINTEGER", "starts": "UINTEGER[]",
        "ends": "UINTEGER[]", "categories": "UINTEGER[]",
    }  # fmt: skip
    rows = (
        {
            "node_id": node.node_id,
            "name": node.name,
            "path": node.path,
            "parent": None if node.parent == NO_NODE else node.parent,
            "starts": [start for start, _ in node.ranges],
            "ends": [end for _, end in node.ranges],
            "categories": node.categories,
        }
        for node in taxonomy.nodes
    )
    _write(path, types, rows)


def _write_interests(path: Path, user_ids: Sequence[str | None], found: Sequence[Sequence[Interest]]) -> None:
    types = {"user_id": "VARCHAR", "node_ids": "UINTEGER[]", "weights": "FLOAT[]"}
    rows = (
        {"user_id": user_id, "node_ids": [i.node_id for i in user], "weights": [i.weight for i in user]}
        for user_id, user in zip(user_ids, found, strict=True)
        if user or user_id is None
    )
    _write(path, types, rows)


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
    _write(path, types, rows)


def _write(path: Path, types: dict[str, str], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as Parquet. They pass through JSON lines: DuckDB inserts Python rows one by one, 100 times slower."""
    lines = path.with_name(f".{path.name}.jsonl")
    beside = path.with_name(f".{path.name}.partial")
    columns = ", ".join(f"{name}: {kind!r}" for name, kind in types.items())
    try:
        with lines.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        with duckdb.connect() as connection:
            source, target = (str(name).replace("'", "''") for name in (lines, beside))
            connection.execute(
                f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited', columns = {{{columns}}})) "
                f"TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            )
        beside.replace(path)
    finally:
        lines.unlink(missing_ok=True)
