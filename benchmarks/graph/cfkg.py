"""CFKG of the RecBole library (Ai et al. 2018), trained by a small loop of our own.

RecBole's model class is used as it is; its data set, trainer and configuration files are not, so that it meets the same
clicks, negatives and ranking as every other row. A model asks its configuration for values by name and its data set for
numbers of values; plain mappings answer both.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from serendipity.offline.configuration import Configuration
from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.graph.sampling import ClickSampler
from serendipity.offline.graph.trainer import Look, Training, Validate
from serendipity.offline.graph.vectors import GraphVectors
from serendipity.offline.towers.threads import limited_threads

_USER, _ITEM, _OTHER_ITEM = "user_id", "item_id", "neg_item_id"
_HEAD, _RELATION, _TAIL, _OTHER_TAIL = "head_id", "relation_id", "tail_id", "neg_tail_id"


class CFKGConfig(Configuration):
    """Size and training of CFKG."""

    dim: int = Field(64, ge=1)
    """d of users, entities and relations; items are entities."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's."""
    decay: float = Field(0.0, ge=0)
    """Adam's weight decay."""
    batch_clicks: int = Field(2048, ge=1)
    """Clicks of a step, and as many triples."""
    max_epochs: int = Field(200, ge=1)
    """Epochs at most."""
    check_every: int = Field(5, ge=1)
    """Epochs from one look at the validation clicks to the next."""
    patience: int = Field(6, ge=1)
    """Looks without a better score after which training ends."""
    seed: int = 0
    """Of everything random."""


def fit_cfkg(
    graph: InterestGraph, config: CFKGConfig, *, validate: Validate | None = None, epochs: int | None = None
) -> Training:
    """Train CFKG on a graph's clicks and knowledge: the best of all looks with `validate`, else `epochs` epochs."""
    last = config.max_epochs if epochs is None else epochs
    sampler = ClickSampler(graph)
    looks: list[Look] = []
    best_epoch, best_score, worse, epoch = 0, None, 0, 0
    with limited_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _make(graph, config.dim)
        best = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.decay)
        while epoch < last and worse < config.patience:
            rng = np.random.default_rng([config.seed, 2, epoch])
            total, steps = 0.0, 0
            for clicks in sampler.epoch(config.batch_clicks, rng):
                loss = model.calculate_loss(_batch(graph, clicks, rng))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, steps = total + float(loss.detach()), steps + 1
            epoch += 1
            if epoch % config.check_every == 0 or epoch == last:
                score = validate(_vectors(model, graph)) if validate else None
                looks.append(Look(epoch, {"loss": total / steps}, score))
                better = score is None or best_score is None or score > best_score
                worse = 0 if better else worse + 1
                if better:
                    best_epoch, best_score, best = epoch, score, copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
        return Training(_vectors(model, graph), best_epoch, best_score, tuple(looks))


def _batch(graph: InterestGraph, clicks: np.ndarray[Any, Any], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    users, items, others = torch.from_numpy(clicks)
    chosen = rng.integers(graph.knowledge.shape[1], size=clicks.shape[1])
    head, relation, tail = torch.from_numpy(graph.knowledge[:, chosen])
    wrong = torch.from_numpy(rng.integers(graph.num_items + graph.num_entities, size=len(chosen)))
    columns = (_USER, _ITEM, _OTHER_ITEM, _HEAD, _RELATION, _TAIL, _OTHER_TAIL)
    return dict(zip(columns, (users, items, others, head, relation, tail, wrong), strict=True))


def _vectors(model: Any, graph: InterestGraph) -> GraphVectors:
    """Read off what its score (u + r)·v is the product of; it has nothing to fold users in from."""
    with torch.no_grad():
        users = (model.user_embedding.weight + model.relation_embedding.weight[-1]).numpy()
        items = model.entity_embedding.weight[: graph.num_items].numpy().copy()
    none = np.empty((0, items.shape[1]), np.float32)
    return GraphVectors(items, none, none, users)


@dataclass(frozen=True)
class _Numbers:
    """All that a model asks a RecBole data set: how many values a field has."""

    values: dict[str, int]

    def num(self, field: str) -> int:
        return self.values[field]


def _make(graph: InterestGraph, dim: int) -> Any:
    # Importing RecBole's models turns torch's anomaly detection on for the whole process; leaving the block puts it
    # back.
    with torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled()):
        from recbole.model.knowledge_aware_recommender.cfkg import CFKG
    settings = {
        "USER_ID_FIELD": _USER,
        "ITEM_ID_FIELD": _ITEM,
        "ENTITY_ID_FIELD": "entity_id",
        "RELATION_ID_FIELD": _RELATION,
        "HEAD_ENTITY_ID_FIELD": _HEAD,
        "TAIL_ENTITY_ID_FIELD": _TAIL,
        "NEG_PREFIX": "neg_",
        "device": torch.device("cpu"),
        "embedding_size": dim,
        "loss_function": "inner_product",
        "margin": 1.0,
    }
    numbers = {
        _USER: graph.num_users,
        _ITEM: graph.num_items,
        "entity_id": graph.num_items + graph.num_entities,
        _RELATION: graph.num_relations,
    }
    return CFKG(settings, _Numbers(numbers))
