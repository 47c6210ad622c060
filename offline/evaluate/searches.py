"""Sessions that open with a search: a request as a host sends it then, and the same request without the search."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.replay import Recall
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2


def opening_searches(histories: Histories, held_out: HeldOut) -> dict[int, str]:
    """Find the users whose first event in the held-out period is a search, and what they searched for.

    What is known of them at the search is what was known at the cut, so the lists and targets of the cut hold.
    """
    found = {}
    for user in held_out.novel.users.tolist():
        start, end = int(histories.search_offsets[user]), int(histories.search_offsets[user + 1])
        times = histories.search_times[start:end]
        first = int(np.searchsorted(times, held_out.cut))
        if first == len(times) or times[first] >= held_out.until:
            continue
        clicks = histories.times[histories.offsets[user] : histories.offsets[user + 1]]
        others = clicks
        if len(histories.signal_offsets):
            signals = slice(int(histories.signal_offsets[user]), int(histories.signal_offsets[user + 1]))
            others = np.concatenate([clicks, histories.signal_times[signals]])
        if times[first] <= others[others >= held_out.cut].min(initial=held_out.until):
            found[user] = histories.searches[start + first]
    return found


def with_searches(recall: Recall, histories: Histories, searches: Mapping[int, str]) -> Recall:
    """Send each user's search along as an event of the session."""

    def recall_with_search(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        query = searches[histories.user_numbers[request.user_id]]
        request.recent_events.add(type=channel_pb2.EVENT_TYPE_SEARCH, query=query)
        return recall(request)

    return recall_with_search
