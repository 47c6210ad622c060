"""The whole channel once, on real data: build, start Triton and the service, call it as a host would, check, stop.

serendip demo --dataset complete-journey
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.errors import ClientError
from serendipity.channel.client.messages import Feedback, RecallResult, RecentEvent, recall_request
from serendipity.novelty import clicked_categories, is_novel
from serendipity.offline.build_config import load_build_config
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.snapshot.gate import GateRefusedError
from serendipity.tools.build import build_and_place, default_out
from serendipity.tools.demo_host import DEPTH, HostLists, host_lists
from serendipity.tools.demo_nearline import new_user, show_nearline
from serendipity.tools.deploy import publish_over
from serendipity.tools.recall import print_result, result_console
from serendipity.tools.service import ServiceError, launch_service
from serendipity.tools.serving.deployment import DeployError, deploy, load
from serendipity.tools.serving.kinds import text_encoder
from serendipity.tools.serving.triton_program import TritonError
from serendipity.tools.serving.triton_server import launch

_BATCH = 32
_SHORTER: Mapping[str, object] = {
    "merge": {"max_users": 1_000},
    "canary": {"num_users": 250},
    "interest_gpt": {"dataset": {"num_examples": 1_700, "max_cuts": 3}},
    "coevolution": {"examples": {"max_novelty": 6_000, "max_relevance": 5_000}},
}
"""What a build does more thoroughly: the demo is to end within ten minutes."""
_COLD_USER = "someone-nobody-has-seen"
_SESSION_CLICKS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip demo`."""
    parser.add_argument("--dataset", default="complete-journey", help="complete-journey, ml-100k, ml-1m or a folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="build directory (default: var/DATASET)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with the build's configuration")
    parser.add_argument("--users", type=int, default=3, help="users shown, besides a cold one")
    parser.add_argument("--count", type=int, default=8, help="candidates shown per user")


def run(args: argparse.Namespace) -> int:
    """Show it; returns 1 when a part fails, an answer is not novel, or near-line interests do not come."""
    console = result_console()
    start = time.monotonic()
    try:
        faults = _show(args, console)
    except (ServiceError, TritonError, DeployError, ClientError, GateRefusedError) as error:
        print(f"serendip demo: {error}", file=sys.stderr)
        return 1
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    console.print(f"\nDone in {minutes} min {seconds} s; everything that was started has been stopped.")
    return 1 if faults else 0


def _show(args: argparse.Namespace, console: Console) -> int:
    out = args.out or default_out(args.dataset)
    console.rule("1  Build: host logs → interests → InterestGPT → towers → groups → lists → graph → snapshot")
    given = {"dataset": args.dataset, **_SHORTER}
    built = build_and_place(load_build_config(args.config, given), out, console)
    console.rule("2  Start tritonserver and the channel")
    with launch(out / "models") as triton:
        console.print(f"tritonserver (pid {triton.pid}) answers on {triton.url}")
        load(triton.grpc_url, text_encoder(layout.read_manifest(built.snapshot).tower.interest_dim))
        # The data end years ago: "now" is the moment the snapshot was built as of.
        # Two cores run Triton, the service and this caller at once; a host would leave the 50 ms default.
        options = {"clock": "snapshot", "default_deadline_ms": "1000", "require_ready_model": "false"}
        with launch_service(out, triton.url, options=options) as service:
            console.print(
                f"the channel (pid {service.pid}) answers on {service.address}, admin {service.admin_address}"
            )
            version = deploy(built.snapshot, out, out / "models", triton.grpc_url, publish_over(service.admin_address))
            console.print(f"deployed: Triton has the models that snapshot {version} pins; it is published")
            return asyncio.run(_call(args, console, service.address, out))


async def _call(args: argparse.Namespace, console: Console, address: str, out: Path) -> int:
    histories, catalogue = Histories.read(out / "logs"), Catalogue.read(out / "logs")
    async with AsyncSerendipityClient(address, timeout=30.0) as client:
        console.rule("3  Call it as a host would")
        until = layout.read_manifest(out / "snapshots" / layout.CURRENT).events_until.seconds
        chosen = _users_shown(histories, args.users)
        # What a host has already it says: the channel is there for what its other channels do not find.
        lists = dict(zip(chosen, host_lists(histories, catalogue, until, chosen), strict=True))
        for user, have in [*((histories.user_ids[u], lists[u].have) for u in chosen), (_COLD_USER, [])]:
            _introduce(console, histories, catalogue, user)
            if have:
                console.print(
                    f"the host has {len(have)} items for the user already, its first {DEPTH} by ALS × trend and by "
                    "popularity of 28 days, and passes them along"
                )
            found = await client.recall(user, count=args.count, explain=True, exclude_item_ids=have)
            print_result(console, user, found)
            console.print()
        await _turn_dial(client, console, catalogue, histories.user_ids[chosen[0]], lists[chosen[0]], args.count)
        console.rule("4  Groups: novel categories that two language models agree on")
        warm = histories.user_ids[chosen[0]]
        await show_alone(client, console, "group", warm, "is asked for by the lists of the user's group", args.count)
        await show_alone(client, console, "group", _COLD_USER, "belongs to the default group", args.count)
        console.rule("5  Graph: users folded in at request time")
        told = "is folded in from the latest clicks and the interests these show"
        await show_alone(client, console, "graph", warm, told, args.count)
        items = histories.clicks_before(chosen[-1], np.iinfo(np.int64).max).items.tolist()
        clicked = [item - 1 for item in dict.fromkeys(items) if item][:_SESSION_CLICKS]
        told = f"has no record and has just clicked {', '.join(escape(catalogue.titles[row]) for row in clicked)}"
        session = [RecentEvent(catalogue.item_ids[row]) for row in reversed(clicked)]
        await show_alone(client, console, "graph", _COLD_USER, told, args.count, session)
        console.rule("6  Feedback counts at once")
        await _feed_back(client, console, histories.user_ids[chosen[0]])
        console.rule("7  Near-line: queued, refreshed by InterestGPT on Triton, served")
        # Their state outlives the demo: somebody new every time.
        newcomer = new_user(histories, catalogue, chosen[-1], f"newcomer-{int(time.time())}")
        served = await show_nearline(client, console, newcomer, until, args.count)
        console.rule("8  Novelty, checked for every user")
        violations = await _check_novelty(client, console, histories, catalogue, out)
        return violations + (served is None)


def _users_shown(histories: Histories, wanted: int) -> list[int]:
    """Pick users with much, middling and little history."""
    clicks = np.diff(histories.offsets)
    known = np.flatnonzero(clicks > 0)
    ordered = known[np.argsort(-clicks[known], kind="stable")]
    positions = np.linspace(0.05, 0.95, max(1, wanted)) * (len(ordered) - 1)
    return [int(ordered[int(position)]) for position in positions]


async def _turn_dial(
    client: AsyncSerendipityClient, console: Console, catalogue: Catalogue, user: str, host: HostLists, count: int
) -> None:
    """Show one user's answer at two settings of `surprise`, and what plain popularity would show."""
    for surprise, told in ((0.0, "by relevance alone"), (0.5, "halfway to unexpectedness")):
        console.print(f"[bold]user {user}[/bold] at surprise {surprise:g}, {told}", highlight=False)
        found = await client.recall(user, count=count, explain=True, exclude_item_ids=host.have, surprise=surprise)
        print_result(console, user, found)
        console.print()
    titles = ", ".join(escape(catalogue.titles[row]) for row in host.novel[:count])
    console.print(f"[bold]user {user}[/bold] by plain popularity, of what is novel: {titles}", highlight=False)
    console.print()


async def show_alone(
    client: AsyncSerendipityClient,
    console: Console,
    source: str,
    user: str,
    told: str,
    count: int,
    session: Sequence[RecentEvent] = (),
) -> None:
    """Recall from one source alone, since what another finds as well counts as that one's, and print the answer.

    told: what is said of the user; session: what the user has just done, oldest first.
    """
    quotas = {"interest": (0, 0), "collaborative": (0, 0), "group": (0, 0), "graph": (0, 0), source: (0, count)}
    console.print(f"[bold]user {escape(user)}[/bold] {told}", highlight=False)
    print_result(
        console, user, await client.recall(user, count=count, explain=True, quotas=quotas, recent_events=session)
    )
    console.print()


def _introduce(console: Console, histories: Histories, catalogue: Catalogue, user: str) -> None:
    """Say who the user is: profile, and the categories clicked most among the latest 200 clicks."""
    if user not in histories.user_numbers:
        console.print(f"[bold]user {user}[/bold]: never seen before")
        return
    number = histories.user_numbers[user]
    clicks = histories.clicks_before(number, np.iinfo(np.int64).max)
    categories, counts = np.unique(clicks.categories[clicks.categories > 0], return_counts=True)
    most = [catalogue.categories[c - 1] for c in categories[np.argsort(-counts, kind="stable")[:5]]]
    profile = ", ".join(f"{name} {value}" for name, value in histories.profiles[number].items()) or "no profile"
    console.print(
        f"[bold]user {user}[/bold]: {profile}; {np.diff(histories.offsets)[number]:,} clicks, "
        f"the latest {len(clicks)} in {len(categories)} categories, most in {', '.join(most)}",
        highlight=False,
    )


async def _feed_back(client: AsyncSerendipityClient, console: Console, user: str) -> None:
    before = await client.recall(user, count=20)
    best = before.candidates[0]
    await client.record_feedback([Feedback(user, best.item_id, "click", before.recall_id)])
    after = await client.recall(user, count=20)
    console.print(
        f"user {user} clicks {best.item_id} ({best.category}): {_in_category(before, best.category)} of 20 candidates "
        f"were of that category before, {_in_category(after, best.category)} are in the next answer"
    )


def _in_category(result: RecallResult, category: str) -> int:
    return sum(candidate.category == category for candidate in result.candidates)


async def _check_novelty(
    client: AsyncSerendipityClient, console: Console, histories: Histories, catalogue: Catalogue, out: Path
) -> int:
    """Ask for every user, and judge each candidate by the logs themselves rather than by what the channel read."""
    until = layout.read_manifest(out / "snapshots" / layout.CURRENT).events_until.seconds
    row_of = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    violations = candidates = degraded = empty = 0
    start = time.monotonic()
    for at in range(0, len(histories.user_ids), _BATCH):
        users = range(at, min(at + _BATCH, len(histories.user_ids)))
        requests = [recall_request(histories.user_ids[user], count=50) for user in users]
        for user, result in zip(users, await client.recall_batch(requests), strict=True):
            if isinstance(result, ClientError):
                raise result
            rows = np.array([row_of[c.item_id] for c in result.candidates], np.int64)
            clicked = clicked_categories(histories.clicks_before(user, until), len(catalogue.categories))
            violations += int((~is_novel(catalogue.item_categories[rows], clicked)).sum())
            candidates += len(rows)
            degraded += result.degraded
            empty += not len(rows)
    seconds = time.monotonic() - start
    console.print(
        f"{len(histories.user_ids):,} users, {candidates:,} candidates in {seconds:.0f} s: "
        f"[bold]{violations} violations[/bold]; {degraded} degraded answers, {empty} empty ones"
    )
    return violations
