import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from serendipity.v1 import channel_pb2 as _channel_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SeedKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_KIND_UNSPECIFIED: _ClassVar[SeedKind]
    SEED_KIND_SEARCH: _ClassVar[SeedKind]
    SEED_KIND_CATEGORY: _ClassVar[SeedKind]
    SEED_KIND_PROFILE: _ClassVar[SeedKind]
    SEED_KIND_POPULATION: _ClassVar[SeedKind]
    SEED_KIND_PAST: _ClassVar[SeedKind]

class Relation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELATION_UNSPECIFIED: _ClassVar[Relation]
    RELATION_HYPONYM: _ClassVar[Relation]
    RELATION_CO_HYPONYM: _ClassVar[Relation]

class NodeOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_ORIGIN_UNSPECIFIED: _ClassVar[NodeOrigin]
    NODE_ORIGIN_CATALOGUE: _ClassVar[NodeOrigin]
    NODE_ORIGIN_REASONER: _ClassVar[NodeOrigin]

class RefreshCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFRESH_CAUSE_UNSPECIFIED: _ClassVar[RefreshCause]
    REFRESH_CAUSE_MISSING: _ClassVar[RefreshCause]
    REFRESH_CAUSE_TOO_OLD: _ClassVar[RefreshCause]
    REFRESH_CAUSE_STALE: _ClassVar[RefreshCause]
    REFRESH_CAUSE_FOREIGN: _ClassVar[RefreshCause]
SEED_KIND_UNSPECIFIED: SeedKind
SEED_KIND_SEARCH: SeedKind
SEED_KIND_CATEGORY: SeedKind
SEED_KIND_PROFILE: SeedKind
SEED_KIND_POPULATION: SeedKind
SEED_KIND_PAST: SeedKind
RELATION_UNSPECIFIED: Relation
RELATION_HYPONYM: Relation
RELATION_CO_HYPONYM: Relation
NODE_ORIGIN_UNSPECIFIED: NodeOrigin
NODE_ORIGIN_CATALOGUE: NodeOrigin
NODE_ORIGIN_REASONER: NodeOrigin
REFRESH_CAUSE_UNSPECIFIED: RefreshCause
REFRESH_CAUSE_MISSING: RefreshCause
REFRESH_CAUSE_TOO_OLD: RefreshCause
REFRESH_CAUSE_STALE: RefreshCause
REFRESH_CAUSE_FOREIGN: RefreshCause

class UserRecord(_message.Message):
    __slots__ = ("click_items", "click_categories", "click_times", "profile", "user_vector", "long_categories", "long_counts", "long_last_times", "csid", "group_id", "held_interests")
    CLICK_ITEMS_FIELD_NUMBER: _ClassVar[int]
    CLICK_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    CLICK_TIMES_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    LONG_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    LONG_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LONG_LAST_TIMES_FIELD_NUMBER: _ClassVar[int]
    CSID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    HELD_INTERESTS_FIELD_NUMBER: _ClassVar[int]
    click_items: _containers.RepeatedScalarFieldContainer[int]
    click_categories: _containers.RepeatedScalarFieldContainer[int]
    click_times: _containers.RepeatedScalarFieldContainer[int]
    profile: _containers.RepeatedScalarFieldContainer[int]
    user_vector: bytes
    long_categories: _containers.RepeatedScalarFieldContainer[int]
    long_counts: _containers.RepeatedScalarFieldContainer[int]
    long_last_times: _containers.RepeatedScalarFieldContainer[int]
    csid: _containers.RepeatedScalarFieldContainer[int]
    group_id: int
    held_interests: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, click_items: _Optional[_Iterable[int]] = ..., click_categories: _Optional[_Iterable[int]] = ..., click_times: _Optional[_Iterable[int]] = ..., profile: _Optional[_Iterable[int]] = ..., user_vector: _Optional[bytes] = ..., long_categories: _Optional[_Iterable[int]] = ..., long_counts: _Optional[_Iterable[int]] = ..., long_last_times: _Optional[_Iterable[int]] = ..., csid: _Optional[_Iterable[int]] = ..., group_id: _Optional[int] = ..., held_interests: _Optional[_Iterable[int]] = ...) -> None: ...

class GroupRecord(_message.Message):
    __slots__ = ("group_id", "profile", "users", "categories")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    group_id: int
    profile: str
    users: int
    categories: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, group_id: _Optional[int] = ..., profile: _Optional[str] = ..., users: _Optional[int] = ..., categories: _Optional[_Iterable[int]] = ...) -> None: ...

class InterestsRecord(_message.Message):
    __slots__ = ("node_ids", "weights", "generated_at", "expires_at", "taxonomy_hash", "vocabulary_id")
    NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    TAXONOMY_HASH_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_ID_FIELD_NUMBER: _ClassVar[int]
    node_ids: _containers.RepeatedScalarFieldContainer[int]
    weights: _containers.RepeatedScalarFieldContainer[int]
    generated_at: int
    expires_at: int
    taxonomy_hash: int
    vocabulary_id: int
    def __init__(self, node_ids: _Optional[_Iterable[int]] = ..., weights: _Optional[_Iterable[int]] = ..., generated_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., taxonomy_hash: _Optional[int] = ..., vocabulary_id: _Optional[int] = ...) -> None: ...

class InterestPathsRecord(_message.Message):
    __slots__ = ("paths", "reasoner")
    PATHS_FIELD_NUMBER: _ClassVar[int]
    REASONER_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedCompositeFieldContainer[InterestPath]
    reasoner: str
    def __init__(self, paths: _Optional[_Iterable[_Union[InterestPath, _Mapping]]] = ..., reasoner: _Optional[str] = ...) -> None: ...

class InterestPath(_message.Message):
    __slots__ = ("seed_kind", "seed", "core_demand", "latent_interest", "relation", "score")
    SEED_KIND_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CORE_DEMAND_FIELD_NUMBER: _ClassVar[int]
    LATENT_INTEREST_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    seed_kind: SeedKind
    seed: str
    core_demand: str
    latent_interest: str
    relation: Relation
    score: float
    def __init__(self, seed_kind: _Optional[_Union[SeedKind, str]] = ..., seed: _Optional[str] = ..., core_demand: _Optional[str] = ..., latent_interest: _Optional[str] = ..., relation: _Optional[_Union[Relation, str]] = ..., score: _Optional[float] = ...) -> None: ...

class InterestNode(_message.Message):
    __slots__ = ("node_id", "name", "path", "starts", "ends", "aliases", "origin", "categories")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    name: str
    path: _containers.RepeatedScalarFieldContainer[str]
    starts: _containers.RepeatedScalarFieldContainer[int]
    ends: _containers.RepeatedScalarFieldContainer[int]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    origin: NodeOrigin
    categories: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, node_id: _Optional[int] = ..., name: _Optional[str] = ..., path: _Optional[_Iterable[str]] = ..., starts: _Optional[_Iterable[int]] = ..., ends: _Optional[_Iterable[int]] = ..., aliases: _Optional[_Iterable[str]] = ..., origin: _Optional[_Union[NodeOrigin, str]] = ..., categories: _Optional[_Iterable[int]] = ...) -> None: ...

class UserSignalsRecord(_message.Message):
    __slots__ = ("searches", "items", "item_times")
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEM_TIMES_FIELD_NUMBER: _ClassVar[int]
    searches: _containers.RepeatedCompositeFieldContainer[Search]
    items: _containers.RepeatedScalarFieldContainer[int]
    item_times: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, searches: _Optional[_Iterable[_Union[Search, _Mapping]]] = ..., items: _Optional[_Iterable[int]] = ..., item_times: _Optional[_Iterable[int]] = ...) -> None: ...

class Search(_message.Message):
    __slots__ = ("query", "time")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    query: str
    time: int
    def __init__(self, query: _Optional[str] = ..., time: _Optional[int] = ...) -> None: ...

class ItemRecord(_message.Message):
    __slots__ = ("row", "category", "title", "path", "brand", "available")
    ROW_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    row: int
    category: int
    title: str
    path: _containers.RepeatedScalarFieldContainer[str]
    brand: str
    available: bool
    def __init__(self, row: _Optional[int] = ..., category: _Optional[int] = ..., title: _Optional[str] = ..., path: _Optional[_Iterable[str]] = ..., brand: _Optional[str] = ..., available: _Optional[bool] = ...) -> None: ...

class NovelCategoriesRecord(_message.Message):
    __slots__ = ("categories", "scores", "generated_at", "group_model_id", "generation", "taxonomy_hash", "llms_hash")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    GENERATED_AT_FIELD_NUMBER: _ClassVar[int]
    GROUP_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAXONOMY_HASH_FIELD_NUMBER: _ClassVar[int]
    LLMS_HASH_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    generated_at: int
    group_model_id: str
    generation: int
    taxonomy_hash: int
    llms_hash: int
    def __init__(self, categories: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., generated_at: _Optional[int] = ..., group_model_id: _Optional[str] = ..., generation: _Optional[int] = ..., taxonomy_hash: _Optional[int] = ..., llms_hash: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("layout_version", "version", "created_at", "events_until", "dataset", "categories", "category_offsets", "novelty_level", "click_types", "counts", "vector_index", "tower", "checksums", "taxonomy_hash", "vocabulary_id", "quality", "build_configuration", "interest_gpt", "grounding_threshold", "groups", "coevolution", "graph", "merge")
    class ChecksumsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class QualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LAYOUT_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_UNTIL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    CLICK_TYPES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOWER_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    TAXONOMY_HASH_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_ID_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    BUILD_CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    INTEREST_GPT_FIELD_NUMBER: _ClassVar[int]
    GROUNDING_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    COEVOLUTION_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    layout_version: int
    version: str
    created_at: _timestamp_pb2.Timestamp
    events_until: _timestamp_pb2.Timestamp
    dataset: str
    categories: _containers.RepeatedScalarFieldContainer[str]
    category_offsets: _containers.RepeatedScalarFieldContainer[int]
    novelty_level: int
    click_types: _containers.RepeatedScalarFieldContainer[_channel_pb2.EventType]
    counts: Counts
    vector_index: VectorIndex
    tower: TowerSpec
    checksums: _containers.ScalarMap[str, str]
    taxonomy_hash: str
    vocabulary_id: str
    quality: _containers.ScalarMap[str, float]
    build_configuration: str
    interest_gpt: InterestGptSpec
    grounding_threshold: float
    groups: GroupSpec
    coevolution: CoevolutionSpec
    graph: GraphSpec
    merge: MergeSpec
    def __init__(self, layout_version: _Optional[int] = ..., version: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., events_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dataset: _Optional[str] = ..., categories: _Optional[_Iterable[str]] = ..., category_offsets: _Optional[_Iterable[int]] = ..., novelty_level: _Optional[int] = ..., click_types: _Optional[_Iterable[_Union[_channel_pb2.EventType, str]]] = ..., counts: _Optional[_Union[Counts, _Mapping]] = ..., vector_index: _Optional[_Union[VectorIndex, _Mapping]] = ..., tower: _Optional[_Union[TowerSpec, _Mapping]] = ..., checksums: _Optional[_Mapping[str, str]] = ..., taxonomy_hash: _Optional[str] = ..., vocabulary_id: _Optional[str] = ..., quality: _Optional[_Mapping[str, float]] = ..., build_configuration: _Optional[str] = ..., interest_gpt: _Optional[_Union[InterestGptSpec, _Mapping]] = ..., grounding_threshold: _Optional[float] = ..., groups: _Optional[_Union[GroupSpec, _Mapping]] = ..., coevolution: _Optional[_Union[CoevolutionSpec, _Mapping]] = ..., graph: _Optional[_Union[GraphSpec, _Mapping]] = ..., merge: _Optional[_Union[MergeSpec, _Mapping]] = ...) -> None: ...

class GraphSpec(_message.Message):
    __slots__ = ("vector_index", "interests")
    VECTOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    INTERESTS_FIELD_NUMBER: _ClassVar[int]
    vector_index: VectorIndex
    interests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, vector_index: _Optional[_Union[VectorIndex, _Mapping]] = ..., interests: _Optional[_Iterable[str]] = ...) -> None: ...

class GroupSpec(_message.Message):
    __slots__ = ("group_model_id", "sequence_length", "click_threshold", "counted", "min_clicks", "num_groups", "codebook_size", "num_quantizers", "profile_fields")
    GROUP_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CLICK_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    MIN_CLICKS_FIELD_NUMBER: _ClassVar[int]
    NUM_GROUPS_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_QUANTIZERS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELDS_FIELD_NUMBER: _ClassVar[int]
    group_model_id: str
    sequence_length: int
    click_threshold: int
    counted: str
    min_clicks: int
    num_groups: int
    codebook_size: int
    num_quantizers: int
    profile_fields: _containers.RepeatedCompositeFieldContainer[ProfileField]
    def __init__(self, group_model_id: _Optional[str] = ..., sequence_length: _Optional[int] = ..., click_threshold: _Optional[int] = ..., counted: _Optional[str] = ..., min_clicks: _Optional[int] = ..., num_groups: _Optional[int] = ..., codebook_size: _Optional[int] = ..., num_quantizers: _Optional[int] = ..., profile_fields: _Optional[_Iterable[_Union[ProfileField, _Mapping]]] = ...) -> None: ...

class CoevolutionSpec(_message.Message):
    __slots__ = ("novelty_model_name", "novelty_fingerprint", "relevance_model_name", "relevance_fingerprint", "base", "prompt_style", "group_model_id", "taxonomy_hash", "num_candidates", "threshold", "score_scale", "score_offset", "generation", "max_batch", "max_prompt_tokens")
    NOVELTY_MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_STYLE_FIELD_NUMBER: _ClassVar[int]
    GROUP_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TAXONOMY_HASH_FIELD_NUMBER: _ClassVar[int]
    NUM_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SCORE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SCORE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    novelty_model_name: str
    novelty_fingerprint: str
    relevance_model_name: str
    relevance_fingerprint: str
    base: str
    prompt_style: str
    group_model_id: str
    taxonomy_hash: str
    num_candidates: int
    threshold: float
    score_scale: float
    score_offset: float
    generation: int
    max_batch: int
    max_prompt_tokens: int
    def __init__(self, novelty_model_name: _Optional[str] = ..., novelty_fingerprint: _Optional[str] = ..., relevance_model_name: _Optional[str] = ..., relevance_fingerprint: _Optional[str] = ..., base: _Optional[str] = ..., prompt_style: _Optional[str] = ..., group_model_id: _Optional[str] = ..., taxonomy_hash: _Optional[str] = ..., num_candidates: _Optional[int] = ..., threshold: _Optional[float] = ..., score_scale: _Optional[float] = ..., score_offset: _Optional[float] = ..., generation: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_prompt_tokens: _Optional[int] = ...) -> None: ...

class InterestGptSpec(_message.Message):
    __slots__ = ("model_name", "fingerprint", "base", "prompt_style", "num_interests", "max_new_tokens", "max_prompt_tokens", "taxonomy_hash", "max_batch", "facts", "writes", "num_candidates", "likelihood_weight", "report")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_STYLE_FIELD_NUMBER: _ClassVar[int]
    NUM_INTERESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TAXONOMY_HASH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    NUM_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    LIKELIHOOD_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    fingerprint: str
    base: str
    prompt_style: str
    num_interests: int
    max_new_tokens: int
    max_prompt_tokens: int
    taxonomy_hash: str
    max_batch: int
    facts: FactsSpec
    writes: bool
    num_candidates: int
    likelihood_weight: float
    report: LikelihoodReport
    def __init__(self, model_name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., base: _Optional[str] = ..., prompt_style: _Optional[str] = ..., num_interests: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., max_prompt_tokens: _Optional[int] = ..., taxonomy_hash: _Optional[str] = ..., max_batch: _Optional[int] = ..., facts: _Optional[_Union[FactsSpec, _Mapping]] = ..., writes: _Optional[bool] = ..., num_candidates: _Optional[int] = ..., likelihood_weight: _Optional[float] = ..., report: _Optional[_Union[LikelihoodReport, _Mapping]] = ...) -> None: ...

class LikelihoodReport(_message.Message):
    __slots__ = ("best_weight", "floor", "users", "reasoner", "likelihood", "mix", "popularity", "margin")
    BEST_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    REASONER_FIELD_NUMBER: _ClassVar[int]
    LIKELIHOOD_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    best_weight: float
    floor: float
    users: int
    reasoner: float
    likelihood: float
    mix: float
    popularity: float
    margin: float
    def __init__(self, best_weight: _Optional[float] = ..., floor: _Optional[float] = ..., users: _Optional[int] = ..., reasoner: _Optional[float] = ..., likelihood: _Optional[float] = ..., mix: _Optional[float] = ..., popularity: _Optional[float] = ..., margin: _Optional[float] = ...) -> None: ...

class FactsSpec(_message.Message):
    __slots__ = ("search_days", "clicked_titles", "signal_titles")
    SEARCH_DAYS_FIELD_NUMBER: _ClassVar[int]
    CLICKED_TITLES_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_TITLES_FIELD_NUMBER: _ClassVar[int]
    search_days: float
    clicked_titles: str
    signal_titles: bool
    def __init__(self, search_days: _Optional[float] = ..., clicked_titles: _Optional[str] = ..., signal_titles: _Optional[bool] = ...) -> None: ...

class Counts(_message.Message):
    __slots__ = ("items", "users", "interest_nodes", "users_with_interests")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    INTEREST_NODES_FIELD_NUMBER: _ClassVar[int]
    USERS_WITH_INTERESTS_FIELD_NUMBER: _ClassVar[int]
    items: int
    users: int
    interest_nodes: int
    users_with_interests: int
    def __init__(self, items: _Optional[int] = ..., users: _Optional[int] = ..., interest_nodes: _Optional[int] = ..., users_with_interests: _Optional[int] = ...) -> None: ...

class VectorIndex(_message.Message):
    __slots__ = ("dim", "kind", "num_lists", "num_probes", "recall_at_100", "category_list_offsets")
    DIM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUM_LISTS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROBES_FIELD_NUMBER: _ClassVar[int]
    RECALL_AT_100_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_LIST_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    dim: int
    kind: str
    num_lists: int
    num_probes: int
    recall_at_100: float
    category_list_offsets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dim: _Optional[int] = ..., kind: _Optional[str] = ..., num_lists: _Optional[int] = ..., num_probes: _Optional[int] = ..., recall_at_100: _Optional[float] = ..., category_list_offsets: _Optional[_Iterable[int]] = ...) -> None: ...

class TowerSpec(_message.Message):
    __slots__ = ("model_name", "fingerprint", "history_length", "max_interests", "interest_dim", "profile_fields", "text_encoder", "max_long_categories")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_INTERESTS_FIELD_NUMBER: _ClassVar[int]
    INTEREST_DIM_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_ENCODER_FIELD_NUMBER: _ClassVar[int]
    MAX_LONG_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    fingerprint: str
    history_length: int
    max_interests: int
    interest_dim: int
    profile_fields: _containers.RepeatedCompositeFieldContainer[ProfileField]
    text_encoder: str
    max_long_categories: int
    def __init__(self, model_name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., history_length: _Optional[int] = ..., max_interests: _Optional[int] = ..., interest_dim: _Optional[int] = ..., profile_fields: _Optional[_Iterable[_Union[ProfileField, _Mapping]]] = ..., text_encoder: _Optional[str] = ..., max_long_categories: _Optional[int] = ...) -> None: ...

class ProfileField(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class MergeSpec(_message.Message):
    __slots__ = ("id", "features", "horizon_days", "num_candidates", "num_positives", "surprise", "sources", "popularity")
    ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    NUM_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    NUM_POSITIVES_FIELD_NUMBER: _ClassVar[int]
    SURPRISE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    features: _containers.RepeatedScalarFieldContainer[str]
    horizon_days: float
    num_candidates: int
    num_positives: int
    surprise: float
    sources: _containers.RepeatedCompositeFieldContainer[SourceWorth]
    popularity: float
    def __init__(self, id: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., horizon_days: _Optional[float] = ..., num_candidates: _Optional[int] = ..., num_positives: _Optional[int] = ..., surprise: _Optional[float] = ..., sources: _Optional[_Iterable[_Union[SourceWorth, _Mapping]]] = ..., popularity: _Optional[float] = ...) -> None: ...

class SourceWorth(_message.Message):
    __slots__ = ("source", "earned", "places", "hits", "popularity_hits", "low", "high")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EARNED_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_HITS_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    source: _channel_pb2.Source
    earned: bool
    places: float
    hits: float
    popularity_hits: float
    low: float
    high: float
    def __init__(self, source: _Optional[_Union[_channel_pb2.Source, str]] = ..., earned: _Optional[bool] = ..., places: _Optional[float] = ..., hits: _Optional[float] = ..., popularity_hits: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class ServingRecord(_message.Message):
    __slots__ = ("time", "user_id", "experiment_tag", "novelty_policy", "response", "shadow")
    TIME_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_TAG_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_POLICY_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    user_id: str
    experiment_tag: str
    novelty_policy: _channel_pb2.NoveltyPolicy
    response: _channel_pb2.RecallResponse
    shadow: bool
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[str] = ..., experiment_tag: _Optional[str] = ..., novelty_policy: _Optional[_Union[_channel_pb2.NoveltyPolicy, str]] = ..., response: _Optional[_Union[_channel_pb2.RecallResponse, _Mapping]] = ..., shadow: _Optional[bool] = ...) -> None: ...

class UserFeedbackRecord(_message.Message):
    __slots__ = ("clicks", "exposures", "click_categories", "searches", "signals", "dismissals")
    CLICKS_FIELD_NUMBER: _ClassVar[int]
    EXPOSURES_FIELD_NUMBER: _ClassVar[int]
    CLICK_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    DISMISSALS_FIELD_NUMBER: _ClassVar[int]
    clicks: _containers.RepeatedCompositeFieldContainer[_channel_pb2.FeedbackEvent]
    exposures: _containers.RepeatedCompositeFieldContainer[_channel_pb2.FeedbackEvent]
    click_categories: _containers.RepeatedScalarFieldContainer[str]
    searches: _containers.RepeatedCompositeFieldContainer[Search]
    signals: _containers.RepeatedCompositeFieldContainer[_channel_pb2.FeedbackEvent]
    dismissals: _containers.RepeatedCompositeFieldContainer[_channel_pb2.FeedbackEvent]
    def __init__(self, clicks: _Optional[_Iterable[_Union[_channel_pb2.FeedbackEvent, _Mapping]]] = ..., exposures: _Optional[_Iterable[_Union[_channel_pb2.FeedbackEvent, _Mapping]]] = ..., click_categories: _Optional[_Iterable[str]] = ..., searches: _Optional[_Iterable[_Union[Search, _Mapping]]] = ..., signals: _Optional[_Iterable[_Union[_channel_pb2.FeedbackEvent, _Mapping]]] = ..., dismissals: _Optional[_Iterable[_Union[_channel_pb2.FeedbackEvent, _Mapping]]] = ...) -> None: ...

class NearlineEntry(_message.Message):
    __slots__ = ("user_id", "cause", "priority", "enqueued_at", "attempts", "not_before", "last_error", "generation", "novel_categories", "requests")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ENQUEUED_AT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NOVEL_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    cause: RefreshCause
    priority: float
    enqueued_at: int
    attempts: int
    not_before: int
    last_error: str
    generation: int
    novel_categories: NovelCategoriesWant
    requests: int
    def __init__(self, user_id: _Optional[str] = ..., cause: _Optional[_Union[RefreshCause, str]] = ..., priority: _Optional[float] = ..., enqueued_at: _Optional[int] = ..., attempts: _Optional[int] = ..., not_before: _Optional[int] = ..., last_error: _Optional[str] = ..., generation: _Optional[int] = ..., novel_categories: _Optional[_Union[NovelCategoriesWant, _Mapping]] = ..., requests: _Optional[int] = ...) -> None: ...

class NovelCategoriesWant(_message.Message):
    __slots__ = ("group_model_id", "group_id", "categories")
    GROUP_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    group_model_id: str
    group_id: int
    categories: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group_model_id: _Optional[str] = ..., group_id: _Optional[int] = ..., categories: _Optional[_Iterable[str]] = ...) -> None: ...

class FeedbackLogRecord(_message.Message):
    __slots__ = ("event", "recorded_at")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    event: _channel_pb2.FeedbackEvent
    recorded_at: _timestamp_pb2.Timestamp
    def __init__(self, event: _Optional[_Union[_channel_pb2.FeedbackEvent, _Mapping]] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
