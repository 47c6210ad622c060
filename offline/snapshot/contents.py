"""What a snapshot is written from, and the checks it has to pass before a byte is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.offline.errors import BuilderError
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.v1 import channel_pb2, records_pb2

MAX_LONG_CATEGORIES = 400
"""Categories of long-term interest a user's record holds at most."""


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
    reasoner: the taxonomy reasoner, whose proposals near-line weighs (TaxonomyReasoner.content).
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
    reasoner: bytes = b""
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


def check_contents(contents: SnapshotContents) -> None:
    """Check that what the builders made fits together: shapes, finite numbers, and specs of this catalogue and groups.

    What is in one user's records follows from how they are made, and whoever reads a record checks it again. Raises
    ContentsError naming the field.
    """
    items, graph, merge = contents.num_items, contents.graph, contents.merge
    matrices: list[tuple[str, NDArray[np.float32], int, int | None]] = [
        ("item_vectors", contents.item_vectors, items, None),
        ("node_vectors", contents.node_vectors, len(contents.nodes), contents.tower.interest_dim),
        ("item_statistics", contents.item_statistics, items, len(layout.ITEM_STATISTICS_COLUMNS)),
        ("category_vectors", contents.category_vectors, len(contents.catalogue.categories) + 1, None),
    ]
    if graph is not None:
        dim = graph.item_vectors.shape[1]
        matrices += [
            ("graph.item_vectors", graph.item_vectors, items, None),
            ("graph.item_parts", graph.item_parts, items, dim),
            ("graph.interest_parts", graph.interest_parts, len(graph.interests), dim),
        ]
    for matrix in matrices:
        _check_matrix(*matrix)
    model_id = "" if contents.merge_model is None else layout.hash_of([contents.merge_model])[:16]
    _expect("merge.id", merge.id, model_id)
    # Models answer with categories of their own taxonomy: those of another would not ground.
    if contents.interest_gpt is not None:
        _expect("interest_gpt.taxonomy_hash", contents.interest_gpt.taxonomy_hash, contents.taxonomy_hash)
    groups, llms = contents.group_spec, contents.coevolution
    _expect("groups", len(contents.groups), 0 if groups is None else groups.num_groups + 1)
    if llms is not None:
        _expect("coevolution.taxonomy_hash", llms.taxonomy_hash, contents.taxonomy_hash)
        # Lists by the profiles of other groups would be found under no key.
        _expect("coevolution.group_model_id", llms.group_model_id, "" if groups is None else groups.group_model_id)


def taxonomy_number(taxonomy_hash: str) -> int:
    """First 8 bytes of the taxonomy hash as the number that interests records carry."""
    return int(taxonomy_hash[:16], 16)


def _check_matrix(name: str, matrix: NDArray[np.float32], rows: int, width: int | None) -> None:
    """Check shape, type and finiteness; width: None for any above 0. Raises ContentsError naming the first bad row."""
    if matrix.ndim != 2 or len(matrix) != rows or matrix.shape[1] != (width or max(1, matrix.shape[1])):
        expected = f"[{rows}, {width or 'd'}]"
        raise ContentsError(f"{name}.shape: found {list(matrix.shape)}, expected {expected}")
    _expect(f"{name}.dtype", str(matrix.dtype), "float32")
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise ContentsError(f"{name}[{int(np.argmin(finite))}]: found a value that is not finite, expected finite ones")


def _expect(name: str, found: object, expected: object) -> None:
    if found != expected:
        raise ContentsError(f"{name}: found {found!r}, expected {expected!r}")
