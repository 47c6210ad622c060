from pathlib import Path

import pytest

from benchmarks.graph.author_files import read_author_files
from serendipity.offline.graph.interest_graph import GraphError

FILES = {
    "user_list.txt": "org_id remap_id\na 0\nb 1\n",
    "item_list.txt": "org_id remap_id entity_name\nx 0 X\ny 1 Y\nz 2 Z\n",
    "entity_list.txt": "org_id remap_id\nX 0\nY 1\nZ 2\nP 3\n",
    "relation_list.txt": "org_id remap_id\nby 0\n",
    "train.txt": "0 0 1\n1 1\n",
    "test.txt": "0 2\n1\n",
    "kg_final.txt": "0 0 3\n1 0 3\n",
    "user_interest_clustered.txt": "0 4\n1 6\n",
}


def write(folder: Path, **changed: str) -> Path:
    for name, text in FILES.items():
        (folder / name).write_text(changed.get(name.removesuffix(".txt"), text))
    return folder


def test_files_become_a_graph_with_interests_numbered_from_zero(tmp_path: Path) -> None:
    data = read_author_files(write(tmp_path))
    graph = data.graph
    assert (graph.num_users, graph.num_items, graph.num_entities, graph.num_interests) == (2, 3, 1, 3)
    assert graph.clicks.T.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert graph.holds.T.tolist() == [[0, 0], [1, 2]]
    assert graph.knowledge.T.tolist() == [[0, 0, 3], [1, 0, 3]]
    assert data.test.T.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train", "0 0\n1 x\n", "train.txt, line 2: found '1 x', expected whole numbers"),
        ("train", "0 0\n\n2 1\n", "train.txt, line 3: found user 2, expected one of 0 to 1"),
        ("test", "0 3\n", "test.txt, line 1: found item 3, expected one of 0 to 2"),
        ("kg_final", "0 0 3\n1 0\n", "kg_final.txt, line 2: found 2 numbers, expected 3: head, relation, tail"),
        ("kg_final", "0 1 3\n", "kg_final.txt, line 1: found relation 1, expected one of 0 to 0"),
        ("user_interest_clustered", "0 3\n",
         "user_interest_clustered.txt, line 1: found interest 3, expected one of 4 or "
         "more"),
        ("entity_list", "org_id remap_id\nX 0\n",
         "entity_list.txt: found 1 entities, expected at least the 3 of "
         "item_list.txt"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        read_author_files(write(tmp_path, **{name: text}))
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "kg_final.txt").unlink()
    with pytest.raises(GraphError, match=r"kg_final.txt: cannot be read \(No such file or directory\)"):
        read_author_files(tmp_path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"0 \xff\n")
    with pytest.raises(GraphError, match=r"train.txt: found bytes that are not UTF-8"):
        read_author_files(tmp_path)
