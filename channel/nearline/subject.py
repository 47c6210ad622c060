"""What an entry of the near-line queues is about: a user, or a novel-category list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from serendipity.keys import novel_category_key
from serendipity.layout import user_key
from serendipity.v1 import records_pb2


class Kind(StrEnum):
    """What is wanted near-line; each kind has a queue and a model of its own."""

    INTERESTS = "interests"
    """A user's latent interests, by InterestGPT."""
    LISTS = "lists"
    """A novel-category list, by the Novelty and the Relevance LLM."""


@dataclass(frozen=True)
class WantedList:
    """The facts a list is made from.

    group_model_id: model the group is of; group_id: group told to the LLMs, 0 for the default one; categories: names
    of the m latest distinct top-level categories, newest first.
    """

    group_model_id: str
    group_id: int
    categories: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """Key the list is stored and asked for by. Raises ValueError for a group id out of range."""
        return novel_category_key(self.group_model_id, self.group_id, self.categories)


def wanted_list(entry: records_pb2.NearlineEntry) -> WantedList:
    """Read the list that an entry of Kind.LISTS is about."""
    want = entry.novel_categories
    return WantedList(want.group_model_id, want.group_id, tuple(want.categories))


def entry_key(entry: records_pb2.NearlineEntry) -> bytes:
    """Give the key an entry is queued and its records are stored by. Raises ValueError, struct.error."""
    if entry.HasField("novel_categories"):
        return wanted_list(entry).key
    if not entry.user_id:
        raise ValueError("user_id: found an empty one, expected a user's")
    return user_key(entry.user_id)


def subject_name(entry: records_pb2.NearlineEntry) -> str:
    """Name what an entry is about for an operator: the user's id, or group and categories."""
    if entry.HasField("novel_categories"):
        want = entry.novel_categories
        return f"group {want.group_id}: {', '.join(want.categories) or '-'}"
    return entry.user_id
