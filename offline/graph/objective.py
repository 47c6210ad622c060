"""What a step of training is judged by: the losses of a model over the views of a graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.interest_graph import InterestGraph, View
from serendipity.offline.graph.losses import (
    contrast_loss,
    ranking_loss,
    squared_length,
    translation_loss,
    with_sign_noise,
)
from serendipity.offline.graph.model import GraphModel
from serendipity.offline.graph.propagation import sparse_tensor

Losses = dict[str, Tensor]
"""Weighted losses by name; their sum is what a step lessens."""


class Objective:
    """L = L_rec + L_CL + L_UIR over the clicks of a step; TransE's loss over the knowledge.

    A part of weight 0, and one that the graph has no edges for, is left out, and so are views that no part looks at.
    """

    def __init__(self, graph: InterestGraph, model: GraphModel, config: GraphConfig, device: torch.device) -> None:
        self._graph, self._model, self._config, self._device = graph, model, config, device
        held = np.unique(graph.holds[1]) if config.reconstruction.weight else np.empty(0, np.int64)
        self._held_interests = graph.first_interest + held
        contrasts = config.contrast.weight > 0
        self._contrasts_users = contrasts and graph.holds.shape[1] > 0
        self._contrasts_items = contrasts and graph.knowledge.shape[1] > 0
        views = {View.WHOLE}
        if self._contrasts_users:
            views |= {View.COLLABORATIVE, View.INTEREST}
        if self._contrasts_items:
            views |= {View.COLLABORATIVE, View.KNOWLEDGE}
        self._views = {view: sparse_tensor(graph.adjacency(view, config.knowledge_weight), device) for view in views}

    @property
    def whole(self) -> Tensor:
        """The adjacency of the whole graph."""
        return self._views[View.WHOLE]

    def losses(self, batch: Tensor, epoch: int, rng: np.random.Generator, noise: torch.Generator) -> Losses:
        """Give the losses of some clicks. batch: [3, n] user, clicked item, other item."""
        config, model = self._config, self._model
        start = model.embeddings()
        vectors = model.encode(self.whole)
        users, positives, negatives = batch[0], batch[1] + model.num_users, batch[2] + model.num_users
        click = ranking_loss(vectors[users], vectors[positives], vectors[negatives])
        losses = {"click": config.click_weight * click}
        if config.l2:
            losses["l2"] = config.l2 * squared_length(start[users], start[positives], start[negatives])
        if self._contrasts_users or self._contrasts_items:
            losses["contrast"] = config.contrast.weight * self._contrast(users, positives, noise)
        if len(self._held_interests):
            lost = model.reconstruction(self.whole, start, self._held_interests, epoch, rng)
            losses["reconstruction"] = config.reconstruction.weight * lost
        return losses

    def translations(self, batch: int, rng: np.random.Generator) -> Iterator[Losses]:
        """Pass once over the knowledge and, where users have embeddings, the clicks, which are a relation too."""
        if not (self._config.transe.enabled and self._graph.knowledge.shape[1]):
            return
        model = self._model
        triples = self._graph.knowledge + np.array([[model.num_users], [0], [model.num_users]])
        if model.users is not None:
            clicks = self._graph.clicks
            relation = np.full(clicks.shape[1], len(model.relations) - 1)
            triples = np.concatenate([triples, [clicks[0], relation, clicks[1] + model.num_users]], axis=1)
        triples = rng.permutation(triples, axis=1)
        for start in range(0, triples.shape[1], batch):
            head, relation, tail = torch.from_numpy(triples[:, start : start + batch]).to(self._device)
            wrong = rng.integers(model.num_users, self._graph.first_interest, size=len(head))
            nodes = model.embeddings()
            rows = nodes[head], model.relations[relation], nodes[tail], nodes[torch.from_numpy(wrong).to(self._device)]
            loss = translation_loss(*rows) + self._config.transe.l2 * squared_length(*rows)
            yield {"translation": loss}

    def _contrast(self, users: Tensor, items: Tensor, noise: torch.Generator) -> Tensor:
        config = self._config.contrast
        plain = self._model.encode(self._views[View.COLLABORATIVE])
        total = plain.new_zeros(())
        for wanted, view, nodes in (
            (self._contrasts_users, View.INTEREST, users),
            (self._contrasts_items, View.KNOWLEDGE, items),
        ):
            if wanted:
                # A step's clicks are in random order, so its first nodes are a sample; each once, or it would be its
                # own negative.
                some = torch.unique(nodes[: config.sample])
                augmented = self._model.encode(self._views[view])
                noisy = with_sign_noise(plain[some], config.noise, noise)
                total = total + contrast_loss(noisy, augmented[some], config.temperature)
        return total
