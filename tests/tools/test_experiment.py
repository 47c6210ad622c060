"""Reading out an experiment whose outcome is known by construction: a real serving log, a real feedback store."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.serving_log import ServingLog
from serendipity.channel.state.serving_log_files import compact
from serendipity.tools import experiment
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2

USERS = 60
COUNT = 4
"""Candidates in an answer: the first two of the interests and novel, the others collaborative, of which the last is."""
NOVEL = (1.0, 1.0, 0.0, 1.0)


def answer(user: int, tag: str) -> records_pb2.ServingRecord:
    features = [value for novel in NOVEL for value in (0.5, novel)]
    return records_pb2.ServingRecord(
        user_id=f"user-{user}",
        experiment_tag=tag,
        response=pb.RecallResponse(
            recall_id=f"{tag}-{user}",
            item_ids=[f"item-{i}" for i in range(COUNT)],
            sources=[pb.SOURCE_INTEREST] * 2 + [pb.SOURCE_COLLABORATIVE] * 2,
            rank_features=pb.FeatureMatrix(names=["score", "novel"], num_rows=COUNT, values=features),
        ),
    )


def event(user: int, tag: str, item: int, kind: pb.EventType) -> pb.FeedbackEvent:
    return pb.FeedbackEvent(
        event_id=f"{tag}-{user}-{item}-{kind}",
        user_id=f"user-{user}",
        item_id=f"item-{item}",
        recall_id=f"{tag}-{user}",
        type=kind,
    )


def host(state: Path, answers: Iterable[tuple[int, str]], events: Iterable[pb.FeedbackEvent]) -> Path:
    log = ServingLog(state / "serving_log")
    for user, tag in answers:
        log.append(answer(user, tag))
    log.close()
    asyncio.run(compact(state / "serving_log", 1 << 30))
    with FeedbackStore(state / "feedback", map_bytes=1 << 24) as store:
        store.submit(list(events)).result()
    return state


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """All items are shown; in `control` the third is clicked by one user in three, in `new` the first by all, too."""
    events = []
    for user in range(USERS):
        tag = "new" if user % 2 else "control"
        events += [event(user, tag, item, pb.EVENT_TYPE_EXPOSURE) for item in range(COUNT)]
        if user % 6 < 2:
            events.append(event(user, tag, 2, pb.EVENT_TYPE_CLICK))
        if tag == "new":
            events.append(event(user, tag, 0, pb.EVENT_TYPE_ORDER))
    events.append(event(7, "of another log", 0, pb.EVENT_TYPE_CLICK))
    answers = [(user, "new" if user % 2 else "control") for user in range(USERS)]
    return host(tmp_path / "state", answers, events)


def report(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    experiment.add_arguments(parser)
    return experiment.run(parser.parse_args(["report", *map(str, arguments)]))


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_arms_are_measured_side_by_side_and_against_the_baseline(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("--state", state, "--baseline", "control") == 0
    text = capsys.readouterr().out
    control, new = (row for row in rows(text) if len(row) == 9 and row[0] in ("control", "new"))
    assert control[1:5] == ["30", "30", "120", "10"]
    assert new[1:5] == ["30", "30", "120", "40"]
    values = [[float(cell.split(" (")[0]) for cell in row[5:]] for row in (control, new)]
    # ENR, CNR, CTR, clicks a user.
    assert values == [[0.75, 0.0, 0.0833, 0.3333], [0.75, 0.75, 0.3333, 1.3333]]
    (gained,) = (row for row in rows(text) if len(row) == 5 and row[0] == "new")
    assert [cell.split(" (")[0] for cell in gained[1:]] == ["0.0000", "0.7500", "0.2500", "1.0000"]
    low, high = map(float, re.findall(r"[\d.]+", gained[3].split("(")[1]))
    assert 0.15 < low < 0.25 < high < 0.35
    assert "0 users were answered in more than one arm; 1 candidates that feedback names are not in these logs" in text


def test_sources_are_measured_apart(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("--state", state) == 0
    found = {tuple(row[:4]) for row in rows(capsys.readouterr().out) if len(row) == 8}
    assert found > {
        ("control", "collaborative", "60", "10"),
        ("control", "interest", "60", "0"),
        ("new", "collaborative", "60", "10"),
        ("new", "interest", "60", "30"),
    }


def test_hosts_are_read_together_and_users_of_two_arms_are_told(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = host(tmp_path / "other", [(0, "new")], [event(0, "new", 0, pb.EVENT_TYPE_CLICK)])
    assert report("--state", state, "--state", other, "--out", tmp_path / "page.md") == 0
    text = capsys.readouterr().out
    assert (tmp_path / "page.md").read_text() == f"# Experiment\n\n{text}"
    assert "1 users were answered in more than one arm" in text
    # Shown because it was clicked: nothing else said so.
    assert ["new", "31", "31", "121", "41"] in [row[:5] for row in rows(text)]


def test_what_is_missing_is_told_in_a_line(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("--state", state, "--baseline", "nobody's") == 1
    assert "baseline: found \"nobody's\", expected one of: 'control', 'new'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert report("--state", tmp_path / "empty") == 1
    assert "found no Parquet, expected serving logs" in capsys.readouterr().err


def test_answers_of_nobody_are_no_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_nobody = answer(0, "new")
    of_nobody.user_id = ""
    log = ServingLog(tmp_path / "serving_log")
    log.append(of_nobody)
    log.close()
    asyncio.run(compact(tmp_path / "serving_log", 1 << 30))
    assert report("--state", tmp_path) == 1
    assert "found answers of nobody who may be named" in capsys.readouterr().err


def test_a_log_that_is_no_parquet_is_told_in_a_line(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "serving_log" / "torn.parquet").write_bytes(b"PAR1")
    assert report("--state", state) == 1
    assert "torn.parquet" in capsys.readouterr().err
