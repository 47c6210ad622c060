"""Reads what the builders wrote below a build directory into the contents of a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serendipity.features import FeatureAssembler
from serendipity.groups.model import read_coevolution_spec
from serendipity.interests.model import read_spec as read_interest_gpt_spec
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.interests.builder import REASONER
from serendipity.offline.interests.interest_table import read_interests
from serendipity.offline.interests.node_table import known_nodes
from serendipity.offline.interests.summary import INTEREST_VECTORS, InterestsSummary
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import EVENT_TYPES
from serendipity.offline.snapshot.assembly import (
    UserRecords,
    cold_record,
    interest_paths_record,
    interests_record,
    known_users,
    node_records,
    novel_categories_records,
    signals_record,
    stored_vectors,
)
from serendipity.offline.snapshot.catalogue_arrays import category_vectors, item_statistics
from serendipity.offline.snapshot.contents import ContentsError, SnapshotContents
from serendipity.offline.towers.export import ITEM_VECTORS, SPEC, load_user_tower, read_fingerprint, read_spec
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class BuildDirectories:
    """Where the builders wrote: directories of logs, interests and towers that were made of one another.

    interest_gpt: of the InterestGPT that was distilled from them; None: near-line interests are not refreshed.
    groups: of the group model; coevolution: of the LLMs and their lists; None: there are none, and no group source.
    graph: of the graph; None: there is none, and no graph source.
    """

    logs: Path
    interests: Path
    towers: Path
    interest_gpt: Path | None = None
    groups: Path | None = None
    coevolution: Path | None = None
    graph: Path | None = None


def read_contents(
    directories: BuildDirectories,
    *,
    merge: records_pb2.MergeSpec,
    merge_model: bytes | None,
    dataset: str,
    build_configuration: str,
    advance: Callable[[int], None] = lambda _: None,
) -> SnapshotContents:
    """Read everything as of the end of the logs. advance: told of users as their stored vectors are made.

    Raises ContentsError when interests or towers were made of other logs, InterestGptError when the InterestGPT
    cannot be used, GroupModelError when the group model or the LLMs cannot.
    """
    catalogue, histories = Catalogue.read(directories.logs), Histories.read(directories.logs)
    logs = LogsSummary.read(directories.logs)
    summary = InterestsSummary.read(directories.interests)
    taxonomy = Taxonomy.from_catalogue(catalogue, known_nodes(directories.interests))
    if taxonomy.hash != summary.taxonomy_hash:
        raise ContentsError(
            f"{directories.interests}: taxonomy_hash: found {summary.taxonomy_hash}, expected {taxonomy.hash} "
            f"of the catalogue in {directories.logs}"
        )
    spec = read_tower_spec(directories.towers)
    assembler = FeatureAssembler.from_spec(spec)
    tower = load_user_tower(directories.towers)
    users = known_users(histories, logs.events_until)
    vectors = stored_vectors(tower, histories, users, logs.events_until, assembler, advance=advance)
    known = {histories.user_ids[user] for user in users}
    signals = ((user, signals_record(histories, user, logs.events_until)) for user in users)
    found = read_interests(directories.interests)
    of_nobody = found.pop(None, [])
    of_users = {user_id: interests for user_id, interests in found.items() if user_id in known}
    generated_at = summary.generated_at
    model = GroupModel.read(directories.groups) if directories.groups else None
    coevolution = read_coevolution_spec(directories.coevolution) if directories.coevolution else None
    graph = ServedGraph.read(directories.graph) if directories.graph else None
    return SnapshotContents(
        catalogue=catalogue,
        item_vectors=np.load(directories.towers / ITEM_VECTORS, allow_pickle=False),
        users=UserRecords(
            histories, users, logs.events_until, assembler, vectors, model.assign(histories) if model else None, graph
        ),
        default_user=cold_record(tower, assembler, logs.events_until),
        interests={
            user_id: interests_record(user_id, interests, taxonomy.hash, generated_at)
            for user_id, interests in of_users.items()
        },
        default_interests=interests_record("", of_nobody, taxonomy.hash, generated_at),
        interest_paths={
            user_id: interest_paths_record(interests, summary.reasoner) for user_id, interests in of_users.items()
        },
        default_interest_paths=interest_paths_record(of_nobody, summary.reasoner),
        nodes=node_records(taxonomy),
        node_vectors=np.load(directories.interests / INTEREST_VECTORS, allow_pickle=False),
        tower=spec,
        merge=merge,
        merge_model=merge_model,
        item_statistics=item_statistics(histories, catalogue, logs.events_until),
        category_vectors=category_vectors(histories, catalogue, logs.events_until),
        events_until=logs.events_until,
        dataset=dataset,
        taxonomy_hash=taxonomy.hash,
        vocabulary_id=summary.vocabulary_id,
        grounding_threshold=summary.grounding_threshold,
        signals={histories.user_ids[user]: record for user, record in signals if record.ByteSize()},
        reasoner=(directories.interests / REASONER).read_bytes(),
        interest_gpt=read_interest_gpt_spec(directories.interest_gpt) if directories.interest_gpt else None,
        group_spec=model.spec if model else None,
        groups=model.groups if model else (),
        coevolution=coevolution,
        novel_categories={}
        if coevolution is None or directories.coevolution is None
        else novel_categories_records(
            read_lists(directories.coevolution), catalogue.categories, coevolution, logs.events_until
        ),
        click_types=[EVENT_TYPES[name] for name in logs.click_types],
        graph=graph,
        build_configuration=build_configuration,
    )


def read_tower_spec(towers: Path) -> records_pb2.TowerSpec:
    """Read tower.json. Raises ContentsError when the tower beside it is not the one it describes."""
    spec = read_spec(towers)
    fingerprint = read_fingerprint(towers)
    if spec.fingerprint != fingerprint:
        raise ContentsError(
            f"{towers / SPEC}: fingerprint: found {spec.fingerprint!r}, expected {fingerprint!r} of the user tower"
        )
    return spec
