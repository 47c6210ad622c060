"""An answer as columns, before it becomes a message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.query import QueryWarning, Source
from serendipity.v1 import channel_pb2


class SourceState(IntEnum):
    """How a source fared; see SourceState in channel.proto."""

    OK = channel_pb2.SOURCE_STATE_OK
    EMPTY = channel_pb2.SOURCE_STATE_EMPTY
    STALE = channel_pb2.SOURCE_STATE_STALE
    TIMEOUT = channel_pb2.SOURCE_STATE_TIMEOUT
    UNAVAILABLE = channel_pb2.SOURCE_STATE_UNAVAILABLE


class NovelCategoryKey(IntEnum):
    """Which novel-category list the group source answered from; see NovelCategoryKey in channel.proto."""

    UNSPECIFIED = channel_pb2.NOVEL_CATEGORY_KEY_UNSPECIFIED
    NONE = channel_pb2.NOVEL_CATEGORY_KEY_NONE
    M3 = channel_pb2.NOVEL_CATEGORY_KEY_M3
    M2 = channel_pb2.NOVEL_CATEGORY_KEY_M2
    M1 = channel_pb2.NOVEL_CATEGORY_KEY_M1
    M0 = channel_pb2.NOVEL_CATEGORY_KEY_M0
    DEFAULT = channel_pb2.NOVEL_CATEGORY_KEY_DEFAULT


@dataclass(frozen=True)
class SourceOutcome:
    """How one source fared. requested, found, returned: candidates; elapsed: seconds."""

    source: Source
    state: SourceState
    requested: int
    found: int
    returned: int
    elapsed: float


@dataclass(frozen=True)
class FilterOutcome:
    """What one filter did. name: novelty, excluded, category, availability or served; kept, removed: candidates."""

    name: str
    kept: int
    removed: int


@dataclass(frozen=True)
class Reason:
    """Why an item was found; see Reason in channel.proto. weight: 0 to 1."""

    source: Source
    seed: str
    core_demand: str
    latent_interest: str
    text: str
    weight: float


@dataclass(frozen=True)
class Versions:
    """What produced an answer.

    user_tower: model called, or the fallback's name; events_until: Unix seconds; group_model_id: empty without a group
    model; generation: cycle of the collaborative optimisation.
    """

    snapshot: str
    user_tower: str
    calibration: str
    events_until: int
    group_model_id: str = ""
    generation: int = 0


@dataclass(frozen=True)
class StageTimes:
    """Where the time of a request went, seconds."""

    total: float = 0.0
    hydrate: float = 0.0
    user_tower: float = 0.0
    sources: float = 0.0
    rank: float = 0.0


@dataclass(frozen=True)
class Recalled:
    """Candidates of one answer, best first; element i of every column is candidate i.

    item_ids: n ids; scores: [n] float32 probabilities; sources: [n] int8, numbers of Source;
    relevance: [n] float32, raw scores of the sources; unexpectedness: [n] float32, 0 to 1;
    category_indexes: [n] int32 into `categories`, the names that occur;
    reasons: each once; reason_indexes: [n] int32 into them, the reason of the source in `sources`;
    all_reason_indexes, all_reason_offsets: compressed rows, [n + 1] offsets;
    features: [n, len(feature_names)] float32; titles: n titles, none where the query asks for no explanation;
    interests_age: seconds since the interests searched by were generated, None without any; interests_origin,
    interests_freshness: names of Origin and Freshness in lower case; novel_category_key: of the list the group source
    answered from; forgotten: the user is on the erasure list, and the answer is not to be kept under the user's id.
    """

    recall_id: str
    item_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    sources: NDArray[np.int8]
    relevance: NDArray[np.float32]
    unexpectedness: NDArray[np.float32]
    category_indexes: NDArray[np.int32]
    categories: tuple[str, ...]
    reasons: tuple[Reason, ...]
    reason_indexes: NDArray[np.int32]
    all_reason_indexes: NDArray[np.int32]
    all_reason_offsets: NDArray[np.int32]
    feature_names: tuple[str, ...]
    features: NDArray[np.float32]
    warnings: tuple[QueryWarning, ...]
    source_outcomes: tuple[SourceOutcome, ...]
    filter_outcomes: tuple[FilterOutcome, ...]
    degraded_reasons: tuple[str, ...]
    versions: Versions
    times: StageTimes
    titles: tuple[str, ...] = ()
    interests_age: float | None = None
    interests_origin: str = ""
    interests_freshness: str = ""
    novel_category_key: NovelCategoryKey = NovelCategoryKey.UNSPECIFIED
    forgotten: bool = False

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def degraded(self) -> bool:
        """True if any part was down, slow or replaced by a fallback."""
        return bool(self.degraded_reasons)
