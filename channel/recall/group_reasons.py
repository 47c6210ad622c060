"""Why the group source found an item: group profile → latest categories → novel category."""

from __future__ import annotations

from collections.abc import Sequence

from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import Reason
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.interests.text import MAX_CHARS, clean_text


def group_reason(novel: NovelCategories, position: int) -> Reason:
    """Say why the category at a position of the list was searched; its weight is the category's alignment."""
    profile = _shortened(novel.profile)
    recent = clean_text(_listed([name for name in map(clean_text, novel.recent) if name]))
    category = clean_text(novel.names[position])
    text = _sentence(novel.group_id, profile, recent, category)
    return Reason(Source.GROUP, profile, recent, category, text, float(novel.alignments[position]))


def _sentence(group_id: int, profile: str, recent: str, category: str) -> str:
    if group_id == DEFAULT_GROUP:
        return f"Many people who choose {recent} turn to {category} next." if recent else f"Many people try {category}."
    like_you = f"People like you ({profile})" if profile else "People like you"
    return f"{like_you} turn to {category} after {recent}." if recent else f"{like_you} may want {category}."


def _shortened(profile: str) -> str:
    """Cut a profile after its first sentence, or else between two words."""
    first = clean_text(profile.partition(". ")[0], MAX_CHARS + 1).rstrip(".")
    return first if len(first) <= MAX_CHARS else clean_text(first.rpartition(" ")[0] or first)


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
