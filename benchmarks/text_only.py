"""Items ranked by text alone: the baseline of whatever has no history to be found by.

An item's text is its path in the catalogue's taxonomy, as the interests' nodes have it, so that nothing is encoded
that a build has not encoded already. Of equal cosines the more popular item of the last 28 days comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut, Score
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_TIE = 1e-3
"""What the most popular item gains in cosine: texts that differ, differ by more."""


@dataclass(frozen=True)
class TextOnly:
    """Texts of a catalogue. encoder: that made them; vectors: [nodes, D] of norm 1; nodes: [n] the node of each item,
    the lowest of its path."""

    encoder: TextEncoder
    vectors: NDArray[np.float32]
    nodes: NDArray[np.int64]

    @classmethod
    def of_build(cls, build: Path, catalogue: Catalogue) -> TextOnly:
        """Read the texts that a build encoded. Raises EncoderError."""
        encoder = TextEncoder(default_path())
        taxonomy = Taxonomy.from_catalogue(catalogue)
        ids = {node.path: node.node_id for node in taxonomy.nodes}
        vectors = encoder.encode(taxonomy.texts, build / ".cache" / "text_vectors.npz")
        return cls(encoder, vectors, np.array([ids[path] for path in catalogue.paths], np.int64))

    def near_clicks(self, histories: Histories, held_out: HeldOut, statistics: ClickStatistics) -> Score:
        """Rank by cosine with the mean of the texts of the user's latest 200 clicks."""

        def of_user(user: int) -> NDArray[np.float32]:
            items = histories.clicks_before(user, held_out.cut).items
            total = self.vectors[self.nodes[items[items > 0] - 1]].sum(axis=0)
            mean: NDArray[np.float32] = total / np.maximum(np.linalg.norm(total), np.float32(1e-9))
            return mean

        vectors = {user: of_user(user) for user in held_out.novel.users.tolist()}
        return partial(self._score, vectors, held_out, statistics)

    def near_searches(self, searches: Mapping[int, str], held_out: HeldOut, statistics: ClickStatistics) -> Score:
        """Rank by cosine with what each user searched for."""
        encoded = self.encoder.encode(list(searches.values()))
        return partial(self._score, dict(zip(searches, encoded, strict=True)), held_out, statistics)

    def _score(
        self,
        vectors: Mapping[int, NDArray[np.float32]],
        held_out: HeldOut,
        statistics: ClickStatistics,
        users: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        of_users = np.stack([vectors[user] for user in users.tolist()])
        popular = np.log1p(statistics.recent_users[held_out.candidates])
        cosines = (of_users @ self.vectors.T)[:, self.nodes[held_out.candidates]]
        scores: NDArray[np.float32] = cosines + np.float32(_TIE) * popular / max(float(popular.max(initial=0)), 1.0)
        return scores
