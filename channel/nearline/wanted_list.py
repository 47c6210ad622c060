"""A novel-category list that is wanted near-line, and when one that is stored is as good as a new one."""

from __future__ import annotations

from dataclasses import dataclass

from serendipity.groups.lists import llms_hash
from serendipity.keys import novel_category_key
from serendipity.v1 import records_pb2


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


def is_current(
    record: records_pb2.NovelCategoriesRecord, spec: records_pb2.CoevolutionSpec, taxonomy_hash: int
) -> bool:
    """Tell whether a list, an empty one too, is what the LLMs of a snapshot would give now; others are stale.

    spec: of the snapshot; taxonomy_hash: its first 8 bytes. Age does not matter: the LLMs are told the group's profile
    and the categories of the key, so that a list changes only when they do. A list that does not say which LLMs wrote
    it, such as a snapshot's own, is told by their generation alone.
    """
    return (
        record.group_model_id == spec.group_model_id
        and record.generation == spec.generation
        and record.taxonomy_hash == taxonomy_hash
        and record.llms_hash in (0, llms_hash(spec))
    )
