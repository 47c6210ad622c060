"""Which list the group source answers from as time goes on: the exact key's, a less specific one's, or the default.

A replay that is frozen at the cut finds the exact key's list of every user that lists were made for. Users go on
clicking, and their latest categories change: so each is asked for as of a click of theirs within the period.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import CLICK_WINDOW
from serendipity.offline.evaluate.replay import Recall, key_name
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2

KEYS = ("m3", "m2", "m1", "m0", "default", "none")
"""From the most to the least specific; m3 to m0: lists of the user's own group."""


def novel_category_keys(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    users: NDArray[np.int64],
    cut: int,
    until: int,
    *,
    seed: int,
    click_type: channel_pb2.EventType = channel_pb2.EVENT_TYPE_CLICK,
) -> dict[str, int]:
    """Count the keys that users are answered from, each as of one click drawn uniformly from theirs in [cut, until).

    recall: the pipeline over a snapshot built as of the cut; what was clicked since, before the drawn one, is sent
    along as events of the session. users: [n] user numbers with a click in the period. Empty for a snapshot without
    lists.
    """
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for user in users.tolist():
        first, end = histories.count_before(user, cut), histories.count_before(user, until)
        start = int(histories.offsets[user])
        time = int(histories.times[start + int(rng.integers(first, end))])
        since = histories.clicks_before(user, time, min(CLICK_WINDOW, histories.count_before(user, time) - first))
        events = [
            channel_pb2.Event(item_id=catalogue.item_ids[item - 1], type=click_type)
            for item in since.items[::-1].tolist()
            if item
        ]
        response = recall(channel_pb2.RecallRequest(user_id=histories.user_ids[user], count=1, recent_events=events))
        for status in response.source_statuses:
            if status.novel_category_key:
                found[key_name(status.novel_category_key)] += 1
    return {key: found[key] for key in KEYS if found[key]}


def describe_keys(counts: Mapping[str, int]) -> str:
    """Write the shares of the exact key, of less specific ones of the group, and of the default list; "–" if none.

    The exact key is that of the three latest categories; who has fewer is answered by one of the less specific.
    """
    total = sum(counts.values())
    if not total:
        return "–"
    shares = {
        "exact": counts.get("m3", 0),
        "back-off": sum(counts.get(key, 0) for key in ("m2", "m1", "m0")),
        "default": counts.get("default", 0),
        "none": counts.get("none", 0),
    }
    by_key = ", ".join(f"{key} {counts[key] / total:.1%}" for key in KEYS if counts.get(key))
    return ", ".join(f"{name} {count / total:.1%}" for name, count in shares.items()) + f" ({by_key})"
