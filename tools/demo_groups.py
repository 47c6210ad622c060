"""The demo's act of the group source: lists of novel categories for a user's group, and for somebody unseen."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client_messages import RecallResult
from serendipity.offline.evaluate.replay import key_name
from serendipity.tools.recall import print_result


async def show_groups(
    client: AsyncSerendipityClient, console: Console, warm_user: str, cold_user: str, count: int
) -> None:
    """Recall from the group source for a user of a group and for one of none, and say why."""
    # Alone: what another source finds as well counts as that one's, and an answer this short may hold nothing else.
    quotas = {"interest": (0, 0), "collaborative": (0, 0), "group": (0, count)}
    for user, known in ((warm_user, "has a group"), (cold_user, "belongs to the default group")):
        result = await client.recall(user, count=count, explain=True, quotas=quotas)
        keys = ", ".join(list_keys(result)) or "none: the snapshot has no lists"
        console.print(
            f"[bold]user {escape(user)}[/bold] {known}; answered from the list of key {keys}", highlight=False
        )
        print_result(console, user, result)
        console.print()


def list_keys(result: RecallResult) -> list[str]:
    """Name the key of the list that the group source answered from; none where the snapshot has no lists."""
    return [
        key_name(status.novel_category_key) for status in result.message.source_statuses if status.novel_category_key
    ]
