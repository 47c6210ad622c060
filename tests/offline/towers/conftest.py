"""A small host whose users spread within their families of categories, and towers small enough for tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.towers.builder import Prepared, prepare
from serendipity.offline.towers.config import (
    FactorBlock,
    FactorsConfig,
    LossConfig,
    RowsConfig,
    TowersConfig,
    TrainerConfig,
)
from serendipity.offline.towers.dual_tower import DualTower, item_content
from serendipity.offline.towers.interests import InterestNodes, ReasonedInterests
from serendipity.offline.towers.threads import limited_threads
from tests.fixtures.small_host import NUM_DAYS, START, write_small_host

INTEREST_DIM = 12
UNTIL = START + NUM_DAYS * 86_400


@dataclass(frozen=True)
class World:
    """Logs of the small host and what the towers are made from."""

    logs: Path
    histories: Histories
    catalogue: Catalogue
    nodes: InterestNodes
    interests_at: ReasonedInterests
    config: TowersConfig
    prepared: Prepared

    def towers(self, config: TowersConfig | None = None) -> DualTower:
        config = config or self.config
        content = item_content(self.catalogue, self.nodes, interest=config.item_interest)
        statistics = self.prepared.now.items.statistics.shape[1]
        return DualTower(self.catalogue, self.prepared.builder.assembler, content, statistics, config)


def small_config(**trainer: float) -> TowersConfig:
    return TowersConfig(
        vector_dim=24,
        hidden_dim=16,
        content_dim=8,
        factors=FactorsConfig(
            blocks=(
                FactorBlock(dim=8, user_power=0.25, item_power=0.25),
                FactorBlock(dim=4, user_power=0.0, item_power=0.0),
            )
        ),
        rows=RowsConfig(history_length=40, max_interests=4, num_cuts=2, min_item_users=1),
        loss=LossConfig(num_negatives=120),
        trainer=TrainerConfig.model_validate({"max_epochs": 2, "batch_users": 32} | trainer),
    )


def nodes_of(taxonomy: Taxonomy, num_items: int) -> InterestNodes:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(taxonomy), INTEREST_DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return InterestNodes.from_ranges(vectors, [node.ranges for node in taxonomy.nodes], num_items, "drawn")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with limited_threads(1):
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Read-only: tests that change something build their own."""
    root = tmp_path_factory.mktemp("towers")
    write_small_host(root / "host")
    build_logs(root / "host", root / "logs", LogsConfig(novelty_level=1), now=UNTIL + 86_400)
    histories, catalogue = Histories.read(root / "logs"), Catalogue.read(root / "logs")
    taxonomy = Taxonomy.from_catalogue(catalogue)
    nodes = nodes_of(taxonomy, len(catalogue))
    interests_at = ReasonedInterests(histories, taxonomy)
    config = small_config()
    until = split_times(histories, (0.9,))[0]
    prepared = prepare(histories, catalogue, nodes, interests_at, config, until)
    return World(root / "logs", histories, catalogue, nodes, interests_at, config, prepared)
