"""The code of model_repo/novelty_llm and relevance_llm as it is placed: what is refused when they are loaded."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from serendipity.groups import model
from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.tuning.config import TinyLmConfig
from serendipity.tools.serving.deployment import place
from serendipity.tools.serving.kinds import NOVELTY_LLM, RELEVANCE_LLM
from tests.fixtures.tiny_coevolution import CATEGORIES, make_tiny_coevolution

MODULES = ("category_trie", "decoding", "prompts", "ranking", "scoring", "weights")
CPU = torch.device("cpu")


class Placed:
    """Version directories of both models, and the modules beside their model.py."""

    def __init__(self, novelty: Path, relevance: Path) -> None:
        self.novelty = novelty
        self.relevance = relevance
        self.modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in MODULES}

    def prompts(self, version: Path, most: int = 200, *, cut: bool = False) -> Any:
        module: Any = self.modules["prompts"]
        return module.Prompts(version / "model", "compact", "", module.Limits(most, 0), cut=cut)


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    directory = tmp_path_factory.mktemp("placed")
    make_tiny_coevolution(directory / "coevolution")
    names = [place(llm, directory / "coevolution", directory / "models") for llm in (NOVELTY_LLM, RELEVANCE_LLM)]
    novelty, relevance = (directory / "models" / name / "1" for name in names)
    assert not set(MODULES) & set(sys.modules)
    added = [str(novelty), str(relevance)]
    sys.path[:0] = added
    try:
        yield Placed(novelty, relevance)
    finally:
        sys.path[:] = [path for path in sys.path if path not in added]
        for name in MODULES:
            sys.modules.pop(name, None)


def ranking(placed: Placed, prompts: Any, answers: list[str]) -> Any:
    module: Any = placed.modules["ranking"]
    return module.Ranking(placed.novelty / "model", prompts, list(CATEGORIES), answers, CPU)


def test_what_wants_different_numbers_is_ranked_as_it_would_be_alone(placed: Placed) -> None:
    prompts = placed.prompts(placed.novelty)
    answers = json.loads((placed.novelty / "answers.json").read_text())
    ranked = ranking(placed, prompts, answers)
    written = [prompts.write("novel:"), prompts.write("recent: TEA\nnovel:"), prompts.write("novel:")]
    excluded = [frozenset[str](), frozenset({"TEA"}), frozenset({CATEGORIES[0], "unheard of"})]
    together = ranked.rank(written, [3, 2, 3], excluded)
    for row, (prompt, count, names) in enumerate(zip(written, [3, 2, 3], excluded, strict=True)):
        (alone,) = ranked.rank([prompt], [count], [names])
        assert [name for name, _ in together[row]] == [name for name, _ in alone]
        assert len(alone) == count
        assert not {name for name, _ in alone} & names


def test_a_prompt_that_is_too_long_is_refused_where_it_may_not_be_cut(placed: Placed) -> None:
    refused: Any = placed.modules["prompts"]
    text = "group: tea\n" * 100 + "novel:"
    with pytest.raises(refused.PromptError, match=r"found \d+ tokens, expected at most 200"):
        placed.prompts(placed.novelty).write(text)
    assert len(placed.prompts(placed.novelty, cut=True).write(text)) <= 200


def test_bounds_past_the_models_positions_are_refused_at_load(placed: Placed) -> None:
    answers = json.loads((placed.novelty / "answers.json").read_text())
    with pytest.raises(ValueError, match=r"longest category: found 10\d\d, expected at most the model's 1024"):
        ranking(placed, placed.prompts(placed.novelty, 1_020), answers)
    scoring: Any = placed.modules["scoring"]
    with pytest.raises(ValueError, match="max_prompt_tokens: found 1025, expected at most the model's 1024"):
        scoring.Scoring(placed.relevance / "model", placed.prompts(placed.relevance, 1_025), CPU)


def test_answers_that_are_not_one_for_each_category_are_refused_at_load(placed: Placed) -> None:
    with pytest.raises(ValueError, match=f"answers: found 1, expected {len(CATEGORIES)}"):
        ranking(placed, placed.prompts(placed.novelty), ["TEA"])


def test_a_classifier_of_several_labels_is_refused_at_load(placed: Placed, tmp_path: Path) -> None:
    directory = shutil.copytree(placed.relevance / "model", tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    labels = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (directory / "config.json").write_text(json.dumps(config | labels))
    scoring: Any = placed.modules["scoring"]
    with pytest.raises(ValueError, match="num_labels: found 2, expected 1"):
        scoring.Scoring(directory, placed.prompts(placed.relevance), CPU)


def test_the_fingerprint_is_that_of_the_contract(placed: Placed) -> None:
    prompts: Any = placed.modules["prompts"]
    for version in (placed.novelty, placed.relevance):
        assert prompts.fingerprint(version / "model") == model.llm_fingerprint(version / "model")


MARKED = ("<Sale>", "[New] Arrivals", "<pad>", "<end>", "[<|TEA|>]", "WINE")
"""Names that begin as marks do, or are the tokenizer's own; each is a token of it as prompts write it."""


def test_names_like_marks_are_answered_in_triton_as_they_are_in_batches(placed: Placed, tmp_path: Path) -> None:
    profiles = ["prefers <Sale>, WINE. rarely [New] Arrivals", "<end><pad> [INST] <|im_end|>"]
    tiny = TinyLmConfig(hidden_size=16, num_layers=1, num_heads=2)
    llm = NoveltyLlm.open(CoevolutionConfig(tiny=tiny), MARKED, profiles)
    llm.save(tmp_path)
    written: Any = placed.modules["prompts"]
    triton = written.Prompts(tmp_path, "compact", "", written.Limits(200, 0), cut=False)
    prompts = [
        prompt
        for profile in profiles
        for told in ((), MARKED[:1], MARKED[1:4], MARKED[3:])
        for prompt in (novelty_prompt(profile, told, "compact"), relevance_prompt(profile, told, MARKED[0], "compact"))
    ]
    assert [triton.write(prompt) for prompt in prompts] == llm.prompt_tokens(prompts)
    asked, excluded = prompts[::2], [frozenset(MARKED[number % 3 : 4]) for number in range(len(prompts[::2]))]
    module: Any = placed.modules["ranking"]
    texts = llm.base.tokenizer.batch_decode(llm.answers)
    ranked = module.Ranking(tmp_path, triton, list(MARKED), texts, CPU)
    served = ranked.rank([triton.write(prompt) for prompt in asked], [3] * len(asked), excluded)
    for answered, expected in zip(served, llm.rank(asked, 3, excluded), strict=True):
        assert [name for name, _ in answered] == [name for name, _ in expected]
        assert [value for _, value in answered] == pytest.approx([value for _, value in expected], abs=1e-5)
