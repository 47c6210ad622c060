"""`serendip coevolve` on a build: what is in place is whole at any moment, and the next build takes it up."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serendipity.channel.feedback import FeedbackStore
from serendipity.groups.model import read_coevolution_spec
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.tools import coevolution
from serendipity.v1 import channel_pb2
from tests.fixtures.small_coevolution import CUT, run_small_step

REPOSITORY = Path(__file__).parents[2]

_COEVOLVE = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.tools.test_coevolution import main
main(*sys.argv[2:])
"""


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    coevolution.add_arguments(parser)
    return coevolution.run(parser.parse_args(arguments))


@pytest.fixture
def build(small_coevolution: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_coevolution, tmp_path / "build")


def test_the_next_build_takes_up_what_the_loop_came_to(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = read_coevolution_spec(build / "coevolution")
    assert not run_small_step(build).ran
    assert main("--build", str(build), "--logs", str(build / "today")) == 0
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
    assert not list((build / "coevolution").glob(".work-*"))
    assert not list(build.glob(".coevolution*"))


def test_killed_half_way_the_former_result_serves_and_the_same_command_goes_on(
    build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_coevolution_spec(build / "coevolution")
    arguments = ["--build", str(build), "--logs", str(build / "today"), "--cycles", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", _COEVOLVE, str(REPOSITORY), *arguments], stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not list(build.glob(".coevolution.*/.work-*/cycles/cycle_0002/report.json")):
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert read_coevolution_spec(build / "coevolution") == before
    assert {made.generation for made in read_lists(build / "coevolution")} == {1}
    assert not run_small_step(build).ran

    assert main(*arguments) == 0
    said = capsys.readouterr().out
    assert "cycle 3: records" in said
    assert "cycle 2: records" not in said
    assert read_coevolution_spec(build / "coevolution").generation == 3
    assert {made.generation for made in read_lists(build / "coevolution")} == {3}


def test_clicks_a_service_recorded_are_learned_from(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = Catalogue.read(build / "logs").item_ids[0]
    events = [
        channel_pb2.FeedbackEvent(event_id=f"e{n}", user_id=f"u{n:04}", item_id=item, type="EVENT_TYPE_CLICK")
        for n in range(3)
    ]
    for event in events:
        event.time.seconds = CUT + 60
    with FeedbackStore(build / "state" / "feedback", clock=lambda: float(CUT + 100)) as store:
        store.record([*events, channel_pb2.FeedbackEvent(event_id="e9", user_id="u0009", type="EVENT_TYPE_SEARCH")])
    assert main("--build", str(build), "--feedback", str(build / "state" / "feedback")) == 0
    assert "feedback: 3 clicks, 0 exposures; left out: nothing" in " ".join(capsys.readouterr().out.split())
    assert read_coevolution_spec(build / "coevolution").generation == 2


@pytest.mark.parametrize("what", ["no build", "no cycles", "no feedback", "not a build's"])
def test_what_cannot_be_used_is_named(build: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {
        "no build": ["--build", str(build / "nowhere")],
        "no cycles": ["--build", str(build), "--cycles", "0"],
        "no feedback": ["--build", str(build), "--feedback", str(build / "state")],
        "not a build's": ["--build", str(build)],
    }
    expected = {
        "no build": "nowhere/logs",
        "no cycles": "--cycles: found 0, expected at least 1",
        "no feedback": "expected a feedback store",
        "not a build's": "found nothing that a build made",
    }
    if what == "not a build's":
        (build / "coevolution" / ".stamp.json").unlink()
    assert main(*arguments[what]) == 1
    assert expected[what] in capsys.readouterr().err
