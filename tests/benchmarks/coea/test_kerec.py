from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.coea.category_ranker import RankerConfig
from benchmarks.coea.complements import Judgements, judge
from benchmarks.coea.kerec import FittedKerec, LlmKerec, candidate_pairs
from benchmarks.coea.protocol import CategorySplit
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.tuning.base_model import load_model
from tests.benchmarks.coea.test_google import TINY
from tests.benchmarks.coea.worlds import catalogue, cyclists, histories
from tests.fixtures.tiny_language_model import make_tiny_language_model

RANKER = RankerConfig(epochs=1, moments=4)
PAIRS = [("tea", "cups"), ("tea", "tyres"), ("tyres", "tea")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_language_model(tmp_path_factory.mktemp("model"), chat=True)


@pytest.fixture(scope="module")
def world() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(40, 8, 12), catalogue(8))


def method(model: Path, cache: Path, **changes: object) -> LlmKerec:
    llm = CoevolutionConfig(base=str(model), prompt_style="chat")
    return LlmKerec(llm=llm, ranker=RANKER, cache=cache, **changes)  # type: ignore[arg-type]


def test_a_pair_is_judged_the_same_alone_as_among_others(model: Path) -> None:
    base = load_model(model, "tiny", "chat")

    odds = judge(base, PAIRS)

    assert len(set(odds.tolist())) == 3
    assert judge(base, PAIRS[1:2]) == pytest.approx(odds[1:2], abs=1e-4)


def test_judgements_are_kept_for_these_pairs_and_this_model(tmp_path: Path) -> None:
    odds = np.array([0.5, -1.0, 2.0], np.float32)
    Judgements(tmp_path, "one").write(PAIRS, odds)

    assert Judgements(tmp_path, "one").read(PAIRS) == pytest.approx(odds)
    assert Judgements(tmp_path, "one").read(PAIRS[:2]) is None
    assert Judgements(tmp_path, "other").read(PAIRS) is None


@pytest.mark.parametrize("content", ["", "[1.0]", '{"a": 1}'])
def test_a_damaged_file_of_judgements_is_named(tmp_path: Path, content: str) -> None:
    judgements = Judgements(tmp_path, "one")
    judgements.write(PAIRS, np.zeros(3, np.float32))
    (file,) = tmp_path.glob("*.json")
    file.write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=file.name):
        judgements.read(PAIRS)


def test_pairs_that_no_user_clicked_both_of_are_not_judged() -> None:
    clicked = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 0]], np.bool_)

    assert candidate_pairs(clicked, 10) == [(0, 1), (0, 2), (1, 2)]
    assert candidate_pairs(clicked, 1) == [(0, 1)]


def test_the_judge_is_asked_once_for_all_seeds(model: Path, world: CategorySplit, tmp_path: Path) -> None:
    kerec = method(model, tmp_path)
    first = kerec.fit(world, 0)
    (file,) = tmp_path.glob("*.json")
    written = file.stat().st_mtime_ns

    second = kerec.fit(world, 1)

    assert file.stat().st_mtime_ns == written
    assert np.array_equal(first.edges, second.edges)


def test_only_the_pairs_the_judge_is_surest_of_become_edges(model: Path, world: CategorySplit, tmp_path: Path) -> None:
    fitted = method(model, tmp_path, max_pairs=10, kept=0.3).fit(world, 0)

    assert np.count_nonzero(fitted.edges) == 2 * 3
    assert np.array_equal(fitted.edges > 0, fitted.edges.T > 0)


def test_what_the_latest_categories_expand_to_comes_first_where_it_counts_alone(
    model: Path, world: CategorySplit, tmp_path: Path
) -> None:
    fitted = method(model, tmp_path).fit(world, 0)
    edges = np.zeros((8, 8))
    for column in range(8):
        edges[column, (column + 3) % 8] = 1.0
    fitted = FittedKerec(fitted.ranker, edges)

    scores = np.where(world.test.candidates, fitted.scores(world.test, {"strength": 1e4}), -np.inf)

    for recent, column in zip(world.test.recent, scores.argmax(axis=1).tolist(), strict=True):
        assert column in {(number - 1 + 3) % 8 for number in recent}
    assert fitted.scores(world.test, {"strength": 0.0}) == pytest.approx(fitted.ranker.scores(world.test), abs=1e-5)


def test_a_tiny_judge_is_taught_by_first_occurrences(tmp_path: Path) -> None:
    # Users stay in one half of the categories.
    clicks = [[(start + step) % 4 + 1 + 4 * half for step in range(12)] for half in (0, 1) for start in range(30)]
    world = CategorySplit.leave_last_out(histories(clicks), catalogue(8))

    fitted = LlmKerec(llm=TINY, ranker=RANKER, cache=tmp_path).fit(world, 0)

    assert not fitted.edges[:4, 4:].any()
    assert fitted.edges[:4, :4].any()
    assert not list(tmp_path.iterdir())
