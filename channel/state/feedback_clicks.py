"""Acknowledged clicks as the columns that novelty is judged by: one code for requests and near-line."""

from __future__ import annotations

import numpy as np

from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.stores import feedback_columns
from serendipity.novelty import NO_CATEGORY, Clicks
from serendipity.v1 import records_pb2


def feedback_clicks(snapshot: Snapshot, feedback: records_pb2.UserFeedbackRecord) -> Clicks:
    """Lay acknowledged clicks out by the rows and categories of a snapshot."""
    items, times = feedback_columns(feedback.clicks, snapshot.item_ids)
    categories = snapshot.categories_of(items)
    for i in np.flatnonzero(items[: len(feedback.click_categories)] == 0).tolist():
        # In the catalogue when it was clicked and gone since: its category stays known to the user all the same.
        categories[i] = snapshot.category_numbers.get(feedback.click_categories[i], NO_CATEGORY)
    return Clicks(items, categories, times)
