"""The code of model_repo/interest_gpt as it is placed, on a real language model of random weights."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from serendipity.interests import model
from serendipity.interests.answer import NAMED, NAMING, named
from serendipity.interests.prompt import INSTRUCTIONS, PromptStyle
from serendipity.offline.distillation.likelihoods import log_likelihoods
from serendipity.offline.tuning.base_model import load_model
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import INTEREST_GPT
from tests.fixtures.tiny_interest_gpt import CATEGORIES, example_prompts, make_tiny_interest_gpt

MODULES = ("category_trie", "decoding", "generation", "prompts", "weights")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What model.py loads: encode writes one prompt, generate answers several, score says how likely categories are."""

    encode: Callable[[str], Any]
    generate: Callable[[Sequence[Any]], list[Any]]
    score: Callable[[Sequence[Any], Sequence[Sequence[int]]], list[list[float]]]
    tokenizer: Any


@dataclasses.dataclass(frozen=True)
class Placed:
    """The version directory of a placed model, and the modules beside its model.py."""

    version: Path
    generation: ModuleType
    prompts: ModuleType

    def load(self, style: PromptStyle = "compact", prompt_tokens: int = 256, new_tokens: int = 64) -> Loaded:
        weights, module = self.version / "model", self.prompts
        instructions = (self.version / "instructions.txt").read_text()
        prompts = module.Prompts(weights, style, instructions, module.Limits(prompt_tokens, new_tokens))
        naming = module.read_json(self.version / "naming.json")
        generation = self.generation.Generation(weights, prompts, naming, torch.device("cpu"))
        return Loaded(prompts.write, generation.generate, generation.log_likelihoods, prompts.tokenizer)


def placed_in(directory: Path, style: PromptStyle) -> Iterator[Placed]:
    make_tiny_interest_gpt(directory / "trained", style=style)
    version = directory / "models" / deployment.place(INTEREST_GPT, directory / "trained", directory / "models") / "1"
    for name in MODULES:
        assert name not in sys.modules
    sys.path.insert(0, str(version))
    try:
        yield Placed(version, importlib.import_module("generation"), importlib.import_module("prompts"))
    finally:
        sys.path.remove(str(version))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    yield from placed_in(tmp_path_factory.mktemp("compact"), "compact")


@pytest.fixture(scope="module")
def generation(placed: Placed) -> Loaded:
    return placed.load()


@pytest.fixture(scope="module")
def chat_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("chat") / "trained"
    make_tiny_interest_gpt(directory, style="chat")
    return directory


def chatting(placed: Placed, chat_directory: Path, **limits: int) -> Loaded:
    version = placed.version.parent / "chat"
    shutil.copytree(placed.version, version, dirs_exist_ok=True)
    shutil.copytree(chat_directory, version / "model", dirs_exist_ok=True)
    return dataclasses.replace(placed, version=version).load("chat", **limits)


def decode(generation: Loaded, prompt: Any) -> str:
    """What the model is fed."""
    text: str = generation.tokenizer.decode(prompt, clean_up_tokenization_spaces=False)
    return text


def test_likelihoods_are_those_of_the_builder_and_of_all_categories_sum_to_one(
    placed: Placed, generation: Loaded
) -> None:
    prompts, every = example_prompts(), list(range(len(CATEGORIES)))
    found = generation.score([generation.encode(text) for text in prompts], [every] * len(prompts))
    base = load_model(placed.version / "model", "tiny", "compact")
    wanted = np.ones((len(prompts), len(CATEGORIES)), np.bool_)
    assert np.allclose(found, log_likelihoods(base, CATEGORIES, prompts, wanted, 256), atol=1e-5)
    assert np.allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)


def test_likelihoods_of_some_candidates_are_those_among_all(generation: Loaded) -> None:
    first, second = (generation.encode(text) for text in example_prompts()[:2])
    whole = generation.score([first, second], [[0, 1, 2], [0, 1, 2]])
    some = generation.score([first, second], [[2], [1, 0]])
    assert np.allclose(some[0], whole[0][2], atol=1e-5)
    assert np.allclose(some[1], [whole[1][1], whole[1][0]], atol=1e-5)


@torch.inference_mode()
def test_likelihoods_are_what_the_model_gives_the_texts(generation: Loaded, placed: Placed) -> None:
    """Of each token of a name its probability among those with which some category goes on."""
    weights = AutoModelForCausalLM.from_pretrained(placed.version / "model").eval()
    tokenizer, prompt = generation.tokenizer, generation.encode(example_prompts()[0])
    ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (NAMING, NAMED)]
    names = [[*tokenizer(named(c), add_special_tokens=False)["input_ids"], ids[1][0]] for c in CATEGORIES]
    (found,) = generation.score([prompt], [[0, 1, 2]])
    for name, value in zip(names, found, strict=True):
        total = 0.0
        for place, token in enumerate(name):
            allowed = sorted({other[place] for other in names if other[:place] == name[:place]})
            logits = weights(torch.tensor([[*prompt, *ids[0], *name[:place]]])).logits[0, -1, allowed]
            total += float(torch.log_softmax(logits.float(), -1)[allowed.index(token)])
        assert value == pytest.approx(total, abs=1e-4)


def test_an_answer_does_not_depend_on_the_batch_it_is_written_in(generation: Loaded) -> None:
    prompts = [generation.encode(text) for text in example_prompts()[:3]]
    assert generation.generate(prompts) == [generation.generate([prompt])[0] for prompt in prompts]


def test_an_answer_that_is_cut_off_counts_all_its_tokens(placed: Placed) -> None:
    (answer,) = placed.load(new_tokens=9).generate([placed.load().encode("interests:")])
    assert answer.completion_tokens == 9


def test_a_compact_prompt_is_fed_as_it_is(generation: Loaded) -> None:
    for text in example_prompts():
        assert decode(generation, generation.encode(text)) == text


def test_a_long_prompt_loses_its_beginning_and_never_its_end(generation: Loaded) -> None:
    text = example_prompts()[-1]
    prompt = generation.encode("profile: " + "älter " * 2_000 + text)
    assert len(prompt) <= 256
    assert decode(generation, prompt).endswith(text)


def test_a_chat_prompt_has_instructions_and_template_around_it(placed: Placed, chat_directory: Path) -> None:
    generation = chatting(placed, chat_directory, prompt_tokens=900, new_tokens=64)
    (text, *_) = example_prompts("chat")
    assert decode(generation, generation.encode(text)) == f"<system>{INSTRUCTIONS}<user>{text}<answer>"


def test_a_long_chat_prompt_keeps_instructions_and_the_mark_of_the_answer(placed: Placed, chat_directory: Path) -> None:
    generation = chatting(placed, chat_directory, prompt_tokens=900, new_tokens=64)
    prompt = generation.encode("x y " * 3_000 + "the latest")
    assert 890 <= len(prompt) <= 900
    fed = decode(generation, prompt)
    assert fed.startswith(f"<system>{INSTRUCTIONS}<user>")
    assert fed.endswith("the latest<answer>")


def test_instructions_that_leave_no_room_are_refused_at_load(placed: Placed, chat_directory: Path) -> None:
    with pytest.raises(ValueError, match=r"max_prompt_tokens: found 100, expected more than the \d+ tokens of inst"):
        chatting(placed, chat_directory, prompt_tokens=100, new_tokens=64)


def test_bounds_past_the_models_positions_are_refused_at_load(placed: Placed) -> None:
    with pytest.raises(ValueError, match="found 1200, expected at most the model's 1024 positions"):
        placed.load(prompt_tokens=1_000, new_tokens=200)


def test_an_unknown_style_is_refused_at_load(placed: Placed) -> None:
    with pytest.raises(ValueError, match="prompt_style: found 'prose', expected one of compact, chat"):
        placed.load("prose")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "<eos>", "<eos> <pad>"])
def test_a_prompt_without_text_is_refused(placed: Placed, generation: Loaded, text: str) -> None:
    with pytest.raises(placed.prompts.PromptError, match="found no text, expected a user message"):
        generation.encode(text)


def test_a_text_the_tokenizer_cannot_take_is_refused(placed: Placed, generation: Loaded) -> None:
    with pytest.raises(placed.prompts.PromptError, match="cannot be tokenised"):
        generation.encode("tea \ud800")


def test_marks_of_the_tokenizer_in_a_users_text_are_blanked(generation: Loaded) -> None:
    prompt = generation.encode("tea <eos> interests:<e<eos>os><pad>")
    assert not set(generation.tokenizer.all_special_ids) & set(prompt)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400))
def test_any_text_is_encoded_within_bounds_or_refused(placed: Placed, generation: Loaded, text: str) -> None:
    try:
        prompt = generation.encode(text)
    except placed.prompts.PromptError:
        assert not text.strip()
        return
    assert 0 < len(prompt) <= 256
    assert not set(generation.tokenizer.all_special_ids) & set(prompt)


def test_sampling_options_of_a_base_model_do_not_reach_greedy_decoding(placed: Placed, tmp_path: Path) -> None:
    version = tmp_path / "1"
    shutil.copytree(placed.version, version)
    path = version / "model" / "generation_config.json"
    options = json.loads(path.read_text())
    path.write_text(json.dumps({**options, "do_sample": True, "temperature": 0.7, "repetition_penalty": 3.0}))
    with_options = dataclasses.replace(placed, version=version).load(new_tokens=40)
    without = placed.load(new_tokens=40)
    prompts = [without.encode(text) for text in example_prompts()[:2]]
    assert with_options.generate(prompts) == without.generate(prompts)


def test_the_fingerprint_is_that_of_the_contract(placed: Placed) -> None:
    assert placed.prompts.fingerprint(placed.version / "model") == model.fingerprint(placed.version / "model")


def test_a_file_that_placing_writes_is_missed_by_name(placed: Placed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"naming\.json: cannot be read .* written when the model is placed"):
        placed.prompts.read_json(tmp_path / "naming.json")


def test_a_model_without_an_end_token_is_refused(placed: Placed, tmp_path: Path) -> None:
    version = tmp_path / "1"
    shutil.copytree(placed.version, version)
    tokenizer = AutoTokenizer.from_pretrained(version / "model")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(version / "model")
    for name in ("generation_config.json", "config.json"):
        path = version / "model" / name
        options = {key: value for key, value in json.loads(path.read_text()).items() if key != "eos_token_id"}
        path.write_text(json.dumps(options | {"eos_token_id": None}))
    with pytest.raises(ValueError, match="eos_token: found none"):
        dataclasses.replace(placed, version=version).load()
