"""A local model: every prompt is answered greedily as if it were asked alone, and samples can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serendipity.offline.language_models.config import LocalConfig
from serendipity.offline.language_models.language_model import (
    MAX_PROMPT_CHARS,
    Completion,
    LanguageModelError,
    Prompt,
    Sampling,
)
from serendipity.offline.language_models.local import LocalModel
from tests.fixtures.tiny_language_model import MAX_POSITIONS, make_tiny_language_model

PROMPTS = [Prompt("tea " * n) for n in (9, 1, 4, 20, 2)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_language_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def chat_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_language_model(tmp_path_factory.mktemp("chat"), chat=True)


@pytest.fixture(scope="module")
def model(directory: Path) -> LocalModel:
    return LocalModel.open(LocalConfig(path=directory, batch_size=2))


def greedy_by_hand(directory: Path, text: str, count: int) -> str:
    """Write token after token without generate, padding or batch."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()
    ids = tokenizer(text)["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    written: str = tokenizer.decode(ids[start:], skip_special_tokens=True)
    return written


def test_greedy_answers_are_the_likeliest_tokens_whatever_the_batch(model: LocalModel, directory: Path) -> None:
    found = model.complete(PROMPTS, Sampling(max_new_tokens=12))
    assert [answer.text for answer in found] == [greedy_by_hand(directory, prompt.user, 12) for prompt in PROMPTS]


def test_samples_depend_on_the_seed_and_can_be_repeated(model: LocalModel) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.5, seed=4)
    found = model.complete(PROMPTS, sampling)
    assert found == model.complete(PROMPTS, sampling)
    other_seed = model.complete(PROMPTS, Sampling(max_new_tokens=12, temperature=1.5, seed=5))
    assert all(one.text != other.text for one, other in zip(found, other_seed, strict=True))


def test_samples_follow_the_model_s_distribution(model: LocalModel, directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    weights = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()
    drawn = [model.complete([Prompt("tea")], Sampling(1, 2.0, seed))[0].text for seed in range(200)]
    with torch.inference_mode():
        logits = weights(torch.tensor([tokenizer("tea")["input_ids"]])).logits[0, -1]
    # Halves of characters all read alike.
    shares: dict[str, float] = {}
    for token, share in enumerate(torch.softmax(logits / 2.0, 0).tolist()):
        text = tokenizer.decode([token], skip_special_tokens=True)
        shares[text] = shares.get(text, 0.0) + share
    likeliest = sorted(shares, key=lambda text: -shares[text])[:4]
    expected = torch.tensor([shares[text] for text in likeliest])
    found = torch.tensor([drawn.count(text) / len(drawn) for text in likeliest])
    # Four standard deviations of a share of 200 draws.
    assert torch.all((found - expected).abs() < 4 * (expected * (1 - expected) / len(drawn)).sqrt() + 0.01)


def test_tokens_are_counted_and_cut_answers_told(model: LocalModel, directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    before = model.usage
    sampled = [model.complete([Prompt("tea")], Sampling(300, 3.0, seed))[0] for seed in range(8)]
    whole = next(answer for answer in sampled if answer.finished)
    cut = model.complete([Prompt("tea")], Sampling(2))[0]
    assert whole.prompt_tokens == len(tokenizer("tea")["input_ids"])
    assert 0 < whole.completion_tokens <= 300
    assert (cut.completion_tokens, cut.finished) == (2, False)
    spent = model.usage - before
    assert (spent.prompts, spent.cache_hits) == (9, 0)
    assert spent.completion_tokens == sum(answer.completion_tokens for answer in sampled) + 2
    assert spent.seconds > 0


def test_the_chat_template_is_used_where_there_is_one(chat_directory: Path, directory: Path) -> None:
    prompt = Prompt("tea", system="be brief")
    sampling = Sampling(max_new_tokens=8)
    templated = LocalModel.open(LocalConfig(path=chat_directory)).complete([prompt], sampling)[0]
    assert templated.text == greedy_by_hand(chat_directory, "<system>be brief<user>tea<answer>", 8)
    plain = LocalModel.open(LocalConfig(path=directory)).complete([prompt], sampling)[0]
    assert plain.text == greedy_by_hand(directory, "be brief\n\ntea", 8)


def test_what_a_model_s_own_configuration_says_of_sampling_does_not_matter(directory: Path) -> None:
    loaded: list[Any] = []

    def load() -> tuple[Any, Any]:
        weights = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()
        weights.generation_config.update(do_sample=True, repetition_penalty=2.0, min_new_tokens=30)
        loaded.append(weights)
        return weights, AutoTokenizer.from_pretrained(directory, local_files_only=True)

    found = LocalModel("own", load).complete(PROMPTS[:2], Sampling(max_new_tokens=8))
    assert [answer.text for answer in found] == [greedy_by_hand(directory, prompt.user, 8) for prompt in PROMPTS[:2]]
    assert loaded[0].generation_config.repetition_penalty == 2.0


def test_thoughts_are_kept_apart_from_the_answer(directory: Path) -> None:
    def load() -> tuple[Any, Any]:
        weights = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        written = tokenizer("<think>mugs</think> tea<eos>", return_tensors="pt")["input_ids"]
        weights.generate = lambda input_ids, **_: torch.cat([input_ids, written], dim=1)
        return weights, tokenizer

    (answer,) = LocalModel("thinks aloud", load).complete(PROMPTS[:1], Sampling(60))
    assert (answer.text, answer.reasoning, answer.finished) == ("tea", "mugs", True)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt("x" * MAX_PROMPT_CHARS, system="y"), r"prompt 1: found 100,001 characters, expected at most 100,000"),
        (Prompt("é" * MAX_POSITIONS), r"prompt 1: found [\d,]+ tokens, expected at most 768 beside 256 new ones"),
        (Prompt(""), "prompt 1: found no tokens"),
    ],
)
def test_prompts_out_of_bounds_are_refused_before_anything_is_written(
    model: LocalModel, prompt: Prompt, said: str
) -> None:
    before = model.usage
    with pytest.raises(LanguageModelError, match=said):
        model.complete([Prompt("tea"), prompt])
    assert model.usage == before


def test_no_prompts_no_answers(model: LocalModel) -> None:
    assert model.complete([]) == []


def test_other_weights_have_another_name(directory: Path, tmp_path: Path, chat_directory: Path) -> None:
    again = LocalModel.open(LocalConfig(path=make_tiny_language_model(tmp_path / "again")))
    other = LocalModel.open(LocalConfig(path=make_tiny_language_model(tmp_path / "other", seed=1)))
    first = LocalModel.open(LocalConfig(path=directory))
    assert first.name == again.name
    assert len({first.name, other.name, LocalModel.open(LocalConfig(path=chat_directory)).name}) == 3


def test_a_directory_without_a_model_is_refused(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"config\.json: cannot be read"):
        LocalModel.open(LocalConfig(path=tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(LanguageModelError, match=r"holds no \*\.safetensors"):
        LocalModel.open(LocalConfig(path=tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(LanguageModelError, match="not a language model that transformers can load"):
        LocalModel.open(LocalConfig(path=tmp_path)).complete([Prompt("tea")])


def test_the_weights_are_loaded_only_for_a_prompt(directory: Path) -> None:
    def load() -> tuple[Any, Any]:
        raise LanguageModelError("loaded")

    model = LocalModel("lazy", load)
    assert model.complete([]) == []
    with pytest.raises(LanguageModelError, match="loaded"):
        model.complete([Prompt("tea")])


def test_completions_are_plain_values() -> None:
    assert Completion("a", 1, 2, True) == Completion("a", 1, 2, True, "")
    for wrong in ({"max_new_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}):
        with pytest.raises(ValueError, match="expected"):
            Sampling(**wrong)
