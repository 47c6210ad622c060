from collections.abc import Callable
from pathlib import Path

import pytest

from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.schema import LogsConfig

ITEMS = [
    ("10", ("food", "bread", "rye")),
    ("9", ("food", "bread", "rye")),
    ("é", ("food", "apples")),
    ("b", ("bakery", "bread", "rye")),
    ("none", ("misc",)),
    ("x" * 512, ("tools", "saws")),
]


@pytest.fixture
def catalogue(write_host: Callable[..., Path], tmp_path: Path) -> Catalogue:
    build_logs(write_host(items=ITEMS), tmp_path / "out" / "logs", LogsConfig(novelty_level=1), 0)
    return Catalogue.read(tmp_path / "out")


def test_rows_are_sorted_by_category_name_then_path_then_item(catalogue: Catalogue) -> None:
    assert catalogue.item_ids == ["é", "b", "10", "9", "x" * 512, "none"]
    assert catalogue.categories == ["apples", "bread", "saws"]
    assert catalogue.item_categories.tolist() == [1, 2, 2, 2, 3, 0]
    assert catalogue.category_offsets.tolist() == [0, 1, 4, 5]


def test_a_category_name_of_two_parents_is_one_category(catalogue: Catalogue) -> None:
    start, end = catalogue.category_offsets[1:3]
    assert {path[0] for path in catalogue.paths[start:end]} == {"bakery", "food"}


def test_every_item_lies_in_its_categorys_rows(catalogue: Catalogue) -> None:
    for row, number in enumerate(catalogue.item_categories):
        inside = (catalogue.category_offsets[:-1] <= row) & (row < catalogue.category_offsets[1:])
        assert inside.tolist() == [number == index + 1 for index in range(len(catalogue.categories))]


def test_optional_columns_have_their_defaults(catalogue: Catalogue) -> None:
    assert catalogue.prices.dtype == "float32"
    assert all(price != price for price in catalogue.prices)
    assert catalogue.available.all()


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"catalogue.parquet: missing"):
        Catalogue.read(tmp_path)
