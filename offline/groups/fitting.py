"""Fits everything that is learned: the network on next items, the RQ-VAE on its interests, clusters on its CSIDs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from serendipity.features import FeatureAssembler
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.group_encoder import GroupEncoder, cluster_csids
from serendipity.offline.groups.interest_encoder import InterestEncoder
from serendipity.offline.groups.kept_histories import KeptHistories
from serendipity.offline.groups.next_item import NextItemReport, NextItemTrainer, make_vocabulary
from serendipity.offline.groups.rq_vae import RqVae, train_rq_vae

POSITIONS = 2_048
"""Positions of a batch when interests are read: 9 MB of attention weights a layer stay in the cache (7 µs a position on
one core; 12 µs with eight times as many)."""


@dataclass(frozen=True)
class Fitted:
    """An encoder in evaluation mode, with what it was fitted to.

    warm: [W] users with enough history; interests: [W, d], theirs at the end of it; codes: [W, layers] int64;
    group_ids: [W] int64, 1 … G.
    """

    encoder: GroupEncoder
    next_item: NextItemReport
    warm: NDArray[np.int64]
    interests: Tensor
    codes: Tensor
    group_ids: Tensor


def fit_encoder(
    kept: KeptHistories,
    item_categories: NDArray[np.int32],
    fields: FeatureAssembler,
    config: GroupsConfig,
    progress: Progress | None = None,
) -> Fitted:
    """Fit an encoder to kept clicks, of whose users at least one has config.sequence.min_clicks.

    item_categories: [n] int32, by catalogue row. Weights and dropout draw from torch's global random state.
    """
    vocabulary = make_vocabulary(kept, item_categories, config.interest.min_item_clicks)
    sizes = [len(values) + 1 for values in fields.profile_fields.values()] or [1]
    network = InterestEncoder(vocabulary, sizes, config.interest)
    next_item = NextItemTrainer(network, kept, config.interest, config.seed).train(progress)
    warm = np.flatnonzero(kept.lengths >= config.sequence.min_clicks)
    latest, earlier = _interests(network, kept, warm, config)
    rq_vae = RqVae(config.interest.dim, config.quantizer)
    train_rq_vae(rq_vae, torch.cat([latest, earlier]), config.quantizer, config.seed, progress)
    with torch.inference_mode():
        codes, vectors = rq_vae.eval()(latest)
    centroids = cluster_csids(vectors, config.num_groups, config.seed)
    encoder = GroupEncoder(network, rq_vae, centroids).eval()
    with torch.inference_mode():
        _, group_ids = encoder.groups(latest)
    return Fitted(encoder, next_item, warm, latest, codes, group_ids)


def _interests(
    network: InterestEncoder, kept: KeptHistories, warm: NDArray[np.int64], config: GroupsConfig
) -> tuple[Tensor, Tensor]:
    """Read the interests of warm users, [W, d], and those at some earlier moments, [m, d].

    Earlier moments are drawn from the latest stretch the network can read, so that one pass gives both; there the
    network sees less of what came before than it would when asked at that moment.
    """
    random = np.random.default_rng(config.seed)
    latest = torch.empty(len(warm), config.interest.dim)
    place = np.full(len(kept), -1)
    place[warm] = np.arange(len(warm))
    earlier = []
    ends = np.where(place >= 0, kept.lengths, 0)
    with torch.inference_mode():
        for some in kept.latest(ends, config.interest.sequence_length, POSITIONS):
            interests = network.interests(torch.from_numpy(some.items), torch.from_numpy(some.profiles))
            rows = np.flatnonzero(place[some.users] >= 0)
            latest[place[some.users[rows]]] = interests[rows, some.lengths[rows]]
            fewest = np.minimum(config.sequence.min_clicks, some.lengths[rows])
            for _ in range(config.quantizer.prefixes):
                earlier.append(interests[rows, random.integers(fewest, some.lengths[rows] + 1)])
    return latest.clone(), torch.cat(earlier).clone() if earlier else latest[:0].clone()
