"""Arrays over a snapshot's items and categories that candidates are ranked by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.item_statistics import ItemClicks

_DIMENSIONS = 64


def item_statistics(histories: Histories, catalogue: Catalogue, until: int) -> NDArray[np.float32]:
    """Count layout.ITEM_STATISTICS_COLUMNS of the n items from clicks before `until`, Unix seconds: [n, 4]."""
    counts = ItemClicks(histories, len(catalogue)).at(until)
    by_category = np.bincount(catalogue.item_categories, counts.clicks, len(catalogue.categories) + 1)
    shares = np.log((by_category + 1) / (by_category.sum() + len(by_category)))
    columns = (
        np.log1p(counts.recent_clicks[1]), counts.log_trend(7), counts.log_trend(28), shares[catalogue.item_categories],
    )  # fmt: skip
    stacked: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return stacked


def category_vectors(histories: Histories, catalogue: Catalogue, until: int) -> NDArray[np.float32]:
    """Make vectors of the c top-level categories whose cosine is that of who clicked in both before `until`.

    The leading singular vectors, times their values, of users × categories with a 1 for every category clicked in.
    Returns [c + 1, k] float32 by number, of length 1; 0 for category 0 and those that nobody clicked in.
    """
    width = len(catalogue.categories) + 1
    known = (histories.times < until) & (histories.items > 0)
    categories = catalogue.item_categories[histories.items[known] - 1].astype(np.int64)
    pairs = np.unique(histories.users[known].astype(np.int64) * width + categories)
    pairs = pairs[pairs % width > 0]
    clicks = sparse.csr_matrix(
        (np.ones(len(pairs), np.float32), (pairs // width, pairs % width)), shape=(len(histories), width)
    )
    dimensions = min(_DIMENSIONS, *clicks.shape)
    if not len(pairs):
        return np.zeros((width, 1), np.float32)
    _, singular, right = randomized_svd(clicks, dimensions, random_state=0)
    vectors = (right * singular[:, None]).T
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    is_known = (np.asarray(clicks.sum(axis=0)).ravel() > 0)[:, None]
    scaled: NDArray[np.float32] = np.where(is_known, vectors / np.maximum(lengths, 1e-9), 0).astype(np.float32)
    return scaled
