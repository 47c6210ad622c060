from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.builder import build_interests
from serendipity.offline.interests.node_table import known_nodes
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.schema import LogsConfig

DAY = 86_400
START = 1_400_000_000


class LettersEncoder(TextEncoder):
    """Counts letters: an encoder whose answers can be told without weights."""

    def __init__(self) -> None:
        self.name, self.dim = "letters", 26

    def encode(self, texts: Sequence[str], cache: Path | None = None) -> NDArray[np.float32]:
        counts = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def write_host(host: Path, extra: str = "") -> None:
    host.mkdir(exist_ok=True)
    items = "('rye', ['food', 'bread']), ('mocca', ['food', 'coffee']), ('saw', ['tools', 'saws'])" + extra
    duckdb.sql(f"COPY (SELECT *, item_id AS title FROM (VALUES {items}) t(item_id, path)) TO '{host}/items.parquet'")
    duckdb.sql(
        f"COPY (SELECT 'u' || (n % 40) AS user_id, ['rye', 'mocca', 'rye', 'saw'][1 + n % 4] AS item_id, "
        f"'click' AS event, {START} + n * {DAY} // 4 AS timestamp FROM range(1200) t(n)) TO '{host}/events.parquet'"
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_host(tmp_path / "host")
    build_logs(tmp_path / "host", tmp_path / "out" / "logs", LogsConfig(novelty_level=1))
    return tmp_path / "out"


def test_users_nodes_vectors_and_paths_belong_together(out: Path) -> None:
    summary = build_interests(out / "logs", out / "interests", LettersEncoder())
    assert summary == InterestsSummary.read(out / "interests")
    taxonomy = Taxonomy.from_catalogue(Catalogue.read(out))
    assert (summary.taxonomy_hash, summary.num_users) == (taxonomy.hash, 40)
    nodes = duckdb.sql(f"SELECT node_id, name, parent, starts, ends FROM '{out}/interests/nodes.parquet'").fetchall()
    assert nodes == [
        (0, "food", None, [0], [2]),
        (1, "bread", 0, [0], [1]),
        (2, "coffee", 0, [1], [2]),
        (3, "tools", None, [2], [3]),
        (4, "saws", 3, [2], [3]),
    ]
    vectors = np.load(out / "interests" / "interest_vectors.npy")
    assert vectors.tolist() == LettersEncoder().encode(taxonomy.texts).tolist()
    rows = duckdb.sql(
        f"SELECT user_id, node_ids, weights, latent_interests, scores FROM '{out}/interests/interests.parquet' "
        f"JOIN '{out}/interests/paths.parquet' USING (user_id)"
    ).fetchall()
    assert len(rows) == 40
    for _, node_ids, weights, latent_interests, scores in rows:
        assert [taxonomy.nodes[node_id].name for node_id in node_ids] == latent_interests
        assert weights == scores == sorted(weights, reverse=True)


def test_the_unknown_user_has_interests_of_the_population(out: Path) -> None:
    build_interests(out / "logs", out / "interests", LettersEncoder(), k=2)
    cold = duckdb.sql(
        f"SELECT seed_kinds, latent_interests FROM '{out}/interests/paths.parquet' WHERE user_id IS NULL"
    ).fetchall()
    # The file order of bread, coffee and saws is not that of their popularity.
    assert cold == [([4, 4], ["bread", "coffee"])]


def test_node_ids_of_an_earlier_build_are_kept(out: Path) -> None:
    build_interests(out / "logs", out / "interests", LettersEncoder())
    before = [node.path for node in known_nodes(out / "interests")]
    write_host(out.parent / "host", ", ('bun', ['bakery', 'buns'])")
    build_logs(out.parent / "host", out / "logs", LogsConfig(novelty_level=1))
    build_interests(out / "logs", out / "interests", LettersEncoder())
    after = [node.path for node in known_nodes(out / "interests")]
    assert after[: len(before)] == before
    assert after[len(before) :] == [("bakery",), ("bakery", "buns")]
    assert len(np.load(out / "interests" / "interest_vectors.npy")) == len(after)


def test_a_rebuild_writes_the_same(out: Path) -> None:
    first, second = (build_interests(out / "logs", out / name, LettersEncoder()) for name in ("interests", "again"))
    assert first == second
    for file in ("nodes.parquet", "interests.parquet", "paths.parquet", "interest_vectors.npy"):
        assert (out / "interests" / file).read_bytes() == (out / "again" / file).read_bytes()
    assert not list((out / "interests").glob(".*"))


def test_the_vocabulary_id_is_that_of_the_first_build_and_the_same_for_the_same_catalogue(out: Path) -> None:
    first = build_interests(out / "logs", out / "interests", LettersEncoder())
    again = build_interests(out / "logs", out / "again", LettersEncoder())
    assert first.vocabulary_id == again.vocabulary_id
    write_host(out.parent / "host", ", ('bun', ['bakery', 'buns'])")
    build_logs(out.parent / "host", out / "logs", LogsConfig(novelty_level=1))
    grown = build_interests(out / "logs", out / "interests", LettersEncoder())
    anew = build_interests(out / "logs", out / "anew", LettersEncoder())
    assert grown.vocabulary_id == first.vocabulary_id != anew.vocabulary_id
    assert grown.taxonomy_hash != first.taxonomy_hash
