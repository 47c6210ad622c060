"""Which sources a request searches, and how many places of the answer some must have.

A source that has earned its places, as the snapshot's builder measured, proposes items to every request. Any other is
explored: with a share of the users, others each day, it proposes as well, and its best have a few places, so that
outcomes can tell when it is worth more. Where it does not propose, it still ranks what the others did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from serendipity.channel.recall.query import SOURCES, RecallQuery, SourceBounds, source_name
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.merge import Merge
from serendipity.sharding import shard_of

_DAY = 86_400
_PARTS = 1_000_000


@dataclass(frozen=True)
class Places:
    """What sources may have.

    bounds: of those that have any; propensities: probability with which each is searched; searched: those that are.
    """

    bounds: Mapping[int, SourceBounds]
    propensities: Mapping[int, float]
    searched: frozenset[int]

    @classmethod
    def of_request(cls, query: RecallQuery) -> Places:
        """Search whatever the request does not exclude, within its bounds."""
        searched = frozenset(source for source in SOURCES if not query.excludes(source))
        return cls(query.source_bounds, {source: float(source in searched) for source in SOURCES}, searched)


def share_places(
    query: RecallQuery, merge: Merge, settings: ChannelSettings, *, certain: Collection[int] = ()
) -> Places:
    """Take the bounds of the request or, where it has none, what is drawn for sources that have not earned places.

    certain: sources that propose whatever they have earned.
    """
    places = Places.of_request(query)
    if query.source_bounds:
        return places
    bounds, propensities, searched = {}, dict(places.propensities), set(places.searched)
    for source in merge.unearned.difference(certain):
        # The same for all of a user's requests of a day, so that one that is tried again has the same answer.
        draw = shard_of(f"{source_name(source)} {query.now // _DAY} {query.user_id}", _PARTS) / _PARTS
        explored = settings.explored_users
        # Places are whole: of 3 candidates a share of 0.2 is one place for three of five users.
        whole, part = divmod(query.count * settings.explored_share, 1)
        count = int(whole) + (draw < explored * part) if draw < explored else 0
        propensities[source] = explored if whole else explored * part
        if count:
            bounds[source] = SourceBounds(count, query.count)
        else:
            searched.remove(source)
    return Places(bounds, propensities, frozenset(searched))
