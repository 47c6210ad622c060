"""The demo's near-line act: a user without interests is queued, refreshed by InterestGPT on Triton, and served.

The user is new to the snapshot, copies the latest clicks of somebody real, and searches for a category by its name.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape

from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.messages import Feedback, RecallResult
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.tools.recall import print_result
from serendipity.v1 import channel_pb2

_CLICKS = 40
"""Clicks the new user has: enough to reason from, few enough that most categories are novel."""

_PATIENCE_SECONDS = 90.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class NewUser:
    """Somebody the snapshot does not know: clicks as item ids, newest first, and a search."""

    user_id: str
    clicks: tuple[str, ...]
    search: str


def new_user(histories: Histories, catalogue: Catalogue, like: int, name: str) -> NewUser:
    """Make a user with the latest clicks of user `like`, who searches for the most clicked category beside theirs."""
    clicks = histories.clicks_before(like, np.iinfo(np.int64).max)
    chosen = clicks.items[:_CLICKS]
    popularity = np.bincount(histories.categories, minlength=len(catalogue.categories) + 1)
    popularity[[0, *np.unique(clicks.categories)]] = 0
    searched = catalogue.categories[int(popularity.argmax()) - 1]
    return NewUser(name, tuple(catalogue.item_ids[item - 1] for item in chosen if item), searched.lower())


async def show_nearline(
    client: AsyncSerendipityClient, console: Console, user: NewUser, now: int, count: int
) -> RecallResult | None:
    """Record what the user does, recall until InterestGPT's interests are served, and print both answers.

    now: the service's moment, Unix seconds. Returns the last answer, None when no interest of the user's own came.
    """
    events = [
        Feedback(user.user_id, item, "click", time=float(now - 3_600 - 60 * place), event_id=f"{user.user_id}-{place}")
        for place, item in enumerate(user.clicks)
    ]
    search = Feedback(user.user_id, type="search", query=user.search, time=float(now - 60))
    recorded = await client.record_feedback([*events, search])
    console.print(
        f"user {user.user_id}, whom the snapshot does not know, clicks {recorded.accepted - 1} items and searches for "
        f"“{escape(user.search)}”"
    )
    # So that there is something to see of the interests: by score alone they may come after what is close to the taste.
    quotas = {"interest": (count // 2, count)}
    first = await client.recall(user.user_id, count=count, explain=True, quotas=quotas)
    console.print(f"first answer: {_speaks(first)}; the user is queued")
    start = time.monotonic()
    while time.monotonic() - start < _PATIENCE_SECONDS:
        await asyncio.sleep(_POLL_SECONDS)
        result = await client.recall(user.user_id, count=count, explain=True, quotas=quotas)
        if paths := own_paths(result):
            console.print(f"{time.monotonic() - start:.1f} s later: {_speaks(result)}. Paths of the answer:")
            for seed, demand, interest in paths:
                console.print(f"  {escape(seed)} → {escape(demand)} → {escape(interest)}", highlight=False)
            print_result(console, user.user_id, result)
            return result
    console.print(
        f"[bold]no interests of the user's own after {_PATIENCE_SECONDS:.0f} s[/bold]: see `serendip nearline status`"
    )
    return None


def own_paths(result: RecallResult) -> list[tuple[str, str, str]]:
    """List the interest source's paths seed → core demand → latent interest that start at something the user did."""
    paths = (
        (reason.seed, reason.core_demand, reason.latent_interest)
        for reason in result.message.reasons
        if reason.source == channel_pb2.SOURCE_INTEREST and reason.seed and reason.latent_interest
    )
    # A path is told once for the items of its interest and once for those near it.
    return list(dict.fromkeys(paths))


def _speaks(result: RecallResult) -> str:
    by_interest = sum(candidate.source == "interest" for candidate in result.candidates)
    whose = "the user's own" if own_paths(result) else "everybody's"
    return f"{by_interest} of {len(result.candidates)} candidates by {whose} interests"
