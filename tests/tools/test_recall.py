"""What `serendip recall` prints."""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from serendipity import layout
from serendipity.channel.client.messages import to_result
from serendipity.tools import recall
from serendipity.tools.recall import print_result
from serendipity.v1 import channel_pb2
from tests.channel.served import channel_settings, copy_snapshot, server_settings, service
from tests.fixtures.small_world import SmallWorld


def test_brackets_in_ids_titles_and_reasons_are_printed_as_they_are() -> None:
    response = channel_pb2.RecallResponse(
        item_ids=["[red]1"],
        titles=["[organic] tea [/b]"],
        scores=[0.5],
        sources=[channel_pb2.SOURCE_INTEREST],
        relevance=[1.0],
        unexpectedness=[0.5],
        categories=["[tea]"],
        category_indexes=[0],
        reasons=[channel_pb2.Reason(source=channel_pb2.SOURCE_INTEREST, text="You searched for “[/x]”")],
        reason_indexes=[0],
        all_reason_indexes=[0],
        all_reason_offsets=[0, 1],
        rank_features=channel_pb2.FeatureMatrix(names=["item_clicks_28d"], num_rows=1, values=[math.log1p(1_234)]),
        degraded=True,
        degraded_reasons=["user tower: [/y]"],
    )
    output = io.StringIO()
    print_result(Console(file=output, width=200), "[u]", to_result(response))
    for text in ("[red]1", "[organic] tea [/b]", "[tea]", "“[/x]”", "user tower: [/y]", "user [u]:", "1,234"):
        assert text in output.getvalue()


def test_sources_say_how_they_fared_and_the_answer_why_it_is_short() -> None:
    response = channel_pb2.RecallResponse(
        source_statuses=[
            channel_pb2.SourceStatus(
                source=channel_pb2.SOURCE_COLLABORATIVE, state=channel_pb2.SOURCE_STATE_OK, found=40, returned=7
            ),
            channel_pb2.SourceStatus(
                source=channel_pb2.SOURCE_GROUP,
                state=channel_pb2.SOURCE_STATE_STALE,
                found=20,
                returned=3,
                novel_category_key=channel_pb2.NOVEL_CATEGORY_KEY_M2,
            ),
            channel_pb2.SourceStatus(
                source=channel_pb2.SOURCE_INTEREST,
                state=channel_pb2.SOURCE_STATE_EMPTY,
                shortfall_cause=channel_pb2.SHORTFALL_CAUSE_NO_INTERESTS,
            ),
        ],
        shortfalls=[channel_pb2.Shortfall(cause=channel_pb2.SHORTFALL_CAUSE_FILTERED, message="served 7")],
    )
    output = io.StringIO()
    print_result(Console(file=output, width=200), "u", to_result(response))
    assert "collaborative 7 of 40 found (OK), group 3 of 20 found (STALE, list m2)" in output.getvalue()
    assert "interest 0 of 0 found (EMPTY, no_interests)" in output.getvalue()
    assert "short: filtered: served 7" in output.getvalue()


def _arguments(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    recall.add_arguments(parser)
    return parser.parse_args(arguments)


async def test_what_the_host_has_already_is_read_from_a_file_and_not_returned(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    version = copy_snapshot(small_world, tmp_path / "snapshots", small_world.version).name
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to(version)
    user = small_world.user_ids[0]
    async with service(server_settings(tmp_path), channel_settings()) as (client, worker):
        before = [candidate.item_id for candidate in (await client.recall(user, count=10)).candidates]
        have = tmp_path / "have.txt"
        have.write_text("\ufeff" + "\r\n".join([*before[:5], ""]) + "\n", encoding="utf-8")
        address = f"127.0.0.1:{worker.port}"
        arguments = _arguments("--user", user, "--target", address, "--have", str(have), "--timeout", "5")
        after = [candidate.item_id for candidate in (await recall.ask(arguments)).candidates]
    assert set(after).isdisjoint(before[:5])
    assert set(before[5:]) <= set(after)


async def test_more_surprise_brings_what_is_less_expected(small_world: SmallWorld, tmp_path: Path) -> None:
    version = copy_snapshot(small_world, tmp_path / "snapshots", small_world.version).name
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to(version)
    found = []
    async with service(server_settings(tmp_path), channel_settings()) as (_, worker):
        for surprise in ([], ["--surprise", "0"], ["--surprise", "1"]):
            address = f"127.0.0.1:{worker.port}"
            arguments = _arguments("--user", small_world.user_ids[1], "--target", address, "--timeout", "5", *surprise)
            candidates = (await recall.ask(arguments)).candidates
            found.append([(candidate.item_id, candidate.unexpectedness) for candidate in candidates])
    unset, none, most = found
    # The small world's snapshot leaves unexpectedness out of account.
    assert unset == none
    assert sum(unexpected for _, unexpected in most) > sum(unexpected for _, unexpected in none)


def test_a_missing_file_of_what_the_host_has_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _arguments("--user", "u", "--have", str(tmp_path / "have.txt"))
    assert f"--have: {tmp_path / 'have.txt'}: cannot be read" in capsys.readouterr().err


def test_a_line_of_what_the_host_has_that_is_no_id_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    have = tmp_path / "have.txt"
    have.write_text("tea\n\nmilk\tcoffee\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        _arguments("--user", "u", "--have", str(have))
    assert f"--have: {have}: line 3: found '\\t', expected" in capsys.readouterr().err
