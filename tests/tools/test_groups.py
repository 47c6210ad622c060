import argparse
from pathlib import Path

import duckdb
import pytest

from serendipity.groups.model import read_group_spec
from serendipity.offline.groups.builder import build_groups
from serendipity.offline.groups.config import GroupsConfig, InterestConfig, QuantizerConfig, SequenceConfig
from serendipity.offline.groups.directory import ASSIGNMENTS, read_groups
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.tools import groups
from serendipity.tools.groups import users_of
from tests.fixtures.small_host import NUM_DAYS, START, write_small_host

CONFIG = GroupsConfig(
    sequence=SequenceConfig(min_clicks=3),
    interest=InterestConfig(dim=8, window=4, epochs=1, validation_users=5),
    quantizer=QuantizerConfig(codebook_size=4, num_quantizers=2, latent_dim=4, hidden_dim=8, epochs=2),
    num_groups=4,
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("build")
    write_small_host(root / "host", num_users=40, num_items=60)
    build_logs(root / "host", root / "logs", LogsConfig(novelty_level=1), now=START + NUM_DAYS * 86_400)
    build_groups(root / "logs", root / "groups", CONFIG)
    return root


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    groups.add_arguments(parser)
    return groups.run(parser.parse_args(arguments))


def test_every_user_is_in_a_group(build: Path) -> None:
    spec = read_group_spec(build / "groups")
    path = str(build / "groups" / ASSIGNMENTS)
    users, largest = duckdb.sql(f"SELECT count(*), max(group_id) FROM '{path}'").fetchall()[0]
    assert users == 40
    assert 1 <= largest <= spec.num_groups
    assert [field.name for field in spec.profile_fields] == ["age"]


def test_a_group_is_shown_with_its_profile_and_users(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("show", "1", "--build", str(build)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    group = read_groups(build / "groups")[1]
    assert f"group 1: {group.users} users" in shown
    assert f"profile: {group.profile}" in shown
    for user_id, csid in users_of(build / "groups", 1):
        assert f"{user_id} {csid[0]}-{csid[1]}" in shown


def test_the_default_group_is_shown_too(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("show", "0", "--build", str(build)) == 0
    assert "default group: 0 users" in capsys.readouterr().out


def test_the_report_tells_what_the_groups_are_worth(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("report", "--build", str(build)) == 0
    shown = capsys.readouterr().out
    for name in ('"counted"', '"reconstruction_error"', '"csids"', '"perplexity"', '"hit_rate"'):
        assert name in shown


def test_a_group_that_is_not_there_is_named(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("show", "99", "--build", str(build)) == 1
    assert "serendip groups: group 99: expected 0 to " in capsys.readouterr().err


def test_a_build_without_groups_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("report", "--build", str(tmp_path)) == 1
    assert "groups.json: cannot be read" in capsys.readouterr().err
