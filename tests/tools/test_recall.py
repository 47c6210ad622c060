"""What `serendip recall` prints."""

from __future__ import annotations

import io

from rich.console import Console

from serendipity.channel.client_messages import to_result
from serendipity.tools.recall import print_result
from serendipity.v1 import channel_pb2


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
        rank_features=channel_pb2.FeatureMatrix(num_rows=1),
        degraded=True,
        degraded_reasons=["user tower: [/y]"],
    )
    output = io.StringIO()
    print_result(Console(file=output, width=200), "[u]", to_result(response))
    for text in ("[red]1", "[organic] tea [/b]", "[tea]", "“[/x]”", "user tower: [/y]", "user [u]:"):
        assert text in output.getvalue()


def test_the_group_source_says_which_list_it_answered_from() -> None:
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
        ]
    )
    output = io.StringIO()
    print_result(Console(file=output, width=200), "u", to_result(response))
    assert "collaborative 7 of 40 found (OK), group 3 of 20 found (STALE, list m2)" in output.getvalue()
