"""`serendip coevolve` on a build: what is in place is whole at any moment, and the next build takes it up."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from serendipity.channel.state.erasure import ErasureList
from serendipity.groups.model import read_coevolution_spec
from serendipity.offline.coevolution.lists import read_lists
from serendipity.tools import coevolution
from tests.fixtures.small_coevolution import run_small_step

REPOSITORY = Path(__file__).parents[2]

_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from serendipity.offline.coevolution import loop
from tests.tools.test_coevolution import main

run_cycle = loop.run_cycle

def run_until_the_third(llms, records, renderer, config, cycle, **rest):
    if cycle == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_cycle(llms, records, renderer, config, cycle, **rest)

loop.run_cycle = run_until_the_third
main(*sys.argv[2:])
"""


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    coevolution.add_arguments(parser)
    return coevolution.run(parser.parse_args(arguments))


@pytest.fixture
def build(small_coevolution: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_coevolution, tmp_path / "build")


def rewrite(table: Path, query: str) -> None:
    """Replace a Parquet table by what a query that begins at its rows gives."""
    beside = table.with_suffix(".new")
    duckdb.execute(f"COPY (FROM read_parquet('{table}') {query}) TO '{beside}' (FORMAT parquet)")
    beside.replace(table)


def test_the_next_build_takes_up_what_the_loop_came_to(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = read_coevolution_spec(build / "coevolution")
    assert not run_small_step(build).ran
    assert main("--build", str(build), "--dataset", str(build / "host")) == 0
    said = " ".join(capsys.readouterr().out.split())
    spec = read_coevolution_spec(build / "coevolution")
    assert (first.generation, spec.generation) == (1, 2)
    assert spec.novelty_fingerprint != first.novelty_fingerprint
    assert {made.generation for made in read_lists(build / "coevolution")} == {2}
    assert f"Novelty LLM {spec.novelty_model_name}" in said
    again = run_small_step(build)
    assert not again.ran
    assert again.numbers["cycles"] == 2
    assert read_coevolution_spec(build / "coevolution") == spec
    assert not list(build.glob(".coevolution*"))


def test_killed_half_way_the_former_result_serves_and_the_same_command_comes_to_its_end(build: Path) -> None:
    before = read_coevolution_spec(build / "coevolution")
    arguments = ["--build", str(build), "--dataset", str(build / "host"), "--cycles", "2"]
    process = subprocess.run(
        [sys.executable, "-c", _KILLED, str(REPOSITORY), *arguments], stdout=subprocess.DEVNULL, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert read_coevolution_spec(build / "coevolution") == before
    assert {made.generation for made in read_lists(build / "coevolution")} == {1}
    assert not run_small_step(build).ran

    assert main(*arguments) == 0
    assert read_coevolution_spec(build / "coevolution").generation == 3
    assert {made.generation for made in read_lists(build / "coevolution")} == {3}


@pytest.mark.parametrize("listed", ["by the build's service", "as the option says"])
def test_of_users_to_be_forgotten_new_logs_teach_nothing(
    build: Path, tmp_path: Path, listed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for table in ("events", "users"):
        renamed = "CASE WHEN user_id < 'u0038' THEN user_id ELSE 'z-' || user_id END"
        rewrite(build / "host" / f"{table}.parquet", f"SELECT * REPLACE ({renamed} AS user_id)")
    without = shutil.copytree(build, tmp_path / "without")
    for table in ("events", "users"):
        rewrite(without / "host" / f"{table}.parquet", "WHERE user_id < 'u0038'")
    events = [duckdb.read_parquet(str(root / "host" / "events.parquet")).shape[0] for root in (build, without)]
    given = listed == "as the option says"
    directory = tmp_path / "list" if given else build / "state" / "erasures"
    with ErasureList(directory) as erasures:
        for user_id in ("z-u0038", "z-u0039", "z-u0040"):
            erasures.add(user_id)
    for root, more in ((build, ["--erasures", str(directory)] if given else []), (without, [])):
        assert main("--build", str(root), "--dataset", str(root / "host"), *more) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"left out: {events[0] - events[1]:,} events of 2 users to be forgotten" in said
    assert "left out: 0 events of 0 users to be forgotten" in said
    assert read_coevolution_spec(build / "coevolution") == read_coevolution_spec(without / "coevolution")
    assert read_lists(build / "coevolution") == read_lists(without / "coevolution")


@pytest.mark.parametrize("listed", ["by the build's service", "as the option says"])
def test_a_build_that_holds_users_to_be_forgotten_comes_first(
    build: Path, tmp_path: Path, listed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_coevolution_spec(build / "coevolution")
    given = listed == "as the option says"
    directory = tmp_path / "list" if given else build / "state" / "erasures"
    with ErasureList(directory) as erasures:
        erasures.add("u0001")
    option = ["--erasures", str(directory)] if given else []
    assert main("--build", str(build), *option) == 1
    said = capsys.readouterr().err
    assert "found 1 users of the erasure list, expected none" in said
    assert f"`{' '.join(['serendip build --out', str(build), *option])}`" in said
    assert read_coevolution_spec(build / "coevolution") == before


@pytest.mark.parametrize("what", ["no events", "no list", "not a build's"])
def test_what_cannot_be_used_is_named(build: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {
        "no events": ["--build", str(build), "--dataset", str(build / "groups")],
        "no list": ["--build", str(build), "--erasures", str(build / "nowhere")],
        "not a build's": ["--build", str(build)],
    }
    expected = {
        "no events": "groups/items: missing",
        "no list": "expected an erasure list",
        "not a build's": "found nothing that a build made",
    }
    if what == "not a build's":
        (build / "coevolution" / ".stamp.json").unlink()
    assert main(*arguments[what]) == 1
    assert expected[what] in capsys.readouterr().err
