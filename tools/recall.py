"""Ask a running channel for candidates and print them.

serendip recall --user 718 --explain
serendip recall --user 718 --have my_candidates.txt
serendip recall --user 718 --count 20 --json | jq .item_ids
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.errors import ClientError
from serendipity.channel.client.messages import Candidate, RecallResult, RecentEvent
from serendipity.tools.arguments import add_credentials, identifier, item_ids, read_credentials
from serendipity.v1 import channel_pb2

_NUMBERS = frozenset(["#", "score", "unexpected", "clicks, 28 d"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip recall`."""
    named: dict[str, Any] = {"action": "append", "type": identifier, "default": []}
    parser.add_argument("--user", type=identifier, required=True, metavar="ID", help="user to recall for")
    parser.add_argument("--target", default="127.0.0.1:50051", metavar="HOST:PORT", help="the channel")
    parser.add_argument("--count", type=int, default=10, help="candidates wanted")
    parser.add_argument("--novelty", choices=("strict", "soft", "off"), default="strict", help="novelty policy")
    parser.add_argument("--allow-repeats", action="store_true", help="soft, off: also what was clicked just now")
    parser.add_argument("--surprise", type=float, help="what unexpectedness counts beside relevance, 0 to 1")
    parser.add_argument("--clicked", **named, metavar="ITEM", help="clicked just now (repeatable)")
    parser.add_argument("--exclude", **named, metavar="ITEM", help="do not return (repeatable)")
    parser.add_argument(
        "--have", type=item_ids, default=[], metavar="FILE", help="item ids the host has already, one a line"
    )
    parser.add_argument("--allow", **named, metavar="CATEGORY", help="only these (repeatable)")
    parser.add_argument("--deny", **named, metavar="CATEGORY", help="not these (repeatable)")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="deadline of the call")
    parser.add_argument("--explain", action="store_true", help="say why each item was found")
    parser.add_argument("--json", action="store_true", help="print the response message as JSON")
    add_credentials(parser)


def run(args: argparse.Namespace) -> int:
    """Recall and print; returns 1 when the call fails."""
    try:
        result = asyncio.run(ask(args))
    except ClientError as error:
        print(f"serendip recall: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json_format.MessageToJson(result.message, preserving_proto_field_name=True, ensure_ascii=False))
    else:
        print_result(result_console(), args.user, result)
    return 0


def result_console() -> Console:
    """A console for answers: as wide as the terminal, and wide enough for their tables where there is none."""
    return Console(width=None if sys.stdout.isatty() else 160)


def print_result(console: Console, user_id: str, result: RecallResult) -> None:
    """Print an answer as a table a person can read, with where it came from underneath."""
    message = result.message
    explained = bool(message.reasons)
    table = Table(title=f"user {escape(user_id)}: {len(result.candidates)} candidates", title_justify="left")
    columns = ["#", "item", "category", "score", "found by", "unexpected", "clicks, 28 d"]
    for column in [*columns, "why"] if explained else columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    for rank, candidate in enumerate(result.candidates, 1):
        table.add_row(str(rank), *_cells(candidate, explained))
    console.print(table)
    filled = ", ".join(
        f"{_word(channel_pb2.Source.Name(s.source), 'SOURCE_')} {s.returned} of {s.found} found"
        f" ({', '.join(_fared(s))})"
        for s in message.source_statuses
    )
    removed = ", ".join(f"{f.filter} {f.removed}" for f in message.filter_counts if f.removed)
    timings = message.timings
    milliseconds = {
        name: getattr(timings, name).ToMicroseconds() / 1000
        for name in ("total", "hydrate", "user_tower", "sources", "rank")
    }
    console.print(f"  sources: {filled}")
    console.print(f"  removed: {removed or 'nothing'}")
    console.print("  time: " + ", ".join(f"{name} {value:.1f} ms" for name, value in milliseconds.items()))
    console.print(f"  snapshot {message.versions.snapshot}, {message.versions.user_tower}, recall {result.recall_id}")
    for cause, text in result.shortfalls:
        console.print(f"  short: {cause}: {escape(text)}")
    for _, field, text in result.warnings:
        console.print(f"  warning: {f'{field}: ' if field else ''}{escape(text)}")
    if result.degraded:
        console.print(f"  degraded: {escape('; '.join(result.degraded_reasons))}")


def _cells(candidate: Candidate, explained: bool) -> list[str]:
    # Catalogues and users write what they like, brackets too; it is no markup.
    item = escape(candidate.item_id)
    cells = [
        f"{escape(candidate.title)} [dim]{item}[/dim]" if candidate.title else item,
        escape(candidate.category),
        f"{candidate.score:.4f}",
        candidate.source,
        f"{candidate.unexpectedness:.2f}",
        f"{math.expm1(candidate.features.get('item_clicks_28d', 0)):,.0f}",
    ]
    return [*cells, escape(candidate.reasons[0].text) if candidate.reasons else ""] if explained else cells


def _fared(status: channel_pb2.SourceStatus) -> list[str]:
    """Say how a source fared, why it found nothing and, of the group source, which list it answered from."""
    fared = [_word(channel_pb2.SourceState.Name(status.state), "SOURCE_STATE_").upper()]
    if status.shortfall_cause:
        fared.append(_word(channel_pb2.ShortfallCause.Name(status.shortfall_cause), "SHORTFALL_CAUSE_"))
    if status.novel_category_key:
        key = channel_pb2.NovelCategoryKey.Name(status.novel_category_key)
        fared.append(f"list {_word(key, 'NOVEL_CATEGORY_KEY_')}")
    return fared


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


async def ask(args: argparse.Namespace) -> RecallResult:
    """Call the channel as the options say."""
    credentials = read_credentials(args.ca, args.certificate, args.key, args.token)
    async with AsyncSerendipityClient(args.target, timeout=args.timeout, credentials=credentials) as client:
        return await client.recall(
            args.user,
            count=args.count,
            recent_events=[RecentEvent(item_id) for item_id in args.clicked],
            exclude_item_ids=[*args.exclude, *args.have],
            allow_categories=args.allow,
            deny_categories=args.deny,
            novelty=args.novelty,
            allow_repeats=args.allow_repeats,
            explain=args.explain,
            **({} if args.surprise is None else {"surprise": args.surprise}),
        )
