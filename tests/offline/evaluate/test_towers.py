import json
from pathlib import Path

import numpy as np
import pytest

from serendipity.offline.encoder import TextEncoder
from serendipity.offline.evaluate.control_choice import ALS_TREND, CONTROLS, Grid
from serendipity.offline.evaluate.methods import MethodResult
from serendipity.offline.evaluate.towers import TOWERS, TowersEvaluation, evaluate_towers
from serendipity.offline.evaluate.towers_report import JSON_REPORT, MARKDOWN_REPORT, write_towers_report
from serendipity.offline.interests.builder import build_interests
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.towers.config import (
    FactorBlock,
    FactorsConfig,
    LossConfig,
    RowsConfig,
    TowersConfig,
    TrainerConfig,
)
from serendipity.offline.towers.threads import limited_threads
from tests.fixtures.small_host import NUM_DAYS, START, write_small_host


class DrawnEncoder:
    name = "drawn"
    dim = 12

    def encode(self, texts: list[str], cache: Path | None = None) -> np.ndarray:
        vectors = np.array([np.random.default_rng(list(text.encode())).normal(size=self.dim) for text in texts])
        unit: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit


CONFIG = TowersConfig(
    vector_dim=24,
    hidden_dim=16,
    content_dim=8,
    factors=FactorsConfig(blocks=(FactorBlock(dim=8, user_power=0.25, item_power=0.25),)),
    rows=RowsConfig(history_length=60, max_interests=4, num_cuts=2, min_item_users=1),
    loss=LossConfig(num_negatives=120),
    trainer=TrainerConfig(max_epochs=2, batch_users=32),
)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> TowersEvaluation:
    root = tmp_path_factory.mktemp("evaluate-towers")
    write_small_host(root / "host")
    build_logs(root / "host", root / "logs", LogsConfig(novelty_level=1), now=START + (NUM_DAYS + 1) * 86_400)
    encoder: TextEncoder = DrawnEncoder()  # type: ignore[assignment]
    build_interests(root / "logs", root / "interests", encoder, k=4)
    with limited_threads(1):
        grid = Grid(factors=(8,), alphas=(1.0,), ridges=(100.0,), exponents=(0.0, 0.5))
        return evaluate_towers(root / "logs", root / "interests", CONFIG, [0, 1], root / "work", grid=grid)


def of(evaluation: TowersEvaluation, name: str) -> MethodResult:
    return next(method for method in evaluation.methods if method.name == name)


def test_every_method_is_measured_on_the_same_users(evaluation: TowersEvaluation) -> None:
    seeds = {method.name: len(method.seeds) for method in evaluation.methods}
    controls = {control.name: 2 if control.seeded else 1 for control in CONTROLS}
    assert seeds == {**controls, TOWERS: 2}
    for method in evaluation.methods:
        for k in (20, 100):
            values = method.per_user["recall", k]
            assert values.shape == (len(method.seeds), evaluation.users)
            assert ((values >= 0) & (values <= 1)).all()
        assert (method.per_user["recall", 20] <= method.per_user["recall", 100]).all()


def test_towers_beat_popularity_where_tastes_differ(evaluation: TowersEvaluation) -> None:
    # A user of this host clicks in a quarter to half of the categories, and popularity knows nothing of that.
    popular = of(evaluation, "popularity").mean("recall", 20)
    assert (of(evaluation, TOWERS).by_seed("recall", 20) > 1.3 * popular).all()


def test_the_report_says_what_was_measured_and_how(evaluation: TowersEvaluation, tmp_path: Path) -> None:
    configuration = CONFIG.model_dump(mode="json")
    write_towers_report(evaluation, tmp_path, dataset="small", heading="how", configuration=configuration)
    content = json.loads((tmp_path / JSON_REPORT).read_text())
    assert content["configuration"]["vector_dim"] == 24
    assert {training["seed"] for training in content["trainings"]} == {0, 1}
    page = (tmp_path / MARKDOWN_REPORT).read_text()
    assert page.startswith("# Towers on small\n\nhow\n")
    recall = of(evaluation, "popularity").mean("recall", 20)
    assert f"| popularity | {recall:.4f} / " in page
    # By measure, against ALS × trend, and over seeds.
    assert page.count(f"| {TOWERS} |") == 3
    assert "| 0 | " in page
    assert f"{ALS_TREND} ÷ every other method" in page
