from pathlib import Path

import pytest

from serendipity.offline.datasets.movielens import ML_100K
from serendipity.offline.graph.interest_graph import GraphError
from serendipity.offline.graph.item_knowledge import read_recbole_knowledge


def write(folder: Path, kg: str, link: str) -> tuple[Path, Path]:
    paths = folder / "x.kg", folder / "x.link"
    paths[0].write_text("head_id:token\trelation_id:token\ttail_id:token\n" + kg)
    paths[1].write_text("item_id:token\tentity_id:token\n" + link)
    return paths


def test_linked_entities_become_rows_of_the_catalogue(tmp_path: Path) -> None:
    kg, link = write(tmp_path, "m1\tby\tp\np\twrote\tm2\nm3\tby\tp\n", "7\tm2\n5\tm1\n9\tm3\n")
    found = read_recbole_knowledge(kg, link, ["5", "6", "7"])
    # Item 9 is not in the catalogue, so that m3 is an entity like p.
    assert found.entities == ("p", "m3")
    assert found.relations == ("by", "wrote")
    assert found.triples.T.tolist() == [[0, 0, 3], [3, 1, 2], [4, 0, 3]]


@pytest.mark.parametrize(
    ("kg", "link", "message"),
    [
        ("m1\tby\n", "5\tm1\n", "x.kg, line 2: found 'm1\\tby', expected head, relation, tail parted by tabs"),
        ("m1\tby\tp\n", "5 m1\n", "x.link, line 2: found '5 m1', expected item, entity parted by tabs"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, kg: str, link: str, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        read_recbole_knowledge(*write(tmp_path, kg, link), ["5"])
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"x.link: cannot be read \(No such file or directory\)"):
        read_recbole_knowledge(tmp_path / "x.kg", tmp_path / "x.link", [])


@pytest.mark.data
def test_the_films_of_ml_100k_are_known() -> None:
    folder = ML_100K.locate()
    item_ids = [str(number) for number in range(1, 1683)]
    found = read_recbole_knowledge(folder / "ml-100k.kg", folder / "ml-100k.link", item_ids)
    assert found.triples.shape[1] == 91_631
    assert len(found.relations) == 24
    known = set(found.triples[[0, 2]].reshape(-1).tolist()) & set(range(len(item_ids)))
    assert len(known) > 1_500
