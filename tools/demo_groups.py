"""The demo's act of the group source: lists of novel categories for a user's group, and for somebody unseen."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.messages import RecallResult
from serendipity.tools.recall import print_result
from serendipity.v1 import channel_pb2


async def show_groups(
    client: AsyncSerendipityClient, console: Console, warm_user: str, cold_user: str, count: int
) -> None:
    """Recall from the group source for a user who should have a group and for one of none, and say why.

    That the first one has a group is said only where the answer shows it.
    """
    # Alone: what another source finds as well counts as that one's, and an answer this short may hold nothing else.
    quotas = {"interest": (0, 0), "collaborative": (0, 0), "group": (0, count), "graph": (0, 0)}
    warm, cold = [
        await client.recall(user, count=count, explain=True, quotas=quotas) for user in (warm_user, cold_user)
    ]
    known = "has a group" if is_of_another_group(warm, cold) else "shows no group of their own in this answer"
    for user, result, belongs in ((warm_user, warm, known), (cold_user, cold, "belongs to the default group")):
        keys = ", ".join(list_keys(result)) or "none: the snapshot has no lists"
        console.print(
            f"[bold]user {escape(user)}[/bold] {belongs}; answered from the list of key {keys}", highlight=False
        )
        print_result(console, user, result)
        console.print()


def is_of_another_group(result: RecallResult, of_default_group: RecallResult) -> bool:
    """Tell whether the answer names another group's profile than that of a user of the default group does.

    False where either names none: it was not explained, holds nothing, or the profile could not be read.
    """
    profile, of_everybody = _group_profile(result), _group_profile(of_default_group)
    return bool(profile and of_everybody) and profile != of_everybody


def _group_profile(result: RecallResult) -> str:
    """Read the profile of the group whose list was answered from off the reasons; empty where there is none."""
    profiles = (reason.seed for reason in result.message.reasons if reason.source == channel_pb2.SOURCE_GROUP)
    return next(profiles, "")


def list_keys(result: RecallResult) -> list[str]:
    """Name the key of the list that the group source answered from; none where the snapshot has no lists."""
    return [
        channel_pb2.NovelCategoryKey.Name(status.novel_category_key).removeprefix("NOVEL_CATEGORY_KEY_").lower()
        for status in result.message.source_statuses
        if status.novel_category_key
    ]
