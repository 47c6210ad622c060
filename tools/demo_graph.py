"""The demo's act of the graph source: a known user, and a session of three clicks by somebody nobody has seen."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.markup import escape

from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.messages import RecentEvent
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.tools.recall import print_result

_CLICKS = 3


def latest_items(histories: Histories, user: int) -> list[int]:
    """Take the three items that a user (number) clicked last, each once, newest first."""
    items = histories.clicks_before(user, np.iinfo(np.int64).max).items
    return [item - 1 for item in dict.fromkeys(items.tolist()) if item][:_CLICKS]


async def show_graph(
    client: AsyncSerendipityClient,
    console: Console,
    catalogue: Catalogue,
    users: tuple[str, str],
    clicked: list[int],
    count: int,
) -> None:
    """Recall from the graph alone for two users: one who is known, and one of whom there is only a session.

    clicked: item rows of the session, newest first.
    """
    # Alone: what another source finds as well counts as that one's.
    quotas = {"interest": (0, 0), "collaborative": (0, 0), "group": (0, 0), "graph": (0, count)}
    known, unknown = users
    titles = ", ".join(escape(catalogue.titles[row]) for row in clicked)
    session = [RecentEvent(catalogue.item_ids[row]) for row in reversed(clicked)]
    for user, told, events in (
        (known, "is folded in from the latest clicks and the interests these show", []),
        (unknown, f"has no record anywhere and has just clicked {titles}", session),
    ):
        console.print(f"[bold]user {escape(user)}[/bold] {told}", highlight=False)
        found = await client.recall(user, count=count, explain=True, quotas=quotas, recent_events=events)
        print_result(console, user, found)
        console.print()
