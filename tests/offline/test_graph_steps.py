"""The graph's steps with a language model: asked once a category, as of the cut, and taken over for all logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.progress import Progress

from serendipity.offline.build_config import BuildConfig
from serendipity.offline.graph.category_interests import CATEGORIES
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.graph_steps import GRAPH, VALIDATION_GRAPH, GraphSteps
from serendipity.offline.language_models.completion_cache import CompletionCache
from serendipity.offline.language_models.language_model import LanguageModelError
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.steps import Numbers, Step
from serendipity.offline.workers import StepContext
from tests.fixtures.small_host import FAMILIES, NUM_DAYS, START, write_small_host
from tests.fixtures.tiny_language_model import make_tiny_language_model

NUM_CATEGORIES = 3 * len(FAMILIES)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build")
    write_small_host(out / "host", num_users=40, num_items=60)
    for logs, days in (("logs", NUM_DAYS), ("validation/logs", NUM_DAYS * 3 // 4)):
        until = START + days * 86_400
        build_logs(out / "host", out / logs, LogsConfig(novelty_level=1, until=until), now=START + NUM_DAYS * 86_400)
    return out


def run(out: Path, step: Step) -> Numbers:
    (out / step.name).mkdir(parents=True, exist_ok=True)
    return step.run(StepContext(out / step.name, None, Progress(disable=True)))


def steps(out: Path, language_model: dict[str, object]) -> GraphSteps:
    held = {"num_clusters": [4], "language_model": language_model}
    return GraphSteps(BuildConfig.model_validate({"graph": {"held": held}}), out, out / ".cache")


def test_a_model_is_asked_once_for_both_graphs(out: Path, tmp_path: Path) -> None:
    weights = make_tiny_language_model(tmp_path / "model")
    as_of_the_cut, of_all = steps(out, {"kind": "local", "path": str(weights), "device": "cpu"}).steps()
    first = run(out, as_of_the_cut)
    assert first["categories asked about"] == NUM_CATEGORIES
    asked = len(CompletionCache.at(out / ".cache" / "completions"))
    second = run(out, of_all)
    assert second["categories asked about"] == NUM_CATEGORIES
    assert len(CompletionCache.at(out / ".cache" / "completions")) == asked == NUM_CATEGORIES
    answers = [(out / name / CATEGORIES).read_bytes() for name in (VALIDATION_GRAPH, GRAPH)]
    assert answers[0] == answers[1]
    assert len(json.loads(answers[0])) == NUM_CATEGORIES
    assert ServedGraph.read(out / GRAPH).item_interests.shape[0] == 60
    assert weights in of_all.inputs


def test_an_endpoint_that_is_away_ends_the_step(out: Path) -> None:
    away = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "max_retries": 0}
    with pytest.raises(LanguageModelError, match=r"m at 127\.0\.0\.1:9: no connection"):
        run(out, steps(out, away).steps()[0])


def test_a_graph_of_earlier_logs_is_none_of_a_build_that_could_make_none(out: Path) -> None:
    graph = {"held": {"num_clusters": [4]}}
    first = GraphSteps(BuildConfig.model_validate({"graph": graph}), out, out / ".cache")
    for step in first.steps():
        shutil.rmtree(out / step.name, ignore_errors=True)
        run(out, step)
    assert first.directory() == out / GRAPH
    second = GraphSteps(BuildConfig.model_validate({"graph": graph | {"validation": 0.999999}}), out, out / ".cache")
    for step in second.steps():
        shutil.rmtree(out / step.name)
        assert "no: " in str(run(out, step)["made"])
    assert second.directory() is None
