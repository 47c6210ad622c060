import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.builder import build_interests, llm_reasoner
from serendipity.offline.interests.clusters import ClustersConfig
from serendipity.offline.interests.config import InterestsConfig, LlmReasonerConfig
from serendipity.offline.interests.graph_table import read_graph
from serendipity.offline.interests.interest_table import read_interests
from serendipity.offline.interests.node_table import known_nodes
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.language_models.config import LocalConfig
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.shopkeeper import Shopkeeper
from tests.fixtures.small_shop import encode
from tests.offline.interests.conftest import SHOP

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
    found = read_interests(out / "interests")
    assert len(found) == 41
    for interests in found.values():
        assert all(taxonomy.nodes[some.node_id].name == some.path.latent_interest for some in interests)
        weights = [some.weight for some in interests]
        assert weights == [some.path.score for some in interests] == sorted(weights, reverse=True)


def test_the_unknown_user_has_interests_of_the_population(out: Path) -> None:
    build_interests(out / "logs", out / "interests", LettersEncoder(), k=2)
    cold = read_interests(out / "interests")[None]
    # The file order of bread, coffee and saws is not that of their popularity.
    assert [(some.path.seed_kind, some.path.latent_interest) for some in cold] == [(4, "bread"), (4, "coffee")]


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
    for file in ("nodes.parquet", "interests.parquet", "interest_vectors.npy"):
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


class TrigramEncoder(TextEncoder):
    """Texts are alike when they share letters in a row."""

    def __init__(self) -> None:
        self.name, self.dim = "trigrams", 512

    def encode(self, texts: Sequence[str], cache: Path | None = None) -> NDArray[np.float32]:
        return encode(texts)


WITH_MODELS = LlmReasonerConfig(models=(LocalConfig(path=Path("model")),))
LIKE = InterestsConfig(
    reasoner=WITH_MODELS, grounding_threshold=0.4, clusters=ClustersConfig(min_users=10, same_meaning=0.75)
)


@pytest.fixture
def shop_logs(tmp_path: Path) -> Path:
    host = tmp_path / "shop"
    host.mkdir()
    items = ", ".join(f"('{item}', {list(path)})" for item, path in SHOP.items())
    duckdb.sql(f"COPY (SELECT *, item_id AS title FROM (VALUES {items}) t(item_id, path)) TO '{host}/items.parquet'")
    duckdb.sql(
        f"COPY (SELECT 'u' || (n % 20) AS user_id, ['espresso-1', 'filter-1', 'drill-1'][1 + n % 3] AS item_id, "
        f"'click' AS event, {START} + n * {DAY} // 4 AS timestamp FROM range(600) t(n)) TO '{host}/events.parquet'"
    )
    build_logs(host, tmp_path / "logs", LogsConfig(novelty_level=1))
    return tmp_path / "logs"


def test_what_a_language_model_names_becomes_a_node_that_users_share(shop_logs: Path, tmp_path: Path) -> None:
    out, encoder = tmp_path / "interests", TrigramEncoder()
    shopkeeper = Shopkeeper(own=[("rye bread loaves", "bread")])
    make_reasoner = llm_reasoner(WITH_MODELS, [shopkeeper], encoder)
    summary = build_interests(shop_logs, out, encoder, LIKE, make_reasoner=make_reasoner)
    vocabulary = Vocabulary.read(out)
    node = vocabulary.nodes[-1]
    assert (node.path, node.of_catalogue) == (("food", "bread", "rye", "rye bread loaves"), False)
    assert (summary.num_reasoner_nodes, summary.reasoner) == (1, "shopkeeper two-hop 1 × 1")
    assert summary.taxonomy_hash == Taxonomy.from_catalogue(Catalogue.read(shop_logs)).hash
    assert np.array_equal(vocabulary.vectors[-1], encode([node.text])[0])
    found = read_interests(out)
    assert sum(node.node_id in [some.node_id for some in found[user_id]] for user_id in found if user_id) == 20
    # Users of whom nothing is known are answered for by the taxonomy.
    assert found[None]
    grounded = {n.text: n.interest_node for n in read_graph(out, "u7").interests}
    assert grounded["rye bread loaves"] == node.node_id
    # What is called as a node is stays there.
    assert vocabulary.nodes[grounded["green tea"]].path == ("food", "tea", "green tea")


def test_a_reasoners_nodes_stay_when_another_reasoner_builds(shop_logs: Path, tmp_path: Path) -> None:
    out, encoder = tmp_path / "interests", TrigramEncoder()
    shopkeeper = Shopkeeper(own=[("rye bread loaves", "bread")])
    first = build_interests(
        shop_logs, out, encoder, LIKE, make_reasoner=llm_reasoner(WITH_MODELS, [shopkeeper], encoder)
    )
    nodes = Vocabulary.read(out).nodes
    second = build_interests(shop_logs, out, encoder)
    assert Vocabulary.read(out).nodes == nodes
    assert second.reasoner == "taxonomy"
    assert (second.vocabulary_id, second.num_reasoner_nodes) == (first.vocabulary_id, 1)
    # Made anew without that node, ids mean something else.
    assert build_interests(shop_logs, tmp_path / "anew", encoder).vocabulary_id != first.vocabulary_id


def test_the_grounding_threshold_is_tuned_unless_it_is_given(shop_logs: Path, tmp_path: Path) -> None:
    out, encoder = tmp_path / "interests", TrigramEncoder()
    tuned = build_interests(shop_logs, out, encoder)
    report = json.loads((out / "threshold.json").read_text())
    assert tuned.grounding_threshold == report["threshold"] == Vocabulary.read(out).grounder(encoder).threshold
    given = build_interests(shop_logs, out, encoder, InterestsConfig(grounding_threshold=0.9))
    assert given.grounding_threshold == 0.9
    assert not (out / "threshold.json").exists()


def test_every_user_with_interests_has_a_graph(shop_logs: Path, tmp_path: Path) -> None:
    build_interests(shop_logs, tmp_path / "interests", TrigramEncoder())
    for user_id, interests in read_interests(tmp_path / "interests").items():
        if user_id is not None:
            graph = read_graph(tmp_path / "interests", user_id)
            assert [node.text for node in graph.interests] == [some.path.latent_interest for some in interests]
