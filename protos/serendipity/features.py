"""The feature assembler: history and profile → the raw ids and ages the user tower is fed.

One code for training rows and for serving, so that the two cannot drift apart. It only lays numbers
out; all embedding and pooling happens inside the tower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.novelty import Clicks
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class LongHistory:
    """Every top-level category a user ever clicked, as columns, most clicked first.

    categories: [n] int32 category numbers (index + 1); counts: [n] int32; last_times: [n] int64 Unix seconds.
    """

    categories: NDArray[np.int32]
    counts: NDArray[np.int32]
    last_times: NDArray[np.int64]

    @classmethod
    def empty(cls) -> LongHistory:
        """No history at all."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))


@dataclass(frozen=True)
class TowerInputs:
    """One batch of user-tower inputs, named as the Triton model's input tensors. B users.

    history_items: [B, L] int32, row + 1 of the latest clicks, newest first, 0 = none.
    history_ages: [B, L] int32, seconds from the click to `now`, at least 0; 0 where there is none.
    long_categories: [B, C] int32, category numbers, most clicked first, 0 = none.
    long_counts: [B, C] int32, clicks in the category.
    long_ages: [B, C] int32, seconds since the last click in the category.
    profile: [B, P] int32, value number of each profile field, 0 = unknown; P is at least 1.
    interests: [B, k, D] float32, text embeddings of the latent interests, 1 ≤ k ≤ K as many as the user with the most
        has; rows past a user's are zero.
    """

    history_items: NDArray[np.int32]
    history_ages: NDArray[np.int32]
    long_categories: NDArray[np.int32]
    long_counts: NDArray[np.int32]
    long_ages: NDArray[np.int32]
    profile: NDArray[np.int32]
    interests: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.history_items)

    @staticmethod
    def stack(parts: Sequence[TowerInputs]) -> TowerInputs:
        """Lay several batches one after another."""
        most = max(part.interests.shape[1] for part in parts)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in INPUT_NAMES[:-1]}
        padded = [np.pad(part.interests, ((0, 0), (0, most - part.interests.shape[1]), (0, 0))) for part in parts]
        return TowerInputs(**columns, interests=np.concatenate(padded))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the tower is fed, by tensor name: embeddings as float16, which is half the bytes."""
        arrays = {name: getattr(self, name) for name in INPUT_NAMES}
        return {**arrays, "interests": self.interests.astype(np.float16)}


INPUT_NAMES = (
    "history_items", "history_ages", "long_categories", "long_counts", "long_ages", "profile", "interests",
)  # fmt: skip
"""Tensor names, in the order of TowerInputs' fields."""

OUTPUT_NAME = "user_vectors"
"""[B, 1 + k, d] float32: row 0 is the user alone (null interest, U2I), row k the user with interest k (I2I)."""

TOWER_MODEL_PREFIX = "user_tower_"
"""A training's Triton model is named by this and its fingerprint."""

ONNX_FINGERPRINT = "serendipity.fingerprint"
"""Key, in the metadata of a tower's ONNX file, of the fingerprint of the exported program from the same training."""

_MAX_AGE = np.iinfo(np.int32).max


@dataclass(frozen=True)
class FeatureAssembler:
    """Lays one user's history and profile out as tower inputs.

    history_length: L; max_long_categories: C; max_interests: K; interest_dim: D;
    profile_fields: name → {value → number}, in the order the tower is fed.
    """

    history_length: int
    max_long_categories: int
    max_interests: int
    interest_dim: int
    profile_fields: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def profile_width(self) -> int:
        """P: one column per profile field, and one column of zeros where there are none (Triton has no dimension 0)."""
        return max(1, len(self.profile_fields))

    @classmethod
    def from_spec(cls, spec: records_pb2.TowerSpec) -> FeatureAssembler:
        """Build from the manifest's tower spec."""
        return cls(
            history_length=spec.history_length,
            max_long_categories=spec.max_long_categories,
            max_interests=spec.max_interests,
            interest_dim=spec.interest_dim,
            profile_fields={f.name: {value: i + 1 for i, value in enumerate(f.values)} for f in spec.profile_fields},
        )

    def encode_profile(self, attributes: Mapping[str, str]) -> NDArray[np.int32]:
        """Turn attribute values into value numbers, [P]; unknown names are ignored, unknown values are 0."""
        profile = np.zeros(self.profile_width, np.int32)
        for column, (name, values) in enumerate(self.profile_fields.items()):
            profile[column] = values.get(attributes.get(name, ""), 0)
        return profile

    def assemble(
        self,
        clicks: Clicks,
        long_history: LongHistory,
        profile: NDArray[np.int32],
        interests: NDArray[np.float32],
        now: int,
    ) -> TowerInputs:
        """Lay one user out as a batch of one.

        clicks and long_history hold only events before `now` (Unix seconds); profile: [P] value numbers, fewer
        where the last fields are unknown; interests: [k, D], cut at K.
        """
        inputs = TowerInputs(
            history_items=np.zeros((1, self.history_length), np.int32),
            history_ages=np.zeros((1, self.history_length), np.int32),
            long_categories=np.zeros((1, self.max_long_categories), np.int32),
            long_counts=np.zeros((1, self.max_long_categories), np.int32),
            long_ages=np.zeros((1, self.max_long_categories), np.int32),
            profile=np.zeros((1, self.profile_width), np.int32),
            # One row at least: Triton has no dimension 0.
            interests=np.zeros((1, min(max(1, len(interests)), self.max_interests), self.interest_dim), np.float32),
        )
        n = min(len(clicks), self.history_length)
        inputs.history_items[0, :n] = clicks.items[:n]
        inputs.history_ages[0, :n] = _ages(clicks.times[:n], now)
        inputs.profile[0, : len(profile)] = profile
        n = min(len(long_history.categories), self.max_long_categories)
        inputs.long_categories[0, :n] = long_history.categories[:n]
        inputs.long_counts[0, :n] = long_history.counts[:n]
        inputs.long_ages[0, :n] = _ages(long_history.last_times[:n], now)
        n = min(len(interests), self.max_interests)
        inputs.interests[0, :n] = interests[:n]
        return inputs


def canary(spec: records_pb2.TowerSpec) -> TowerInputs:
    """A user without history, with one interest: what a tower that works can answer."""
    assembler, one_interest = FeatureAssembler.from_spec(spec), np.zeros((1, spec.interest_dim), np.float32)
    return assembler.assemble(Clicks.empty(), LongHistory.empty(), assembler.encode_profile({}), one_interest, now=0)


def tower_fingerprint(program: Path) -> str:
    """Name a training: the first 16 hex digits of the SHA-256 of its exported program (user_tower.pt2)."""
    return layout.sha256(program)[:16]


def with_clicks(long_history: LongHistory, later: Clicks) -> LongHistory:
    """Lay later clicks (feedback, request events) over the long history of the snapshot."""
    if not len(later):
        return long_history
    known = {int(c): i for i, c in enumerate(long_history.categories)}
    counts = long_history.counts.astype(np.int64).tolist()
    times = long_history.last_times.tolist()
    categories = long_history.categories.tolist()
    for category, time in zip(later.categories.tolist(), later.times.tolist(), strict=True):
        if category == 0:
            continue
        if category in known:
            counts[known[category]] += 1
            times[known[category]] = max(times[known[category]], time)
        else:
            known[category] = len(categories)
            categories.append(category)
            counts.append(1)
            times.append(time)
    order = np.lexsort((np.array(categories), -np.array(times), -np.array(counts)))
    return LongHistory(
        np.array(categories, np.int32)[order],
        np.array(counts, np.int32)[order],
        np.array(times, np.int64)[order],
    )


def _ages(times: NDArray[np.int64], now: int) -> NDArray[np.int32]:
    return np.clip(now - times, 0, _MAX_AGE).astype(np.int32)
