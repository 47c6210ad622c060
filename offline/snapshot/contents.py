"""What a snapshot is written from, and the checks it has to pass before a byte is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.interests.model import MODEL_PREFIX
from serendipity.interests.prompt import STYLES
from serendipity.offline.errors import BuilderError
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.v1 import channel_pb2, records_pb2

MAX_LONG_CATEGORIES = 400
"""Categories of long-term interest a user's record holds at most."""

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TAXONOMY_HASH = re.compile(r"[0-9a-f]{64}")
_VOCABULARY_ID = re.compile(r"[0-9a-f]{16}")


class ContentsError(BuilderError, ValueError):
    """The contents cannot become a snapshot: names the field, what was found and what was expected."""


@dataclass(frozen=True)
class SnapshotContents:
    """Everything a snapshot holds.

    catalogue: n items by row. item_vectors: [n, d] float32 by row.
    users: user id → record; each record is read once, in key order, so a mapping may compute them on demand.
    default_user, default_interests, default_interest_paths: what users get who are not in the snapshot.
    interests, interest_paths: user id → records, of the same users, a path per interest.
    nodes: interest nodes by node id (node_id = position). node_vectors: [len(nodes), D] float32.
    tower: the tower that made item_vectors; merge: how candidates become one list; merge_model: its model as ONNX, None
    where it has no id. item_statistics: [n, 4], category_vectors: [c + 1, k] float32, as in layout.
    events_until: Unix seconds. taxonomy_hash: 64 hex digits. vocabulary_id: of the interest nodes, 16 hex digits.
    grounding_threshold: least cosine at which a name grounds in a node by the text encoder.
    signals: user id → what near-line prompts are told beside the clicks; users without any are left out.
    interest_gpt: which InterestGPT refreshes interests; None: none was trained.
    group_spec: the group model that users' groups are of; None: none was built. groups: by group id, 0 … num_groups.
    coevolution: the LLMs that wrote the lists; None: none were trained, and there are no lists.
    novel_categories: novel-category key → record. graph: what users are folded into; None: none was built.
    build_configuration: JSON.
    """

    catalogue: Catalogue
    item_vectors: NDArray[np.float32]
    users: Mapping[str, records_pb2.UserRecord]
    default_user: records_pb2.UserRecord
    interests: Mapping[str, records_pb2.InterestsRecord]
    default_interests: records_pb2.InterestsRecord
    interest_paths: Mapping[str, records_pb2.InterestPathsRecord]
    default_interest_paths: records_pb2.InterestPathsRecord
    nodes: Sequence[records_pb2.InterestNode]
    node_vectors: NDArray[np.float32]
    tower: records_pb2.TowerSpec
    merge: records_pb2.MergeSpec
    merge_model: bytes | None
    item_statistics: NDArray[np.float32]
    category_vectors: NDArray[np.float32]
    events_until: int
    dataset: str
    taxonomy_hash: str
    vocabulary_id: str
    grounding_threshold: float
    signals: Mapping[str, records_pb2.UserSignalsRecord] = field(default_factory=dict)
    interest_gpt: records_pb2.InterestGptSpec | None = None
    click_types: Sequence[channel_pb2.EventType] = (channel_pb2.EVENT_TYPE_CLICK,)
    group_spec: records_pb2.GroupSpec | None = None
    groups: Sequence[records_pb2.GroupRecord] = ()
    coevolution: records_pb2.CoevolutionSpec | None = None
    novel_categories: Mapping[bytes, records_pb2.NovelCategoriesRecord] = field(default_factory=dict)
    graph: ServedGraph | None = None
    build_configuration: str = "{}"

    @property
    def num_items(self) -> int:
        """Items in the catalogue."""
        return len(self.catalogue.item_ids)

    @property
    def dim(self) -> int:
        """Dimension of item and user vectors."""
        return int(self.item_vectors.shape[1])


def check_contents(contents: SnapshotContents) -> None:
    """Check catalogue, vectors, nodes, tower and merge; users' records are checked as they are written.

    Raises ContentsError naming the field.
    """
    _check_catalogue(contents.catalogue)
    check_vectors("item_vectors", contents.item_vectors, rows=contents.num_items)
    check_vectors("node_vectors", contents.node_vectors, rows=len(contents.nodes), dim=contents.tower.interest_dim)
    for i, node in enumerate(contents.nodes):
        _check_node(f"nodes[{i}]", node, i, contents)
    _check_tower(contents.tower)
    _check_merge(contents)
    if contents.interest_gpt is not None:
        _check_interest_gpt(contents.interest_gpt, contents.taxonomy_hash)
    require(
        _TAXONOMY_HASH.fullmatch(contents.taxonomy_hash) is not None,
        "taxonomy_hash",
        repr(contents.taxonomy_hash),
        "64 hex digits",
    )
    require(
        _VOCABULARY_ID.fullmatch(contents.vocabulary_id) is not None,
        "vocabulary_id",
        repr(contents.vocabulary_id),
        "16 hex digits",
    )
    threshold = contents.grounding_threshold
    require(0 < threshold <= 1, "grounding_threshold", threshold, "a cosine above 0 and at most 1")
    require(contents.events_until > 0, "events_until", contents.events_until, "Unix seconds above 0")
    known = contents.users.keys()
    for name, of_users in (
        ("interests", contents.interests),
        ("interest_paths", contents.interest_paths),
        ("signals", contents.signals),
    ):
        strangers = sorted(of_users.keys() - known)
        require(not strangers, name, f"user {strangers[0]!r}" if strangers else "", "only users that are in `users`")
    pathless = sorted(contents.interests.keys() ^ contents.interest_paths.keys())
    require(
        not pathless,
        "interest_paths",
        f"user {pathless[0]!r} in one of the two" if pathless else "",
        "the users of `interests`",
    )


def check_vectors(name: str, vectors: NDArray[np.float32], *, rows: int, dim: int | None = None) -> None:
    """Check shape, type and finiteness of a matrix of vectors.

    Raises ContentsError naming the first row that is not finite.
    """
    expected = f"[{rows}, {'d' if dim is None else dim}]"
    require(vectors.ndim == 2, f"{name}.shape", list(vectors.shape), expected)
    require(len(vectors) == rows and dim in (None, vectors.shape[1]), f"{name}.shape", list(vectors.shape), expected)
    require(vectors.shape[1] > 0, f"{name}.shape", list(vectors.shape), expected)
    require(vectors.dtype == np.float32, f"{name}.dtype", vectors.dtype, "float32")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ContentsError(f"{name}[{int(np.argmin(finite))}]: found a value that is not finite, expected finite ones")


def _check_merge(contents: SnapshotContents) -> None:
    merge, model = contents.merge, contents.merge_model
    require(bool(merge.id) == (model is not None), "merge.id", repr(merge.id), "an id where there is a model")
    require(model is None or merge.id == layout.hash_of([model])[:16], "merge.id", merge.id, "the model's hash")
    require(0 <= merge.surprise <= 1, "merge.surprise", merge.surprise, "0 to 1")
    columns = len(layout.ITEM_STATISTICS_COLUMNS)
    check_vectors("item_statistics", contents.item_statistics, rows=contents.num_items, dim=columns)
    check_vectors("category_vectors", contents.category_vectors, rows=len(contents.catalogue.categories) + 1)


def check_identifier(name: str, identifier: str) -> None:
    """Check that an id can be a key: not empty, no NUL (which the default user's key starts with).

    Raises ContentsError.
    """
    require(bool(identifier) and "\x00" not in identifier, name, repr(identifier), "a non-empty id without NUL")


def taxonomy_number(taxonomy_hash: str) -> int:
    """First 8 bytes of the taxonomy hash as the number that interests records carry."""
    return int(taxonomy_hash[:16], 16)


def _check_catalogue(catalogue: Catalogue) -> None:
    n = len(catalogue.item_ids)
    require(n > 0, "catalogue.item_ids", "no items", "at least one")
    for name in ("titles", "paths", "brands", "available", "item_categories"):
        found = len(getattr(catalogue, name))
        require(found == n, f"catalogue.{name}", f"{found} entries", f"{n}, one per item")
    for i, item_id in enumerate(catalogue.item_ids):
        check_identifier(f"catalogue.item_ids[{i}]", item_id)
    require(len(set(catalogue.item_ids)) == n, "catalogue.item_ids", "an id twice", "each id once")
    offsets = np.asarray(catalogue.category_offsets)
    c = len(catalogue.categories)
    require(list(catalogue.categories) == sorted(set(catalogue.categories)), "catalogue.categories", "not sorted or "
             "not distinct", "sorted, distinct names")  # fmt: skip
    require(len(offsets) == c + 1, "catalogue.category_offsets", f"{len(offsets)} offsets", f"{c + 1}")
    ascending = offsets[0] == 0 and (np.diff(offsets) >= 0).all() and offsets[-1] <= n
    require(bool(ascending), "catalogue.category_offsets", offsets.tolist(), f"ascending from 0 to at most {n}")
    expected = np.zeros(n, np.int64)
    expected[: offsets[-1]] = np.repeat(np.arange(1, c + 1), np.diff(offsets))
    wrong = np.flatnonzero(np.asarray(catalogue.item_categories) != expected)
    if len(wrong):
        row = int(wrong[0])
        raise ContentsError(
            f"catalogue.item_categories[{row}]: found {int(catalogue.item_categories[row])}, "
            f"expected {int(expected[row])} by category_offsets"
        )
    require(catalogue.novelty_level >= 0, "catalogue.novelty_level", catalogue.novelty_level, "at least 0")


def _check_node(name: str, node: records_pb2.InterestNode, position: int, contents: SnapshotContents) -> None:
    require(node.node_id == position, f"{name}.node_id", node.node_id, position)
    require(len(node.starts) == len(node.ends), f"{name}.ends", f"{len(node.ends)} ends", f"{len(node.starts)}")
    for start, end in zip(node.starts, node.ends, strict=True):
        bound = contents.num_items
        require(start < end <= bound, f"{name}.starts, .ends", f"[{start}, {end})", f"row ranges within {bound}")
    numbers, bound = list(node.categories), len(contents.catalogue.categories)
    ascending = numbers == sorted(set(numbers)) and all(0 < number <= bound for number in numbers)
    require(ascending, f"{name}.categories", numbers, f"category numbers, ascending, 1 to {bound}")
    require(bool(numbers) == bool(node.starts), f"{name}.categories", numbers, "some where there are items, or none")
    require(
        node.origin in (records_pb2.NODE_ORIGIN_CATALOGUE, records_pb2.NODE_ORIGIN_REASONER),
        f"{name}.origin",
        records_pb2.NodeOrigin.Name(node.origin),
        "NODE_ORIGIN_CATALOGUE or NODE_ORIGIN_REASONER",
    )
    require(bool(node.path) and node.path[-1] == node.name, f"{name}.path", list(node.path), f"ending in {node.name!r}")


def _check_interest_gpt(spec: records_pb2.InterestGptSpec, taxonomy_hash: str) -> None:
    name = "interest_gpt"
    require(_FINGERPRINT.fullmatch(spec.fingerprint) is not None, f"{name}.fingerprint", repr(spec.fingerprint),
            "16 hex digits")  # fmt: skip
    model_name = MODEL_PREFIX + spec.fingerprint
    require(spec.model_name == model_name, f"{name}.model_name", repr(spec.model_name), model_name)
    require(spec.prompt_style in STYLES, f"{name}.prompt_style", repr(spec.prompt_style), f"one of {', '.join(STYLES)}")
    for bound in ("num_interests", "max_new_tokens", "max_prompt_tokens", "max_batch"):
        require(getattr(spec, bound) > 0, f"{name}.{bound}", getattr(spec, bound), "above 0")
    weights = list(spec.rank_weights)
    require(len(weights) == spec.num_interests, f"{name}.rank_weights", f"{len(weights)}", spec.num_interests)
    require(all(0 <= weight <= 1 for weight in weights), f"{name}.rank_weights", weights, "within 0 … 1")
    # It answers with categories of its own taxonomy: those of another would not ground.
    require(spec.taxonomy_hash == taxonomy_hash, f"{name}.taxonomy_hash", spec.taxonomy_hash, taxonomy_hash)


def _check_tower(tower: records_pb2.TowerSpec) -> None:
    require(_FINGERPRINT.fullmatch(tower.fingerprint) is not None, "tower.fingerprint", repr(tower.fingerprint),
             "16 hex digits")  # fmt: skip
    require(tower.model_name == f"user_tower_{tower.fingerprint}", "tower.model_name", repr(tower.model_name),
             f"user_tower_{tower.fingerprint}")  # fmt: skip
    for name in ("history_length", "interest_dim"):
        require(getattr(tower, name) > 0, f"tower.{name}", getattr(tower, name), "above 0")


def require(holds: bool, field_name: str, found: object, expected: object) -> None:
    """Raise ContentsError naming the field unless what is expected of it holds."""
    if not holds:
        raise ContentsError(f"{field_name}: found {found}, expected {expected}")
