"""Table 3: do the categories that are named lie near the user's long-term interest? Cosines, with every step defined.

The paper lets its Novelty LLM write 100 items a category and averages their representations. Ours answers categories
alone, so that a category's vector e_c is the mean of the CSA network's own item vectors (item embedding plus category
embedding, the ones its next-item training compares the interest to) over the category's ITEMS items clicked most in
training, fewer where it has fewer. A user's vector z_u is the long-term interest, the network's last position over the
clicks known at the test. The value of a user is the mean of cos(z_u, e_c) over the first K categories of a list.

Two readings of the table's rows:
named   whose list it is, against the same z_u: RANDOM, K categories drawn from the candidates; the rows' own; TARGETS,
        the categories clicked next outside C_s
read    the paper's: CoEA's list throughout, against OTHERS, the mean interest of ten users of other groups; EXCHANGE,
        what the network makes of the short-term sequence, the clicks back to the third latest category; OWN, z_u

The plain cosine confounds what is named with how it is clicked: a category that everybody clicks is a candidate for
those who were not clicking it lately, whose interests lie away from it; one hardly clicked is a candidate for all. So
every cosine is also given `beyond` the category's own: less the mean of cos(z_v, e_c) over all users v the category c
was a candidate for. Categories drawn from the candidates get 0 there, but for chance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit, Episodes
from serendipity.groups.sequence import SHORT_CATEGORIES
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.logs.histories import Histories

ITEMS = 100
OTHER_USERS = 10

OTHERS, EXCHANGE, OWN = "ten others", "CoEA-Exchange", "own"
READ = (OTHERS, EXCHANGE, OWN)


def interest_cosines(model: GroupModel, split: CategorySplit, seed: int) -> dict[str, NDArray[np.float32]]:
    """Compare with every category what the network makes of the test's users: name of READ → [n, C] float32.

    NaN for a category that nobody clicked.
    """
    episodes, rng = split.test, np.random.default_rng([seed, 6])
    groups = model.assign(episodes.histories).group_id[episodes.users]
    own = model.vectors(episodes.histories)[episodes.users].astype(np.float64)
    exchange = replace(model, rule=replace(model.rule, threshold=1)).vectors(short_histories(episodes))
    users = {
        OTHERS: _others(own, groups, rng),
        EXCHANGE: exchange[episodes.users].astype(np.float64),
        OWN: own,
    }
    categories = category_vectors(model, split)
    return {name: _cosines(vectors, categories).astype(np.float32) for name, vectors in users.items()}


def category_vectors(model: GroupModel, split: CategorySplit, items: int = ITEMS) -> NDArray[np.float64]:
    """Average the item vectors of each category's most clicked items: [C, d], NaN for a category nobody clicked.

    Equally clicked items come in the catalogue's order.
    """
    encoder = model.encoder.interest
    clicks = np.bincount(split.training.items, minlength=len(split.catalogue.item_ids) + 1)[1:]
    found = np.full((split.num_categories, encoder.dim), np.nan)
    with torch.inference_mode():
        for column in range(split.num_categories):
            rows = np.flatnonzero((split.catalogue.item_categories == column + 1) & (clicks > 0))
            most = rows[np.argsort(-clicks[rows], kind="stable")[:items]]
            if len(most):
                tokens, numbers = encoder.identify(torch.from_numpy(most + 1))
                found[column] = encoder.item_vectors(tokens, numbers).double().mean(0).numpy()
    return found


def short_histories(episodes: Episodes) -> Histories:
    """Cut every history before the clicks that C_s was read from: the stretch that holds its last distinct categories.

    Users that are not asked for keep nothing.
    """
    known = episodes.histories
    kept = np.zeros(len(known.items), np.bool_)
    for user in episodes.users.tolist():
        start, end = int(known.offsets[user]), int(known.offsets[user + 1])
        seen: set[int] = set()
        first = end
        for place in range(end - 1, start - 1, -1):
            category = int(known.categories[place])
            if category != NO_CATEGORY:
                if category not in seen and len(seen) == SHORT_CATEGORIES:
                    break
                seen.add(category)
            first = place
        kept[first:end] = True
    return replace(
        known,
        offsets=np.concatenate([[0], np.cumsum(kept)])[known.offsets].astype(np.int64),
        items=known.items[kept],
        categories=known.categories[kept],
        times=known.times[kept],
    )


def random_lists(episodes: Episodes, length: int, seed: int) -> NDArray[np.bool_]:
    """Draw `length` candidates of every user: [n, C] bool."""
    rng = np.random.default_rng([seed, 7])
    draws = np.where(episodes.candidates, rng.random(episodes.candidates.shape), -1.0)
    return chosen(np.argsort(-draws, axis=1)[:, :length], episodes) & episodes.candidates


def chosen(top: NDArray[np.int64], episodes: Episodes) -> NDArray[np.bool_]:
    """Tell which categories are on each list: [n, C]. top: [n, K] columns, −1 past a list's end."""
    # What is past a list's end goes to a column of its own.
    wide = episodes.targets.shape[1] + 1
    found = np.zeros((len(top), wide), np.bool_)
    np.put_along_axis(found, top % wide, True, axis=1)
    return found[:, :-1]


def beyond(cosines: NDArray[np.float64], candidates: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Take from each category's cosines, [n, C], their mean over the users it is a candidate for."""
    users = np.maximum(candidates.sum(axis=0), 1)
    found: NDArray[np.float64] = cosines - np.where(candidates, cosines, 0.0).sum(axis=0) / users
    return found


def mean_over(cosines: NDArray[np.float64], among: NDArray[np.bool_]) -> float:
    """Average over users the mean cosine of the categories chosen that have a vector; both [n, C]."""
    counted = among & ~np.isnan(cosines)
    sums, counts = np.where(counted, cosines, 0.0).sum(axis=1), counted.sum(axis=1)
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def _others(vectors: NDArray[np.float64], groups: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Average ten users of other groups for each user; of all other users where there is one group: [n, d]."""
    found = np.zeros(vectors.shape, np.float64)
    for user, group in enumerate(groups.tolist()):
        others = np.flatnonzero(groups != group)
        if not len(others):
            others = np.delete(np.arange(len(groups)), user)
        found[user] = vectors[rng.choice(others, min(OTHER_USERS, len(others)), replace=False)].mean(axis=0)
    return found


def _cosines(users: NDArray[np.float64], categories: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute cosines, [n, C], NaN for a category without a vector."""
    one = users / np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-12)
    other = categories / np.maximum(np.linalg.norm(categories, axis=1, keepdims=True), 1e-12)
    found: NDArray[np.float64] = one @ other.T
    return found
