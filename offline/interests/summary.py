"""interests.json: what an interests directory holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from serendipity.layout import write_atomically
from serendipity.offline.errors import BuilderError

SUMMARY = "interests.json"
INTEREST_VECTORS = "interest_vectors.npy"


class SummaryError(BuilderError, ValueError):
    """interests.json cannot be read: names the file and what was found."""


@dataclass(frozen=True)
class InterestsSummary:
    """What the interests directory holds.

    taxonomy_hash: SHA-256 (hex) of the catalogue's nodes; vocabulary_id: 16 hex digits; grounding_threshold: least
    cosine at which a name grounds by the encoder; reasoner, encoder: names; interest_dim: D; novelty_level: level of
    the path that is top-level; generated_at: Unix seconds, the moment the interests are as of; num_nodes;
    num_reasoner_nodes: of them clusters of what reasoners named; num_users: users with interests; num_interests: of
    all users.
    """

    taxonomy_hash: str
    vocabulary_id: str
    grounding_threshold: float
    reasoner: str
    encoder: str
    interest_dim: int
    novelty_level: int
    generated_at: int
    num_nodes: int
    num_reasoner_nodes: int
    num_users: int
    num_interests: int

    @classmethod
    def read(cls, interests: Path) -> InterestsSummary:
        """Read interests.json below an interests directory. Raises SummaryError."""
        path = interests / SUMMARY
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SummaryError(f"{path}: cannot be read ({error}); expected it of the interests builder") from error

    def write(self, interests: Path) -> None:
        """Write interests.json below an interests directory."""
        write_atomically(interests / SUMMARY, json.dumps(asdict(self), indent=2, sort_keys=True).encode())
