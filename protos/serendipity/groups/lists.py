"""How the two LLMs' answers become a novel-category list: one code for the batch builder and for near-line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from serendipity.v1 import records_pb2

LIST_LENGTH = 64
"""Categories a stored list holds at most."""


@dataclass(frozen=True)
class AlignedCategory:
    """A category of a list. alignment: s of arXiv 2508.00450, eq. 13, normalised to 0 … 1."""

    category: str
    alignment: float


def alignment(score: float, scale: float, offset: float) -> float:
    """Normalise what the Relevance LLM gives to 0 … 1: a logistic curve fitted on validation pairs (Platt)."""
    # Not exp of a large positive number, which overflows.
    z = scale * score + offset
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def aligned_list(
    candidates: Sequence[str], alignments: Sequence[float], threshold: float, most: int = LIST_LENGTH
) -> list[AlignedCategory]:
    """Keep the candidates whose alignment reaches the threshold, best aligned first (eq. 14).

    candidates: in the Novelty LLM's order, which decides between equals. Values that are not finite are dropped.
    """
    kept = [
        AlignedCategory(category, value)
        for category, value in zip(candidates, alignments, strict=True)
        if math.isfinite(value) and value >= threshold
    ]
    return sorted(kept, key=lambda aligned: -aligned.alignment)[:most]


def llms_hash(spec: records_pb2.CoevolutionSpec) -> int:
    """Name what decides lists beside profiles and categories: both LLMs and how their answers are used. 64 bits, not 0.

    Unlike the generation, it tells LLMs that were tuned from scratch from those before them.
    """
    parts = (
        spec.novelty_fingerprint,
        spec.relevance_fingerprint,
        spec.prompt_style,
        spec.num_candidates,
        spec.threshold,
        spec.score_scale,
        spec.score_offset,
    )
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") or 1


def is_current(
    record: records_pb2.NovelCategoriesRecord, spec: records_pb2.CoevolutionSpec, taxonomy_hash: int
) -> bool:
    """Tell whether a list, an empty one too, is what the LLMs of a snapshot would give now; others are stale.

    spec: of the snapshot; taxonomy_hash: its first 8 bytes. Age does not matter: the LLMs are told the group's profile
    and the categories of the key, so that a list changes only when they do. A list that does not say which LLMs wrote
    it, such as a snapshot's own, is told by their generation alone.
    """
    return (
        record.group_model_id == spec.group_model_id
        and record.generation == spec.generation
        and record.taxonomy_hash == taxonomy_hash
        and record.llms_hash in (0, llms_hash(spec))
    )
