"""`serendip coevolve` on a build: what is in place is whole at any moment, and the next build takes it up."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.groups.model import read_coevolution_spec
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.tools import coevolution
from serendipity.v1 import channel_pb2
from tests.fixtures.small_coevolution import CUT, run_small_step

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


_RENAMED = 'SELECT * REPLACE (CASE WHEN "user" < 38 THEN user_id ELSE \'z-\' || user_id END AS user_id) ORDER BY "user"'
"""Makes the last two of the forty users ones whom the build's logs do not know."""


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    coevolution.add_arguments(parser)
    return coevolution.run(parser.parse_args(arguments))


@pytest.fixture
def build(small_coevolution: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_coevolution, tmp_path / "build")


def clicked_and_shown(item: str, users: Sequence[str], seconds: int) -> list[channel_pb2.FeedbackEvent]:
    """A click and an exposure of each user, so many seconds after the build's logs end."""
    events = [
        channel_pb2.FeedbackEvent(event_id=f"{user_id} {kind}", user_id=user_id, item_id=item, type=kind)
        for user_id in users
        for kind in ("EVENT_TYPE_CLICK", "EVENT_TYPE_EXPOSURE")
    ]
    for event in events:
        event.time.seconds = CUT + seconds
    return events


def record(store: Path, events: Sequence[channel_pb2.FeedbackEvent]) -> None:
    with FeedbackStore(store, clock=lambda: float(CUT + 100)) as feedback:
        feedback.record(events)


def rewrite(table: Path, query: str) -> None:
    """Replace a Parquet table by what a query that begins at its rows gives."""
    beside = table.with_suffix(".new")
    duckdb.execute(f"COPY (FROM read_parquet('{table}') {query}) TO '{beside}' (FORMAT parquet)")
    beside.replace(table)


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
    process = subprocess.run(
        [sys.executable, "-c", _KILLED, str(REPOSITORY), *arguments], stdout=subprocess.DEVNULL, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert list(build.glob(".coevolution.*/.work-*/cycles/cycle_0002"))
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


@pytest.mark.parametrize("listed", ["by the build's service", "as the option says", "beside the feedback store"])
def test_of_users_to_be_forgotten_new_logs_teach_nothing(
    build: Path, tmp_path: Path, listed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(build / "today" / "users.parquet", _RENAMED)
    without = shutil.copytree(build, tmp_path / "without")
    rewrite(without / "today" / "clicks.parquet", 'WHERE "user" < 38 ORDER BY "user", time, item_id')
    counts = [Histories.read(root / "today").times.size for root in (build, without)]
    state = build / "state" if listed == "by the build's service" else tmp_path / "elsewhere"
    arguments = {
        "by the build's service": [],
        "as the option says": ["--erasures", str(state / "erasures")],
        "beside the feedback store": ["--feedback", str(state / "feedback")],
    }
    FeedbackStore(state / "feedback").close()
    with ErasureList(state / "erasures") as erasures:
        for user_id in ("z-u0038", "z-u0039", "z-u0040"):
            erasures.add(user_id)
    for root, more in ((build, arguments[listed]), (without, [])):
        assert main("--build", str(root), "--logs", str(root / "today"), *more) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"left out: {counts[0] - counts[1]} clicks of 2 users to be forgotten" in said
    assert "left out: 0 clicks of 0 users to be forgotten" in said
    assert read_coevolution_spec(build / "coevolution") == read_coevolution_spec(without / "coevolution")
    assert read_lists(build / "coevolution") == read_lists(without / "coevolution")


def test_feedback_of_users_to_be_forgotten_teaches_nothing_wherever_they_are_listed(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = Catalogue.read(build / "logs").item_ids[0]
    store = tmp_path / "state" / "feedback"
    record(store, clicked_and_shown(item, ["asked-here", "asked-there", "u0001"], 60))
    for directory, user_id in ((store.parent / "erasures", "asked-here"), (tmp_path / "list", "asked-there")):
        with ErasureList(directory) as erasures:
            erasures.add(user_id)
    assert main("--build", str(build), "--feedback", str(store), "--erasures", str(tmp_path / "list")) == 0
    assert "feedback: 1 clicks, 1 exposures; left out: erased 4" in " ".join(capsys.readouterr().out.split())


def test_the_feedback_of_every_host_is_learned_from_as_if_it_were_of_one(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Catalogue.read(build / "logs").item_ids[:2]
    of_a = clicked_and_shown(first, ["z-1", "u0001", "u0002"], 60)
    of_b = clicked_and_shown(second, ["u0003", "u0004", "u0005"], 30)
    stores = {name: tmp_path / name / "feedback" for name in ("a", "b", "both", "copy")}
    record(stores["a"], of_a)
    record(stores["b"], of_b)
    record(stores["both"], [*of_a, *of_b])
    record(stores["copy"], of_a)
    builds = {name: shutil.copytree(build, tmp_path / f"build-{name}") for name in ("both", "one", "again")}

    def learn(build: Path, *names: str) -> str:
        options = [part for name in names for part in ("--feedback", str(stores[name]))]
        assert main("--build", str(build), *options) == 0
        return " ".join(capsys.readouterr().out.split())

    said = learn(build, "a", "b")
    for name in "ab":
        assert f"{stores[name]}: 3 clicks, 3 exposures; left out: nothing" in said
    learn(builds["both"], "both")
    learn(builds["one"], "b")
    # The same store twice, and another of the same events.
    assert learn(builds["again"], "a", "b", "a", "copy").count("3 clicks, 3 exposures") == 3
    specs = {name: read_coevolution_spec(root / "coevolution") for name, root in {"each": build, **builds}.items()}
    assert specs["each"] == specs["both"] == specs["again"]
    assert specs["each"] != specs["one"]
    made = read_lists(build / "coevolution")
    assert made == read_lists(builds["both"] / "coevolution") == read_lists(builds["again"] / "coevolution")


def test_who_is_to_be_forgotten_on_one_host_is_forgotten_on_all(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = Catalogue.read(build / "logs").item_ids[0]
    asked = {"a": "asked-of-a", "b": "asked-of-b"}
    options = []
    for host, user_id in asked.items():
        # Users move when the number of hosts does: what they did before is where they were then.
        record(tmp_path / host / "feedback", clicked_and_shown(item, [*asked.values(), f"kept-{host}"], 60))
        with ErasureList(tmp_path / host / "erasures") as erasures:
            erasures.add(user_id)
        options += ["--feedback", str(tmp_path / host / "feedback")]
    assert main("--build", str(build), *options) == 0
    said = " ".join(capsys.readouterr().out.split())
    for host in asked:
        assert f"{tmp_path / host / 'feedback'}: 1 clicks, 1 exposures; left out: erased 4" in said


def test_all_logs_that_are_given_are_read(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = shutil.copytree(build / "today", build / "later")
    rewrite(build / "today" / "clicks.parquet", f'WHERE time < {CUT + 5 * 86_400} ORDER BY "user", time, item_id')
    rewrite(later / "clicks.parquet", f'WHERE time >= {CUT + 5 * 86_400} ORDER BY "user", time, item_id')
    assert main("--build", str(build), "--logs", str(build / "today"), "--logs", str(later)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for logs in (build / "today", later):
        assert f"{logs}: {Histories.read(logs).times.size:,} clicks, " in said


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
    assert f"found 1 users of the erasure list {directory}, expected none" in said
    assert f"`{' '.join(['serendip build --out', str(build), *option])}`" in said
    assert read_coevolution_spec(build / "coevolution") == before


@pytest.mark.parametrize(
    "what", ["no build", "no cycles", "no feedback", "no host", "no logs", "no list", "not a build's"]
)
def test_what_cannot_be_used_is_named(build: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {
        "no build": ["--build", str(build / "nowhere")],
        "no cycles": ["--build", str(build), "--cycles", "0"],
        "no feedback": ["--build", str(build), "--feedback", str(build / "state")],
        "no host": [
            "--build",
            str(build),
            "--feedback",
            str(build / "state" / "feedback"),
            "--feedback",
            str(build / "nowhere"),
        ],
        "no logs": ["--build", str(build), "--logs", str(build / "today"), "--logs", str(build / "nowhere")],
        "no list": ["--build", str(build), "--erasures", str(build / "nowhere")],
        "not a build's": ["--build", str(build)],
    }
    expected = {
        "no build": "nowhere/logs",
        "no cycles": "--cycles: found 0, expected at least 1",
        "no feedback": "expected a feedback store",
        "no host": f"--feedback: found nothing at {build / 'nowhere'}, expected a feedback store",
        "no logs": f"--logs: found nothing at {build / 'nowhere'}, expected output of the logs builder",
        "no list": "expected an erasure list",
        "not a build's": "found nothing that a build made",
    }
    record(build / "state" / "feedback", [])
    if what == "not a build's":
        (build / "coevolution" / ".stamp.json").unlink()
    assert main(*arguments[what]) == 1
    assert expected[what] in capsys.readouterr().err
