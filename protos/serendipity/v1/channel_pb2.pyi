import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NoveltyPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOVELTY_POLICY_UNSPECIFIED: _ClassVar[NoveltyPolicy]
    NOVELTY_POLICY_STRICT: _ClassVar[NoveltyPolicy]
    NOVELTY_POLICY_SOFT: _ClassVar[NoveltyPolicy]
    NOVELTY_POLICY_OFF: _ClassVar[NoveltyPolicy]

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_EXPOSURE: _ClassVar[EventType]
    EVENT_TYPE_CLICK: _ClassVar[EventType]
    EVENT_TYPE_ORDER: _ClassVar[EventType]
    EVENT_TYPE_VIEW: _ClassVar[EventType]
    EVENT_TYPE_FAVOURITE: _ClassVar[EventType]
    EVENT_TYPE_SEARCH: _ClassVar[EventType]
    EVENT_TYPE_NOT_INTERESTED: _ClassVar[EventType]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_INTEREST: _ClassVar[Source]
    SOURCE_COLLABORATIVE: _ClassVar[Source]
    SOURCE_GROUP: _ClassVar[Source]
    SOURCE_GRAPH: _ClassVar[Source]

class SourceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_STATE_UNSPECIFIED: _ClassVar[SourceState]
    SOURCE_STATE_OK: _ClassVar[SourceState]
    SOURCE_STATE_EMPTY: _ClassVar[SourceState]
    SOURCE_STATE_STALE: _ClassVar[SourceState]
    SOURCE_STATE_TIMEOUT: _ClassVar[SourceState]
    SOURCE_STATE_UNAVAILABLE: _ClassVar[SourceState]

class NovelCategoryKey(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOVEL_CATEGORY_KEY_UNSPECIFIED: _ClassVar[NovelCategoryKey]
    NOVEL_CATEGORY_KEY_NONE: _ClassVar[NovelCategoryKey]
    NOVEL_CATEGORY_KEY_M3: _ClassVar[NovelCategoryKey]
    NOVEL_CATEGORY_KEY_M2: _ClassVar[NovelCategoryKey]
    NOVEL_CATEGORY_KEY_M1: _ClassVar[NovelCategoryKey]
    NOVEL_CATEGORY_KEY_M0: _ClassVar[NovelCategoryKey]
    NOVEL_CATEGORY_KEY_DEFAULT: _ClassVar[NovelCategoryKey]

class WarningCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WARNING_CODE_UNSPECIFIED: _ClassVar[WarningCode]
    WARNING_CODE_UNKNOWN_CATEGORY: _ClassVar[WarningCode]
    WARNING_CODE_UNKNOWN_ITEM: _ClassVar[WarningCode]
    WARNING_CODE_DUPLICATES_MERGED: _ClassVar[WarningCode]
    WARNING_CODE_EVENTS_TRUNCATED: _ClassVar[WarningCode]
    WARNING_CODE_EVENT_IGNORED: _ClassVar[WarningCode]
    WARNING_CODE_UNKNOWN_PROFILE_VALUE: _ClassVar[WarningCode]
    WARNING_CODE_COLD_USER: _ClassVar[WarningCode]
    WARNING_CODE_NOT_OWNER: _ClassVar[WarningCode]
    WARNING_CODE_CLOCK_SKEW: _ClassVar[WarningCode]
    WARNING_CODE_TIME_CORRECTED: _ClassVar[WarningCode]

class ShortfallCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHORTFALL_CAUSE_UNSPECIFIED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_CATEGORIES_CLICKED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_CATEGORIES_NOT_LISTED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_CATEGORIES_DISMISSED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_NOTHING_AVAILABLE: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_FILTERED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_QUOTAS: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_FEW_ITEMS: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_SWITCHED_OFF: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_NO_INTERESTS: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_INTERESTS_TOO_OLD: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_INTERESTS_FOREIGN: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_INTERESTS_EXHAUSTED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_NO_LIST: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_LISTS_EXHAUSTED: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_UNREADABLE: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_NO_GRAPH: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_NOT_IN_GRAPH: _ClassVar[ShortfallCause]
    SHORTFALL_CAUSE_NOT_EXPLORED: _ClassVar[ShortfallCause]

class ReasonKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_KIND_UNSPECIFIED: _ClassVar[ReasonKind]
    REASON_KIND_SEARCH: _ClassVar[ReasonKind]
    REASON_KIND_CATEGORY: _ClassVar[ReasonKind]
    REASON_KIND_PROFILE: _ClassVar[ReasonKind]
    REASON_KIND_POPULATION: _ClassVar[ReasonKind]
    REASON_KIND_TASTE: _ClassVar[ReasonKind]
    REASON_KIND_GROUP: _ClassVar[ReasonKind]
    REASON_KIND_UNKNOWN: _ClassVar[ReasonKind]
    REASON_KIND_ITEM: _ClassVar[ReasonKind]
    REASON_KIND_INTEREST: _ClassVar[ReasonKind]

class ReasonRelation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_RELATION_UNSPECIFIED: _ClassVar[ReasonRelation]
    REASON_RELATION_BEHIND: _ClassVar[ReasonRelation]
    REASON_RELATION_LEADS_TO: _ClassVar[ReasonRelation]
    REASON_RELATION_THROUGH_DEMAND: _ClassVar[ReasonRelation]
    REASON_RELATION_CHOOSE: _ClassVar[ReasonRelation]
    REASON_RELATION_RETURN: _ClassVar[ReasonRelation]
    REASON_RELATION_NEAR: _ClassVar[ReasonRelation]
    REASON_RELATION_NEXT: _ClassVar[ReasonRelation]
    REASON_RELATION_CURIOUS: _ClassVar[ReasonRelation]
    REASON_RELATION_LINKED: _ClassVar[ReasonRelation]
NOVELTY_POLICY_UNSPECIFIED: NoveltyPolicy
NOVELTY_POLICY_STRICT: NoveltyPolicy
NOVELTY_POLICY_SOFT: NoveltyPolicy
NOVELTY_POLICY_OFF: NoveltyPolicy
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_EXPOSURE: EventType
EVENT_TYPE_CLICK: EventType
EVENT_TYPE_ORDER: EventType
EVENT_TYPE_VIEW: EventType
EVENT_TYPE_FAVOURITE: EventType
EVENT_TYPE_SEARCH: EventType
EVENT_TYPE_NOT_INTERESTED: EventType
SOURCE_UNSPECIFIED: Source
SOURCE_INTEREST: Source
SOURCE_COLLABORATIVE: Source
SOURCE_GROUP: Source
SOURCE_GRAPH: Source
SOURCE_STATE_UNSPECIFIED: SourceState
SOURCE_STATE_OK: SourceState
SOURCE_STATE_EMPTY: SourceState
SOURCE_STATE_STALE: SourceState
SOURCE_STATE_TIMEOUT: SourceState
SOURCE_STATE_UNAVAILABLE: SourceState
NOVEL_CATEGORY_KEY_UNSPECIFIED: NovelCategoryKey
NOVEL_CATEGORY_KEY_NONE: NovelCategoryKey
NOVEL_CATEGORY_KEY_M3: NovelCategoryKey
NOVEL_CATEGORY_KEY_M2: NovelCategoryKey
NOVEL_CATEGORY_KEY_M1: NovelCategoryKey
NOVEL_CATEGORY_KEY_M0: NovelCategoryKey
NOVEL_CATEGORY_KEY_DEFAULT: NovelCategoryKey
WARNING_CODE_UNSPECIFIED: WarningCode
WARNING_CODE_UNKNOWN_CATEGORY: WarningCode
WARNING_CODE_UNKNOWN_ITEM: WarningCode
WARNING_CODE_DUPLICATES_MERGED: WarningCode
WARNING_CODE_EVENTS_TRUNCATED: WarningCode
WARNING_CODE_EVENT_IGNORED: WarningCode
WARNING_CODE_UNKNOWN_PROFILE_VALUE: WarningCode
WARNING_CODE_COLD_USER: WarningCode
WARNING_CODE_NOT_OWNER: WarningCode
WARNING_CODE_CLOCK_SKEW: WarningCode
WARNING_CODE_TIME_CORRECTED: WarningCode
SHORTFALL_CAUSE_UNSPECIFIED: ShortfallCause
SHORTFALL_CAUSE_CATEGORIES_CLICKED: ShortfallCause
SHORTFALL_CAUSE_CATEGORIES_NOT_LISTED: ShortfallCause
SHORTFALL_CAUSE_CATEGORIES_DISMISSED: ShortfallCause
SHORTFALL_CAUSE_NOTHING_AVAILABLE: ShortfallCause
SHORTFALL_CAUSE_FILTERED: ShortfallCause
SHORTFALL_CAUSE_QUOTAS: ShortfallCause
SHORTFALL_CAUSE_FEW_ITEMS: ShortfallCause
SHORTFALL_CAUSE_SWITCHED_OFF: ShortfallCause
SHORTFALL_CAUSE_NO_INTERESTS: ShortfallCause
SHORTFALL_CAUSE_INTERESTS_TOO_OLD: ShortfallCause
SHORTFALL_CAUSE_INTERESTS_FOREIGN: ShortfallCause
SHORTFALL_CAUSE_INTERESTS_EXHAUSTED: ShortfallCause
SHORTFALL_CAUSE_NO_LIST: ShortfallCause
SHORTFALL_CAUSE_LISTS_EXHAUSTED: ShortfallCause
SHORTFALL_CAUSE_UNREADABLE: ShortfallCause
SHORTFALL_CAUSE_NO_GRAPH: ShortfallCause
SHORTFALL_CAUSE_NOT_IN_GRAPH: ShortfallCause
SHORTFALL_CAUSE_NOT_EXPLORED: ShortfallCause
REASON_KIND_UNSPECIFIED: ReasonKind
REASON_KIND_SEARCH: ReasonKind
REASON_KIND_CATEGORY: ReasonKind
REASON_KIND_PROFILE: ReasonKind
REASON_KIND_POPULATION: ReasonKind
REASON_KIND_TASTE: ReasonKind
REASON_KIND_GROUP: ReasonKind
REASON_KIND_UNKNOWN: ReasonKind
REASON_KIND_ITEM: ReasonKind
REASON_KIND_INTEREST: ReasonKind
REASON_RELATION_UNSPECIFIED: ReasonRelation
REASON_RELATION_BEHIND: ReasonRelation
REASON_RELATION_LEADS_TO: ReasonRelation
REASON_RELATION_THROUGH_DEMAND: ReasonRelation
REASON_RELATION_CHOOSE: ReasonRelation
REASON_RELATION_RETURN: ReasonRelation
REASON_RELATION_NEAR: ReasonRelation
REASON_RELATION_NEXT: ReasonRelation
REASON_RELATION_CURIOUS: ReasonRelation
REASON_RELATION_LINKED: ReasonRelation

class Event(_message.Message):
    __slots__ = ("item_id", "type", "time", "query")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    type: EventType
    time: _timestamp_pb2.Timestamp
    query: str
    def __init__(self, item_id: _Optional[str] = ..., type: _Optional[_Union[EventType, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., query: _Optional[str] = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("user_id", "recent_events", "profile", "count", "exclude_item_ids", "allow_categories", "deny_categories", "novelty_policy", "source_quotas", "experiment_tag", "explain", "allow_repeats", "surprise", "shadow")
    class ProfileEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    RECENT_EVENTS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    DENY_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_POLICY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_QUOTAS_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_TAG_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_REPEATS_FIELD_NUMBER: _ClassVar[int]
    SURPRISE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    recent_events: _containers.RepeatedCompositeFieldContainer[Event]
    profile: _containers.ScalarMap[str, str]
    count: int
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    allow_categories: _containers.RepeatedScalarFieldContainer[str]
    deny_categories: _containers.RepeatedScalarFieldContainer[str]
    novelty_policy: NoveltyPolicy
    source_quotas: _containers.RepeatedCompositeFieldContainer[SourceQuota]
    experiment_tag: str
    explain: bool
    allow_repeats: bool
    surprise: float
    shadow: bool
    def __init__(self, user_id: _Optional[str] = ..., recent_events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., profile: _Optional[_Mapping[str, str]] = ..., count: _Optional[int] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., allow_categories: _Optional[_Iterable[str]] = ..., deny_categories: _Optional[_Iterable[str]] = ..., novelty_policy: _Optional[_Union[NoveltyPolicy, str]] = ..., source_quotas: _Optional[_Iterable[_Union[SourceQuota, _Mapping]]] = ..., experiment_tag: _Optional[str] = ..., explain: _Optional[bool] = ..., allow_repeats: _Optional[bool] = ..., surprise: _Optional[float] = ..., shadow: _Optional[bool] = ...) -> None: ...

class SourceQuota(_message.Message):
    __slots__ = ("source", "min_count", "max_count")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    source: Source
    min_count: int
    max_count: int
    def __init__(self, source: _Optional[_Union[Source, str]] = ..., min_count: _Optional[int] = ..., max_count: _Optional[int] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ("recall_id", "item_ids", "scores", "sources", "relevance", "unexpectedness", "reason_indexes", "category_indexes", "categories", "reasons", "all_reason_indexes", "all_reason_offsets", "rank_features", "warnings", "source_statuses", "filter_counts", "degraded", "degraded_reasons", "versions", "timings", "titles", "shortfalls")
    RECALL_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    UNEXPECTEDNESS_FIELD_NUMBER: _ClassVar[int]
    REASON_INDEXES_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_INDEXES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    ALL_REASON_INDEXES_FIELD_NUMBER: _ClassVar[int]
    ALL_REASON_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    RANK_FEATURES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_STATUSES_FIELD_NUMBER: _ClassVar[int]
    FILTER_COUNTS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TITLES_FIELD_NUMBER: _ClassVar[int]
    SHORTFALLS_FIELD_NUMBER: _ClassVar[int]
    recall_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    sources: _containers.RepeatedScalarFieldContainer[Source]
    relevance: _containers.RepeatedScalarFieldContainer[float]
    unexpectedness: _containers.RepeatedScalarFieldContainer[float]
    reason_indexes: _containers.RepeatedScalarFieldContainer[int]
    category_indexes: _containers.RepeatedScalarFieldContainer[int]
    categories: _containers.RepeatedScalarFieldContainer[str]
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    all_reason_indexes: _containers.RepeatedScalarFieldContainer[int]
    all_reason_offsets: _containers.RepeatedScalarFieldContainer[int]
    rank_features: FeatureMatrix
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    source_statuses: _containers.RepeatedCompositeFieldContainer[SourceStatus]
    filter_counts: _containers.RepeatedCompositeFieldContainer[FilterCount]
    degraded: bool
    degraded_reasons: _containers.RepeatedScalarFieldContainer[str]
    versions: Versions
    timings: Timings
    titles: _containers.RepeatedScalarFieldContainer[str]
    shortfalls: _containers.RepeatedCompositeFieldContainer[Shortfall]
    def __init__(self, recall_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., sources: _Optional[_Iterable[_Union[Source, str]]] = ..., relevance: _Optional[_Iterable[float]] = ..., unexpectedness: _Optional[_Iterable[float]] = ..., reason_indexes: _Optional[_Iterable[int]] = ..., category_indexes: _Optional[_Iterable[int]] = ..., categories: _Optional[_Iterable[str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., all_reason_indexes: _Optional[_Iterable[int]] = ..., all_reason_offsets: _Optional[_Iterable[int]] = ..., rank_features: _Optional[_Union[FeatureMatrix, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., source_statuses: _Optional[_Iterable[_Union[SourceStatus, _Mapping]]] = ..., filter_counts: _Optional[_Iterable[_Union[FilterCount, _Mapping]]] = ..., degraded: _Optional[bool] = ..., degraded_reasons: _Optional[_Iterable[str]] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., titles: _Optional[_Iterable[str]] = ..., shortfalls: _Optional[_Iterable[_Union[Shortfall, _Mapping]]] = ...) -> None: ...

class Shortfall(_message.Message):
    __slots__ = ("cause", "message")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    cause: ShortfallCause
    message: str
    def __init__(self, cause: _Optional[_Union[ShortfallCause, str]] = ..., message: _Optional[str] = ...) -> None: ...

class FeatureMatrix(_message.Message):
    __slots__ = ("names", "num_rows", "values")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    num_rows: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., num_rows: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("source", "seed", "core_demand", "latent_interest", "text", "weight", "kind", "relation", "recent_categories")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CORE_DEMAND_FIELD_NUMBER: _ClassVar[int]
    LATENT_INTEREST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    RECENT_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    source: Source
    seed: str
    core_demand: str
    latent_interest: str
    text: str
    weight: float
    kind: ReasonKind
    relation: ReasonRelation
    recent_categories: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, source: _Optional[_Union[Source, str]] = ..., seed: _Optional[str] = ..., core_demand: _Optional[str] = ..., latent_interest: _Optional[str] = ..., text: _Optional[str] = ..., weight: _Optional[float] = ..., kind: _Optional[_Union[ReasonKind, str]] = ..., relation: _Optional[_Union[ReasonRelation, str]] = ..., recent_categories: _Optional[_Iterable[str]] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("code", "field", "message", "count")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    code: WarningCode
    field: str
    message: str
    count: int
    def __init__(self, code: _Optional[_Union[WarningCode, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class SourceStatus(_message.Message):
    __slots__ = ("source", "state", "requested", "found", "returned", "elapsed", "novel_category_key", "shortfall_cause", "propensity")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    NOVEL_CATEGORY_KEY_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_CAUSE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    source: Source
    state: SourceState
    requested: int
    found: int
    returned: int
    elapsed: _duration_pb2.Duration
    novel_category_key: NovelCategoryKey
    shortfall_cause: ShortfallCause
    propensity: float
    def __init__(self, source: _Optional[_Union[Source, str]] = ..., state: _Optional[_Union[SourceState, str]] = ..., requested: _Optional[int] = ..., found: _Optional[int] = ..., returned: _Optional[int] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., novel_category_key: _Optional[_Union[NovelCategoryKey, str]] = ..., shortfall_cause: _Optional[_Union[ShortfallCause, str]] = ..., propensity: _Optional[float] = ...) -> None: ...

class FilterCount(_message.Message):
    __slots__ = ("filter", "kept", "removed")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    filter: str
    kept: int
    removed: int
    def __init__(self, filter: _Optional[str] = ..., kept: _Optional[int] = ..., removed: _Optional[int] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("snapshot", "user_tower", "merge", "events_until", "group_model_id", "generation")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    USER_TOWER_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_UNTIL_FIELD_NUMBER: _ClassVar[int]
    GROUP_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    user_tower: str
    merge: str
    events_until: _timestamp_pb2.Timestamp
    group_model_id: str
    generation: int
    def __init__(self, snapshot: _Optional[str] = ..., user_tower: _Optional[str] = ..., merge: _Optional[str] = ..., events_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., group_model_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("total", "hydrate", "user_tower", "sources", "rank")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    HYDRATE_FIELD_NUMBER: _ClassVar[int]
    USER_TOWER_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    total: _duration_pb2.Duration
    hydrate: _duration_pb2.Duration
    user_tower: _duration_pb2.Duration
    sources: _duration_pb2.Duration
    rank: _duration_pb2.Duration
    def __init__(self, total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hydrate: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., user_tower: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sources: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., rank: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RecallBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecallRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecallRequest, _Mapping]]] = ...) -> None: ...

class RecallBatchResponse(_message.Message):
    __slots__ = ("responses", "statuses")
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[RecallResponse]
    statuses: _containers.RepeatedCompositeFieldContainer[RecallStatus]
    def __init__(self, responses: _Optional[_Iterable[_Union[RecallResponse, _Mapping]]] = ..., statuses: _Optional[_Iterable[_Union[RecallStatus, _Mapping]]] = ...) -> None: ...

class RecallStatus(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class FeedbackEvent(_message.Message):
    __slots__ = ("event_id", "user_id", "recall_id", "item_id", "type", "time", "query")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    RECALL_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user_id: str
    recall_id: str
    item_id: str
    type: EventType
    time: _timestamp_pb2.Timestamp
    query: str
    def __init__(self, event_id: _Optional[str] = ..., user_id: _Optional[str] = ..., recall_id: _Optional[str] = ..., item_id: _Optional[str] = ..., type: _Optional[_Union[EventType, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., query: _Optional[str] = ...) -> None: ...

class RecordFeedbackRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[FeedbackEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[FeedbackEvent, _Mapping]]] = ...) -> None: ...

class RecordFeedbackResponse(_message.Message):
    __slots__ = ("accepted", "duplicates", "rejected", "warnings")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    duplicates: int
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedEvent]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    def __init__(self, accepted: _Optional[int] = ..., duplicates: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[RejectedEvent, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ...) -> None: ...

class RejectedEvent(_message.Message):
    __slots__ = ("index", "event_id", "reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    event_id: str
    reason: str
    def __init__(self, index: _Optional[int] = ..., event_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ItemAvailability(_message.Message):
    __slots__ = ("item_id", "available")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    available: bool
    def __init__(self, item_id: _Optional[str] = ..., available: _Optional[bool] = ...) -> None: ...

class UpdateItemsRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ItemAvailability]
    def __init__(self, items: _Optional[_Iterable[_Union[ItemAvailability, _Mapping]]] = ...) -> None: ...

class UpdateItemsResponse(_message.Message):
    __slots__ = ("updated", "unknown_item_ids", "unknown_count")
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_COUNT_FIELD_NUMBER: _ClassVar[int]
    updated: int
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    unknown_count: int
    def __init__(self, updated: _Optional[int] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., unknown_count: _Optional[int] = ...) -> None: ...

class ListCategoriesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCategoriesResponse(_message.Message):
    __slots__ = ("categories", "snapshot")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    snapshot: str
    def __init__(self, categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ..., snapshot: _Optional[str] = ...) -> None: ...

class Category(_message.Message):
    __slots__ = ("name", "number", "num_items", "num_available")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NUM_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    number: int
    num_items: int
    num_available: int
    def __init__(self, name: _Optional[str] = ..., number: _Optional[int] = ..., num_items: _Optional[int] = ..., num_available: _Optional[int] = ...) -> None: ...
