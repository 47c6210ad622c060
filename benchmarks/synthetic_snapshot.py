"""Make a build of any size to serve: a snapshot with a catalogue nobody sells, its user tower, and the deployed model.

    python -m benchmarks.synthetic_snapshot --items 1000000 --out var/synthetic

Categories lie in families, items near their category, and users click in some of them; interests lead to others.
Nothing was trained, so the answers mean nothing, but everything that costs time is there: full histories, sixteen
interests, lists of novel categories, a merge model, and a tower of the inputs and about the work of a trained one.
Written by the product's own writer, which also decides about the index.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from google.protobuf import json_format
from numpy.typing import NDArray

from benchmarks.command import options_of
from benchmarks.synthetic_tower import SyntheticTower
from serendipity import features, layout
from serendipity.interests.life import expires_at
from serendipity.keys import novel_category_key
from serendipity.novelty import CLICK_WINDOW, Clicks
from serendipity.offline.export import export_onnx, export_program
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.merge.config import MergeConfig
from serendipity.offline.merge.model import columns_read, fit_trees, to_onnx
from serendipity.offline.snapshot.contents import SnapshotContents, taxonomy_number
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.offline.towers.export import ITEM_VECTORS, ONNX, PROGRAM, SPEC
from serendipity.offline.towers.user_tower import tensors
from serendipity.rank_features import FEATURE_NAMES
from serendipity.tools.arguments import positive
from serendipity.tools.deploy import publish_on_disk
from serendipity.v1 import records_pb2

NOW = 1_700_000_000
"""Moment the snapshot is of, Unix seconds."""

_DAY = 86_400
_GROUP_MODEL = "00112233445566aa"
_NUM_GROUPS = 20
_LIST_LENGTH = 10
_INTERESTS = 16
_PARTS = 4
"""Second-level categories of a category."""
_CATEGORY_DIM = 64
_CANDIDATES = 20_000
_FAMILY = 10
"""Categories of a family."""


@dataclass(frozen=True)
class Sizes:
    """How much is made. dim: of the vectors; interest_dim: of the interests' embeddings."""

    items: int = 1_000_000
    dim: int = 64
    categories: int = 300
    users: int = 3_000
    interest_dim: int = 384


def main(argv: Sequence[str] | None = None) -> int:
    """Make the build and say where it lies."""
    parser = options_of("synthetic_snapshot", __doc__)
    parser.add_argument("--items", type=positive, default=Sizes.items)
    parser.add_argument("--dim", type=positive, default=Sizes.dim, help="dimensions of the vectors")
    parser.add_argument("--categories", type=positive, default=Sizes.categories, help="top-level categories")
    parser.add_argument("--users", type=positive, default=Sizes.users)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="build directory")
    args = parser.parse_args(argv)
    print(write_build(Sizes(args.items, args.dim, args.categories, args.users), args.out, args.seed))
    return 0


def write_build(sizes: Sizes, out: Path, seed: int = 0) -> Path:
    """Write a build below `out`, publish its snapshot there, and return the snapshot's directory.

    towers/ and snapshots/ are as a real build's. Deterministic in `seed`.
    """
    rng = np.random.default_rng(seed)
    catalogue, centres, item_vectors = _catalogue(rng, sizes)
    nodes, node_centres = _nodes(catalogue, item_vectors)
    # Text embeddings from which the tower can tell where an interest lies.
    projection = np.linalg.qr(rng.standard_normal((sizes.interest_dim, sizes.dim)))[0].astype(np.float32)
    node_vectors = node_centres @ projection.T
    node_vectors /= np.linalg.norm(node_vectors, axis=1, keepdims=True)
    tower = SyntheticTower(catalogue.item_categories, centres, projection).eval()
    spec = _export(tower, sizes, item_vectors, out / "towers")
    taxonomy_hash = layout.hash_of("/".join(node.path).encode() for node in nodes)
    users = _users(rng, catalogue, sizes.users)
    _store_vectors(users, tower, spec)
    nobody = records_pb2.UserRecord()
    _store_vectors({"": nobody}, tower, spec)
    interests = {
        user_id: _interests(user_id, _leading(rng, user, nodes), taxonomy_hash) for user_id, user in users.items()
    }
    popular = [node.node_id for node in nodes if len(node.path) == 1][:_INTERESTS]
    of_nobody = _interests("", popular, taxonomy_hash)
    group_spec, coevolution = _group_models(taxonomy_hash)
    merge, merge_model = _merge(rng)
    category_vectors = _directions(rng, sizes.categories, _CATEGORY_DIM)
    contents = SnapshotContents(
        catalogue=catalogue,
        item_vectors=item_vectors,
        users=users,
        default_user=nobody,
        interests=interests,
        default_interests=of_nobody,
        interest_paths={user_id: _paths(nodes, record) for user_id, record in interests.items()},
        default_interest_paths=_paths(nodes, of_nobody),
        nodes=nodes,
        node_vectors=node_vectors,
        tower=spec,
        merge=merge,
        merge_model=merge_model,
        item_statistics=_item_statistics(rng, catalogue),
        category_vectors=np.concatenate([np.zeros((1, _CATEGORY_DIM), np.float32), category_vectors]),
        events_until=NOW - 1,
        dataset="synthetic",
        taxonomy_hash=taxonomy_hash,
        vocabulary_id=taxonomy_hash[:16],
        grounding_threshold=0.6,
        group_spec=group_spec,
        groups=[
            records_pb2.GroupRecord(group_id=group, profile=f"Group {group}.", users=sizes.users // _NUM_GROUPS)
            for group in range(_NUM_GROUPS + 1)
        ],
        coevolution=coevolution,
        novel_categories=_lists(rng, catalogue.categories, taxonomy_hash),
        build_configuration=f'{{"seed": {seed}}}',
    )
    directory = write_snapshot(contents, out / "snapshots", created_at=NOW)
    publish_on_disk(out / "snapshots", gate=False)(directory.name)
    return directory


def _catalogue(rng: np.random.Generator, sizes: Sizes) -> tuple[Catalogue, NDArray[np.float32], NDArray[np.float32]]:
    """Make the catalogue, the centres of its categories, [c, d], and its items' vectors, [n, d]."""
    n, num_categories, dim = sizes.items, sizes.categories, sizes.dim
    families = _directions(rng, -(-num_categories // _FAMILY), dim)
    centres = families[np.arange(num_categories) // _FAMILY] + 0.6 * _directions(rng, num_categories, dim)
    # As in shops, a few categories are large and many are small; none is empty.
    shares = rng.lognormal(sigma=1.0, size=num_categories)
    shares /= shares.sum()
    edges = np.round(np.concatenate([[0.0], np.cumsum(shares)]) * (n - num_categories)).astype(np.int64)
    offsets = edges + np.arange(num_categories + 1)
    numbers = np.repeat(np.arange(1, num_categories + 1, dtype=np.int32), np.diff(offsets))
    vectors = centres[numbers - 1] + 0.8 * rng.standard_normal((n, dim), np.float32) / np.float32(dim**0.5)
    categories = [f"category-{number:04d}" for number in range(num_categories)]
    within = np.arange(n) - offsets[numbers - 1]
    parts = within * _PARTS // np.diff(offsets)[numbers - 1]
    paths: list[tuple[str, ...]] = [
        (categories[number - 1], f"{categories[number - 1]}-{part}")
        for number, part in zip(numbers.tolist(), parts.tolist(), strict=True)
    ]
    catalogue = Catalogue(
        item_ids=[f"item-{row:08d}" for row in range(n)],
        titles=[f"Item {row} of {path[-1]}" for row, path in enumerate(paths)],
        paths=paths,
        brands=[f"brand-{brand}" for brand in rng.integers(0, 1_000, n).tolist()],
        tags=[()] * n,
        available=rng.random(n) > 0.01,
        prices=np.full(n, np.nan, np.float32),
        categories=categories,
        item_categories=numbers,
        category_offsets=offsets,
        novelty_level=0,
    )
    return catalogue, centres, vectors


def _nodes(
    catalogue: Catalogue, item_vectors: NDArray[np.float32]
) -> tuple[list[records_pb2.InterestNode], NDArray[np.float32]]:
    """Make a node of each category and of each of its parts, and the centres of their items, [nodes, d]."""
    starts: dict[tuple[str, ...], int] = {}
    ends: dict[tuple[str, ...], int] = {}
    for row, path in enumerate(catalogue.paths):
        for depth in range(1, len(path) + 1):
            starts.setdefault(path[:depth], row)
            ends[path[:depth]] = row + 1
    nodes, centres = [], []
    for node_id, path in enumerate(sorted(starts)):
        nodes.append(
            records_pb2.InterestNode(
                node_id=node_id,
                name=path[-1],
                path=path,
                starts=[starts[path]],
                ends=[ends[path]],
                origin=records_pb2.NODE_ORIGIN_CATALOGUE,
                categories=[int(catalogue.item_categories[starts[path]])],
            )
        )
        centres.append(item_vectors[starts[path] : ends[path]].mean(axis=0))
    return nodes, np.stack(centres)


def _users(rng: np.random.Generator, catalogue: Catalogue, number: int) -> dict[str, records_pb2.UserRecord]:
    """Make users who click in a sixth to a third of the categories; their vectors are left out."""
    num_categories, offsets = len(catalogue.categories), catalogue.category_offsets
    users = {}
    for u in range(number):
        clicked = 1 + rng.choice(
            num_categories, int(rng.integers(num_categories // 6, num_categories // 3 + 1)), replace=False
        )
        categories = rng.choice(clicked, int(rng.integers(20, 2 * CLICK_WINDOW)))
        rows = rng.integers(offsets[categories - 1], offsets[categories])
        times = np.sort(NOW - 1 - rng.integers(0, 120 * _DAY, len(categories)))[::-1]
        long, first, counts = np.unique(categories, return_index=True, return_counts=True)
        most_first = np.lexsort((long, -counts))
        group = 1 + u % _NUM_GROUPS
        users[f"user-{u:06d}"] = records_pb2.UserRecord(
            click_items=(rows[:CLICK_WINDOW] + 1).tolist(),
            click_categories=categories[:CLICK_WINDOW].tolist(),
            click_times=times[:CLICK_WINDOW].tolist(),
            profile=[1 + u % 3],
            long_categories=long[most_first].tolist(),
            long_counts=counts[most_first].tolist(),
            long_last_times=times[first][most_first].tolist(),
            csid=[group % 16, group // 16],
            group_id=group,
        )
    return users


def _store_vectors(
    users: Mapping[str, records_pb2.UserRecord], tower: SyntheticTower, spec: records_pb2.TowerSpec, batch: int = 256
) -> None:
    """Give records the vectors that serve while the tower is away."""
    assembler = features.FeatureAssembler.from_spec(spec)
    nothing = np.empty((0, spec.interest_dim), np.float32)
    records = list(users.values())
    for at in range(0, len(records), batch):
        some = records[at : at + batch]
        inputs = [
            assembler.assemble(
                Clicks(
                    np.array(user.click_items, np.int64),
                    np.array(user.click_categories, np.int32),
                    np.array(user.click_times, np.int64),
                ),
                features.LongHistory(
                    np.array(user.long_categories, np.int32),
                    np.array(user.long_counts, np.int32),
                    np.array(user.long_last_times, np.int64),
                ),
                np.array(user.profile, np.int32),
                nothing,
                NOW,
            )
            for user in some
        ]
        with torch.inference_mode():
            vectors = tower(*tensors(features.TowerInputs.stack(inputs)))[:, 0].numpy()
        for user, vector in zip(some, vectors, strict=True):
            user.user_vector = vector.astype("<f2").tobytes()


def _leading(
    rng: np.random.Generator, user: records_pb2.UserRecord, nodes: Sequence[records_pb2.InterestNode]
) -> list[int]:
    """Choose interests for a user: nodes, most of them of categories that are not clicked."""
    known = set(user.click_categories)
    novel = [node.node_id for node in nodes if node.categories[0] not in known]
    found: list[int] = rng.choice(novel, min(_INTERESTS, len(novel)), replace=False).tolist()
    return found


def _interests(user_id: str, node_ids: Sequence[int], taxonomy_hash: str) -> records_pb2.InterestsRecord:
    return records_pb2.InterestsRecord(
        node_ids=node_ids,
        weights=[900 - 50 * i for i in range(len(node_ids))],
        generated_at=NOW - 1,
        expires_at=expires_at(user_id, NOW - 1),
        taxonomy_hash=taxonomy_number(taxonomy_hash),
    )


def _paths(
    nodes: Sequence[records_pb2.InterestNode], interests: records_pb2.InterestsRecord
) -> records_pb2.InterestPathsRecord:
    return records_pb2.InterestPathsRecord(
        paths=[
            records_pb2.InterestPath(
                seed_kind=records_pb2.SEED_KIND_POPULATION,
                core_demand=nodes[node_id].path[0],
                latent_interest=nodes[node_id].name,
                relation=records_pb2.RELATION_HYPONYM,
                score=0.5,
            )
            for node_id in interests.node_ids
        ],
        reasoner="synthetic",
    )


def _group_models(taxonomy_hash: str) -> tuple[records_pb2.GroupSpec, records_pb2.CoevolutionSpec]:
    """Describe a group model and LLMs that nobody will call: lists are only read."""
    groups = records_pb2.GroupSpec(
        group_model_id=_GROUP_MODEL,
        sequence_length=64,
        click_threshold=1,
        counted="category",
        min_clicks=1,
        num_groups=_NUM_GROUPS,
        codebook_size=16,
        num_quantizers=2,
    )
    llms = records_pb2.CoevolutionSpec(
        novelty_model_name=f"novelty_llm_{'1' * 16}",
        novelty_fingerprint="1" * 16,
        relevance_model_name=f"relevance_llm_{'2' * 16}",
        relevance_fingerprint="2" * 16,
        base="synthetic",
        prompt_style="compact",
        group_model_id=_GROUP_MODEL,
        taxonomy_hash=taxonomy_hash,
        num_candidates=_LIST_LENGTH,
        score_scale=1.0,
        max_batch=1,
        max_prompt_tokens=128,
    )
    return groups, llms


def _lists(
    rng: np.random.Generator, categories: Sequence[str], taxonomy_hash: str
) -> dict[bytes, records_pb2.NovelCategoriesRecord]:
    """Make a list for every group alone, and for every group and one latest category."""
    latest: list[list[str]] = [[], *([category] for category in categories)]
    return {
        novel_category_key(_GROUP_MODEL, group, recent): records_pb2.NovelCategoriesRecord(
            categories=(
                1 + rng.choice(len(categories), min(2 * _LIST_LENGTH, len(categories)), replace=False)
            ).tolist(),
            scores=np.linspace(0.9, 0.4, min(2 * _LIST_LENGTH, len(categories))).tolist(),
            generated_at=NOW - 1,
            group_model_id=_GROUP_MODEL,
            taxonomy_hash=taxonomy_number(taxonomy_hash),
        )
        for group in range(_NUM_GROUPS + 1)
        for recent in latest
    }


def _merge(rng: np.random.Generator) -> tuple[records_pb2.MergeSpec, bytes]:
    """Learn a merge model of usual size: what is near, ranked high or clicked much is clicked more often."""
    names = [FEATURE_NAMES[column] for column in columns_read(FEATURE_NAMES)]
    features = rng.standard_normal((_CANDIDATES, len(names)), np.float32)
    for column, name in enumerate(names):
        if name.endswith("_reciprocal_rank"):
            features[:, column] = 1 / rng.integers(1, 300, _CANDIDATES)
    log_odds = features @ np.where([name == "category_days" for name in names], -0.3, 0.3) - 3.0
    hits = rng.random(_CANDIDATES) < 1 / (1 + np.exp(-log_odds))
    model = to_onnx(fit_trees(features, hits, names, MergeConfig()), features)
    spec = records_pb2.MergeSpec(
        id=layout.hash_of([model])[:16],
        features=names,
        horizon_days=30.0,
        num_candidates=_CANDIDATES,
        num_positives=int(hits.sum()),
        surprise=0.3,
    )
    return spec, model


def _item_statistics(rng: np.random.Generator, catalogue: Catalogue) -> NDArray[np.float32]:
    """Draw clicks and trends of items; a category's share is that of its items, [n, 4]."""
    drawn = rng.standard_normal((len(catalogue), len(layout.ITEM_STATISTICS_COLUMNS)), np.float32)
    # As in shops, most items are clicked by nobody, and a few much.
    drawn[:, 0] = np.maximum(drawn[:, 0], 0)
    drawn[:, 3] = np.log(np.bincount(catalogue.item_categories)[catalogue.item_categories] / len(catalogue))
    return drawn


def _export(
    tower: SyntheticTower, sizes: Sizes, item_vectors: NDArray[np.float32], towers: Path
) -> records_pb2.TowerSpec:
    """Write towers/ as the towers' builder does, without ONNX, and return the spec."""
    towers.mkdir(parents=True, exist_ok=True)
    spec = records_pb2.TowerSpec(
        history_length=CLICK_WINDOW,
        max_interests=_INTERESTS,
        interest_dim=sizes.interest_dim,
        max_long_categories=sizes.categories,
        text_encoder="synthetic",
        profile_fields=[records_pb2.ProfileField(name="age", values=["young", "middling", "old"])],
    )
    empty = features.FeatureAssembler.from_spec(spec).assemble(
        Clicks.empty(),
        features.LongHistory.empty(),
        np.zeros(1, np.int32),
        np.zeros((2, sizes.interest_dim), np.float32),
        NOW,
    )
    spec.fingerprint = export_program(tower, tensors(empty), towers / PROGRAM)
    export_onnx(tower, tensors(empty), towers / ONNX, spec.fingerprint)
    spec.model_name = features.TOWER_MODEL_PREFIX + spec.fingerprint
    np.save(towers / ITEM_VECTORS, item_vectors)
    text = json_format.MessageToJson(spec, preserving_proto_field_name=True)
    layout.write_atomically(towers / SPEC, text.encode())
    return spec


def _directions(rng: np.random.Generator, number: int, dim: int) -> NDArray[np.float32]:
    """Draw unit vectors, [number, dim]."""
    vectors = rng.standard_normal((number, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


if __name__ == "__main__":
    sys.exit(main())
