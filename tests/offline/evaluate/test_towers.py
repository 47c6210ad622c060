import json
from pathlib import Path

import numpy as np
import pytest

from serendipity.offline.encoder import TextEncoder
from serendipity.offline.evaluate.control_choice import CONTROLS
from serendipity.offline.evaluate.towers import AGAINST, TowersEvaluation, evaluate_towers, variants_of
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
    variants = dict(list(variants_of(CONFIG).items())[:2])
    with limited_threads(1):
        return evaluate_towers(root / "logs", root / "interests", variants, [0, 1], root / "work")


def test_every_method_is_measured_on_the_same_users(evaluation: TowersEvaluation) -> None:
    methods = {run.method: len(evaluation.of(run.method)) for run in evaluation.runs}
    controls = {control.name: 2 if control.seeded else 1 for control in CONTROLS}
    assert methods == {**controls, "user tower, λ = 0.1": 2, "user tower, λ = 0": 2}
    for run in evaluation.runs:
        for accuracy, users in ((run.every, evaluation.users[0]), (run.novel, evaluation.users[1])):
            for k, values in accuracy.recall.items():
                assert len(values) == users
                assert ((values >= 0) & (values <= 1)).all()
                assert (accuracy.recall[20] <= accuracy.recall[100]).all()
                assert (accuracy.ndcg[k] <= 1 + 1e-9).all()
            assert 0 < accuracy.coverage <= 1


def test_towers_beat_popularity_where_tastes_differ(evaluation: TowersEvaluation) -> None:
    # A user of this host clicks in a quarter to half of the categories, and popularity knows nothing of that.
    popular = evaluation.of("popularity")[0].every.recall[20].mean()
    for run in evaluation.of("user tower, λ = 0.1"):
        assert run.every.recall[20].mean() > 1.3 * popular


def test_ratios_are_taken_against_als_with_a_trend(evaluation: TowersEvaluation) -> None:
    own = evaluation.ratio(AGAINST, 20, novel=False)
    assert own.value == own.low == own.high == 1.0
    found = evaluation.ratio("popularity", 100, novel=True)
    means = [np.mean([run.novel.recall[100].mean() for run in evaluation.of(name)]) for name in ("popularity", AGAINST)]
    assert found.value == pytest.approx(means[0] / means[1])
    assert found.low < found.value < found.high


def test_the_report_says_what_was_measured_and_how(evaluation: TowersEvaluation, tmp_path: Path) -> None:
    write_towers_report(
        evaluation,
        tmp_path,
        dataset="small",
        command="serendip evaluate towers --dataset small",
        configuration=CONFIG.model_dump_json(),
        now=1_700_000_000,
        seconds=12.3,
    )
    content = json.loads((tmp_path / JSON_REPORT).read_text())
    assert content["date"] == "2023-11-14"
    assert content["configuration"]["vector_dim"] == 24
    of_controls = [seed for control in CONTROLS for seed in ((0, 1) if control.seeded else (0,))]
    assert [run["seed"] for run in content["runs"]] == [*of_controls, 0, 1, 0, 1]
    page = (tmp_path / MARKDOWN_REPORT).read_text()
    assert "serendip evaluate towers --dataset small" in page
    recall = evaluation.of("popularity")[0].novel.recall[20].mean()
    assert f"{recall:.4f}" in page
    assert page.count("| user tower, λ = 0.1 |") == 5


def test_ablations_change_one_thing_each() -> None:
    variants = variants_of(TowersConfig())
    reference, without, swapped = variants.values()
    assert reference == TowersConfig()
    assert without.loss.contrastive_weight == 0
    assert without.model_copy(update={"loss": reference.loss}) == reference
    assert swapped.item_interest is not reference.item_interest
    assert swapped.model_copy(update={"item_interest": reference.item_interest}) == reference
