import json
from pathlib import Path

import duckdb
import numpy as np
import pytest

from serendipity.groups.model import GROUP_ENCODER, GroupModelError, read_group_spec
from serendipity.offline.groups import directory
from serendipity.offline.groups.builder import write_assignments
from serendipity.offline.groups.group_model import Assignment, GroupModel
from tests.offline.groups.shoppers import draw_histories


@pytest.fixture
def written(group_model: GroupModel, tmp_path: Path) -> Path:
    group_model.write(tmp_path)
    return tmp_path


def test_a_model_that_was_written_answers_as_before(group_model: GroupModel, written: Path) -> None:
    histories = draw_histories()
    read = GroupModel.read(written)
    assert read.spec == group_model.spec == read_group_spec(written)
    assert read.profiles == group_model.profiles
    assert read.report == group_model.report
    assert np.array_equal(read.vectors(histories), group_model.vectors(histories))
    assert np.array_equal(read.click_groups(histories), group_model.click_groups(histories))


def test_another_program_than_the_specs_is_refused(written: Path) -> None:
    (written / GROUP_ENCODER).write_bytes(b"other")
    with pytest.raises(GroupModelError, match=r"groups\.json: group_model_id"):
        GroupModel.read(written)


@pytest.mark.parametrize("name", [directory.CONFIG, directory.PROFILES, directory.REPORT])
def test_a_file_that_is_missing_or_torn_is_named(written: Path, name: str) -> None:
    (written / name).write_text("{")
    with pytest.raises(GroupModelError, match=f"{name}: cannot be read"):
        GroupModel.read(written)
    (written / name).unlink()
    with pytest.raises(GroupModelError, match=f"{name}: cannot be read"):
        GroupModel.read(written)


def test_a_configuration_with_fields_of_an_earlier_version_is_read(group_model: GroupModel, written: Path) -> None:
    recorded = json.loads((written / directory.CONFIG).read_text())
    recorded["max_batch"], recorded["interest"]["dropout"] = 256, 0.0
    (written / directory.CONFIG).write_text(json.dumps(recorded))
    assert GroupModel.read(written).config == group_model.config


def test_profiles_of_other_groups_are_refused(written: Path) -> None:
    path = written / directory.PROFILES
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    with pytest.raises(GroupModelError, match=r"profiles\.json: found \d+ groups, expected \d+"):
        GroupModel.read(written)


def test_users_of_the_default_group_have_no_csid(tmp_path: Path) -> None:
    path = tmp_path / directory.ASSIGNMENTS
    assignment = Assignment(np.array([[1, 2], [-1, -1]], np.int32), np.array([3, 0], np.int32))
    write_assignments(path, ["a", "b"], assignment)
    assert duckdb.sql(f"SELECT * FROM '{path}' ORDER BY user_id").fetchall() == [("a", [1, 2], 3), ("b", [], 0)]
