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
    """Recall for a user of a group and for one of none, half of it at least from the group source, and say why."""
    for user, known in ((warm_user, "has a group"), (cold_user, "belongs to the default group")):
        # By score alone an answer this short may hold none of theirs.
        result = await client.recall(user, count=count, explain=True, quotas={"group": (count // 2, count)})
        found = [candidate for candidate in result.candidates if candidate.source == "group"]
        keys = ", ".join(list_keys(result)) or "none: the snapshot has no lists"
        console.print(
            f"[bold]user {escape(user)}[/bold] {known}; list {keys}; {len(found)} of {len(result.candidates)} "
            "candidates are the group source's",
            highlight=False,
        )
        print_result(console, user, result)
        console.print()


def list_keys(result: RecallResult) -> list[str]:
    """Name the key of the list that the group source answered from; none where the snapshot has no lists."""
    return [
        key_name(status.novel_category_key) for status in result.message.source_statuses if status.novel_category_key
    ]
