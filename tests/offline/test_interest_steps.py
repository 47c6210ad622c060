"""The steps around latent interests, run as a build runs them, with a real language model of random weights."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from serendipity.offline.build_config import BuildConfig
from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.interest_steps import InterestSteps
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.progress import build_display
from serendipity.offline.steps import Outcome, run_steps
from tests.fixtures.small_host import write_small_host
from tests.fixtures.tiny_language_model import make_tiny_language_model


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(default_path())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_small_host(tmp_path / "host", num_users=8, num_items=120)
    build_logs(tmp_path / "host", tmp_path / "out" / "logs", LogsConfig(novelty_level=1))
    make_tiny_language_model(tmp_path / "model")
    return tmp_path / "out"


def run(out: Path, encoder: TextEncoder, name: str = "interests", **interests: object) -> Outcome:
    config = BuildConfig.model_validate({"interests": interests})
    steps = InterestSteps(config, out, default_path(), out / ".cache")
    steps.encoder = encoder
    wanted = [step for step in steps.steps() if step.name == name]
    with build_display(Console(file=io.StringIO()), 1) as display:
        (outcome,) = run_steps(wanted, out, display)
    return outcome


def test_a_language_model_is_asked_once_whatever_is_built_again(out: Path, encoder: TextEncoder) -> None:
    reasoner = {
        "mode": "json",
        "debate": {"max_new_tokens": 8},
        "models": [{"kind": "local", "path": str(out.parent / "model"), "device": "cpu"}],
    }
    first = run(out, encoder, reasoner=reasoner)
    assert (first.ran, first.numbers["prompts"], first.numbers["of them known"]) == (True, 8, 0)
    assert first.numbers["completion tokens"] > 0
    summary = InterestsSummary.read(out / "interests")
    assert summary.reasoner.endswith("json 1 × 1")
    # Other clusters make the step run again, of the answers that are known.
    again = run(out, encoder, reasoner=reasoner, clusters={"min_users": 2})
    assert (again.ran, again.numbers["prompts"], again.numbers["of them known"]) == (True, 8, 8)
    assert not run(out, encoder, reasoner=reasoner, clusters={"min_users": 2}).ran
    # Other weights at the same place are another model.
    make_tiny_language_model(out.parent / "model", seed=1)
    other = run(out, encoder, reasoner=reasoner, clusters={"min_users": 2})
    assert (other.ran, other.numbers["of them known"]) == (True, 0)


def test_the_vocabulary_outlives_a_change_of_reasoner(out: Path, encoder: TextEncoder) -> None:
    by_taxonomy = run(out, encoder)
    assert "prompts" not in by_taxonomy.numbers
    before = Vocabulary.read(out / "interests")
    run(out, encoder, clusters={"min_users": 2})
    after = Vocabulary.read(out / "interests")
    assert (after.vocabulary_id, after.nodes) == (before.vocabulary_id, before.nodes)


def test_validation_interests_ground_by_the_threshold_of_the_interests(out: Path, encoder: TextEncoder) -> None:
    run(out, encoder, grounding_threshold=0.7)
    shutil.copytree(out / "logs", out / "validation" / "logs")
    run(out, encoder, "validation/interests")
    assert InterestsSummary.read(out / "validation" / "interests").grounding_threshold == 0.7
    assert InterestSteps(BuildConfig(), out, default_path(), out / ".cache").interest_gpt_directory() is None
