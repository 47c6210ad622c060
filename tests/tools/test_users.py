"""What is exported and listed once users are forgotten."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from serendipity.channel.state.feedback import FeedbackStore
from serendipity.tools import feedback, users
from serendipity.v1 import channel_pb2


def run(module: object, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return int(module.run(parser.parse_args(arguments)))  # type: ignore[attr-defined]


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build directory whose service recorded a click and a search of two users."""
    with FeedbackStore(tmp_path / "state" / "feedback") as store:
        store.record(
            channel_pb2.FeedbackEvent(event_id=f"{user}-{kind}", user_id=user, item_id=item, type=kind, query=query)
            for user in ("anna", "bob")
            for kind, item, query in (("EVENT_TYPE_CLICK", "tea", ""), ("EVENT_TYPE_SEARCH", "", "cold brew"))
        )
    return tmp_path


def exported(build: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert run(feedback, "export", "--build", str(build)) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_export_carries_searches_and_leaves_forgotten_users_out(
    build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [(row["user_id"], row["item_id"], row["query"]) for row in exported(build, capsys)] == [
        ("anna", "tea", None),
        ("anna", None, "cold brew"),
        ("bob", "tea", None),
        ("bob", None, "cold brew"),
    ]
    assert run(users, "forget", "anna", "--build", str(build)) == 0
    assert "removed: 1 feedback records" in capsys.readouterr().out
    assert {row["user_id"] for row in exported(build, capsys)} == {"bob"}


def test_the_times_said_are_those_of_the_service(
    build: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERENDIPITY_FEEDBACK_RETENTION_DAYS", "12")
    monkeypatch.setenv("SERENDIPITY_SERVING_LOG_RETENTION_DAYS", "3.5")
    assert run(users, "forget", "anna", "--build", str(build)) == 0
    said = capsys.readouterr().out
    assert "the feedback log within 12 days, the serving log within 3.5 days" in said


@pytest.mark.parametrize("user_id", ["", "x" * 513, "a\tb", "a\udcff"])
def test_what_no_user_can_be_called_cannot_be_forgotten(
    build: Path, capsys: pytest.CaptureFixture[str], user_id: str
) -> None:
    with pytest.raises(SystemExit):
        run(users, "forget", "anna", user_id, "--build", str(build))
    assert "argument ID: found" in capsys.readouterr().err
    assert not (build / "state" / "erasures").exists()
