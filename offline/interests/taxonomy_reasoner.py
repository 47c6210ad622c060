"""Fits the taxonomy reasoner (serendipity.interests.taxonomy_reasoner) on the logs.

Each category is grounded in the taxonomy node that holds most of its recent clicks.
"""

from __future__ import annotations

import numpy as np

from serendipity.interests.behaviour import Behaviour
from serendipity.interests.search_matching import SearchMatcher
from serendipity.interests.taxonomy_reasoner import CategoryNode, TaxonomyReasoner
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.entry_model import (
    FIT_WINDOWS,
    HORIZON_DAYS,
    RATE_WINDOWS,
    EntryModelConfig,
    Window,
    fit_entry_model,
)
from serendipity.offline.interests.taxonomy import NO_NODE, Taxonomy
from serendipity.offline.logs.histories import Histories

_DAY = 86_400

_MAX_USERS = 20_000
"""Users the entry model is estimated on, evenly spaced among those with clicks."""

_GROUNDING_HALF_LIFE_DAYS = 90.0


def fit_reasoner(taxonomy: Taxonomy, histories: Histories, until: int) -> TaxonomyReasoner:
    """Estimate everything from clicks strictly before a moment (Unix seconds)."""
    matcher = SearchMatcher(taxonomy.searched_names)
    profiles, now, windows = _windows(taxonomy, matcher, histories, until)
    model = fit_entry_model(now, windows, profiles, EntryModelConfig())
    return TaxonomyReasoner(model, _ground(taxonomy, histories, until), matcher)


def _windows(
    taxonomy: Taxonomy, matcher: SearchMatcher, histories: Histories, until: int
) -> tuple[list[dict[str, str]], Behaviour, list[Window]]:
    num_categories = len(taxonomy.categories)
    starts = histories.offsets[:-1][np.diff(histories.offsets) > 0]
    owners = histories.users[starts]
    chosen = owners[histories.times[starts] < until]
    if len(chosen) > _MAX_USERS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _MAX_USERS).astype(np.int64)]
    users: list[int] = chosen.tolist()
    horizon = round(HORIZON_DAYS * _DAY)
    # Half a horizon of history must come before a window, or everything in it looks newly entered.
    earliest = int(histories.times.min()) + horizon // 2 if len(histories.times) else until
    cuts = [until - horizon * (index + 1) for index in range(RATE_WINDOWS + FIT_WINDOWS)]
    row_of = np.full(len(histories), -1, np.int64)
    row_of[users] = np.arange(len(users))
    windows = []
    for cut in (cut for cut in cuts if cut >= earliest):
        behaviour = Behaviour.of(contexts_at(histories, cut, users), num_categories, matcher)
        clicked = np.zeros(behaviour.counts.shape, np.bool_)
        inside = (histories.times >= cut) & (histories.times < cut + horizon) & (histories.categories != NO_CATEGORY)
        rows = row_of[histories.users[inside]]
        clicked[rows[rows >= 0], histories.categories[inside][rows >= 0]] = True
        windows.append(Window(behaviour, clicked))
    now = Behaviour.of(contexts_at(histories, until, users), num_categories, matcher)
    return [histories.profiles[user] for user in users], now, windows


def _ground(taxonomy: Taxonomy, histories: Histories, until: int) -> list[CategoryNode]:
    """Choose each category's node: a name may occur under several parents."""
    before = (histories.times < until) & (histories.items > 0)
    nodes = taxonomy.row_nodes[histories.items[before] - 1]
    weights = np.exp2((histories.times[before] - until) / (_GROUNDING_HALF_LIFE_DAYS * _DAY))
    clicks = np.bincount(nodes[nodes != NO_NODE], weights=weights[nodes != NO_NODE], minlength=len(taxonomy))
    # Without clicks, the node with most items.
    items = np.bincount(taxonomy.row_nodes[taxonomy.row_nodes != NO_NODE], minlength=len(taxonomy))
    chosen = [CategoryNode(NO_NODE, (name,)) for name in taxonomy.categories]
    level = taxonomy.novelty_level
    candidates = [
        node for node in taxonomy.nodes if node.of_catalogue and len(node.path) == level + 1 and node.categories
    ]
    for node in sorted(candidates, key=lambda node: (clicks[node.node_id], items[node.node_id], -node.node_id)):
        chosen[node.categories[0] - 1] = CategoryNode(node.node_id, node.path)
    return chosen
