from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.interests.answer import Proposal
from serendipity.interests.grounding import Method
from serendipity.offline.interests.node_table import (
    NodeTableError,
    known_nodes,
    read_nodes,
    vocabulary_id_of,
    write_nodes,
)
from serendipity.offline.interests.summary import INTEREST_VECTORS, InterestsSummary
from serendipity.offline.interests.taxonomy import KnownNode, Taxonomy
from serendipity.offline.interests.vocabulary import Vocabulary, VocabularyError, grounding_nodes
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.v1 import records_pb2

REASONER = records_pb2.NODE_ORIGIN_REASONER
GRINDERS = KnownNode(("food", "coffee", "grinders"), REASONER, ("coffee mills",))


class LettersEncoder:
    """Counts letters: an encoder whose answers can be told without weights."""

    name, dim = "letters", 26

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def write_interests(directory: Path, taxonomy: Taxonomy, vocabulary_id: str = "", threshold: float = 0.7) -> None:
    directory.mkdir(exist_ok=True)
    vocabulary_id = vocabulary_id or vocabulary_id_of(taxonomy.nodes)
    write_nodes(directory, taxonomy, vocabulary_id)
    np.save(directory / INTEREST_VECTORS, LettersEncoder().encode(taxonomy.texts))
    InterestsSummary(
        taxonomy_hash=taxonomy.hash,
        vocabulary_id=vocabulary_id,
        grounding_threshold=threshold,
        reasoner="taxonomy",
        encoder="letters",
        interest_dim=26,
        novelty_level=taxonomy.novelty_level,
        generated_at=1,
        num_nodes=len(taxonomy),
        num_reasoner_nodes=0,
        num_users=0,
        num_interests=0,
    ).write(directory)


def test_a_node_of_a_reasoner_has_the_items_of_its_parent(shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop, [*Taxonomy.from_catalogue(shop).known, GRINDERS])
    grinders = taxonomy.nodes[-1]
    coffee = taxonomy.nodes[grinders.parent]
    assert (coffee.name, grinders.name) == ("coffee", "grinders")
    assert (grinders.ranges, grinders.categories) == (coffee.ranges, coffee.categories)
    assert grinders.node_id in coffee.children
    assert not grinders.of_catalogue
    assert grinders.aliases == ("coffee mills",)


def test_nodes_of_reasoners_leave_the_taxonomy_hash_alone(shop: Catalogue) -> None:
    plain = Taxonomy.from_catalogue(shop)
    grown = Taxonomy.from_catalogue(shop, [*plain.known, GRINDERS])
    assert grown.hash == plain.hash
    assert len(grown) == len(plain) + 1


def test_what_a_reasoner_named_becomes_the_catalogues_when_the_host_lists_it(
    shop: Catalogue, catalogue_of: Callable[..., Catalogue]
) -> None:
    known = [*Taxonomy.from_catalogue(shop).known, GRINDERS]
    items = dict(zip(shop.item_ids, shop.paths, strict=True)) | {"mill": GRINDERS.path}
    later = Taxonomy.from_catalogue(catalogue_of(items), known)
    node = later.nodes[len(known) - 1]
    assert (node.path, node.of_catalogue) == (GRINDERS.path, True)
    assert [row for start, end in node.ranges for row in range(start, end)] == [
        catalogue_of(items).item_ids.index("mill")
    ]
    # It stays so when the item is gone again.
    assert Taxonomy.from_catalogue(shop, later.known).nodes[node.node_id].of_catalogue


def test_the_table_gives_back_what_was_written(tmp_path: Path, shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop, [*Taxonomy.from_catalogue(shop).known, GRINDERS])
    assert read_nodes(tmp_path) is None
    assert known_nodes(tmp_path) == []
    write_nodes(tmp_path, taxonomy, "0123456789abcdef")
    table = read_nodes(tmp_path)
    assert table is not None
    assert (table.vocabulary_id, table.nodes) == ("0123456789abcdef", taxonomy.nodes)
    assert known_nodes(tmp_path) == taxonomy.known


def test_stored_nodes_must_be_numbered_without_gaps(tmp_path: Path) -> None:
    file = tmp_path / "nodes.parquet"
    columns = "['a'] AS path, NULL::UINTEGER AS parent, 1 AS origin, "
    columns += ", ".join(f"[] AS {name}" for name in ("starts", "ends", "categories", "aliases"))
    duckdb.sql(f"COPY (SELECT 1 AS node_id, {columns}) TO '{file}'")
    with pytest.raises(NodeTableError, match=r"nodes.parquet: node ids are not 0 … 0"):
        read_nodes(tmp_path)
    duckdb.sql(f"COPY (SELECT 0 AS node_id, {columns}) TO '{file}'")
    with pytest.raises(NodeTableError, match=r"nodes\.parquet: vocabulary_id: found none"):
        read_nodes(tmp_path)
    file.write_bytes(b"nothing")
    with pytest.raises(NodeTableError, match="cannot be read"):
        read_nodes(tmp_path)


def test_names_aliases_and_likenesses_ground_in_the_stored_vocabulary(tmp_path: Path, shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop, [*Taxonomy.from_catalogue(shop).known, GRINDERS])
    write_interests(tmp_path, taxonomy)
    vocabulary = Vocabulary.read(tmp_path)
    assert vocabulary.nodes == taxonomy.nodes
    assert vocabulary.categories == taxonomy.categories
    grounder = Vocabulary.read(tmp_path).grounder(LettersEncoder())
    assert grounder.threshold == 0.7
    found = grounder.ground(
        [Proposal("", "", interest, "") for interest in ("Grinders", "coffee mills", "food coffee grinder", "zzz")]
    )
    assert [(g.node.name, g.method) if g else None for g in found] == [
        ("grinders", Method.EXACT),
        ("grinders", Method.ALIAS),
        ("grinders", Method.ENCODER),
        None,
    ]


def test_only_nodes_with_items_of_one_category_ground(tmp_path: Path, shop: Catalogue) -> None:
    write_interests(tmp_path, Taxonomy.from_catalogue(shop))
    nodes = grounding_nodes(Vocabulary.read(tmp_path).nodes)
    assert ("food",) not in [node.path for node in nodes]
    assert next(node for node in nodes if node.path == ("food", "coffee")).num_items == 3


def test_another_encoder_or_another_vocabularys_files_are_refused(tmp_path: Path, shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    with pytest.raises(VocabularyError, match="holds no nodes"):
        Vocabulary.read(tmp_path)
    write_interests(tmp_path, taxonomy)
    other = LettersEncoder()
    other.name = "other"
    with pytest.raises(VocabularyError, match="text encoder: found 'other', expected 'letters'"):
        Vocabulary.read(tmp_path).grounder(other)
    summary = tmp_path / "interests.json"
    written = summary.read_text()
    summary.write_text('{"reasoner": "taxonomy"}')
    with pytest.raises(VocabularyError, match=r"interests.json: cannot be read .* build the interests anew"):
        Vocabulary.read(tmp_path)
    summary.write_text(written)
    write_nodes(tmp_path, taxonomy, "f" * 16)
    with pytest.raises(VocabularyError, match=r"expected .* of ffffffffffffffff"):
        Vocabulary.read(tmp_path)
