"""The loss of a cycle against its closed form, and where its gradient leads."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOTrainer

from serendipity.offline.coevolution.dpo import KlDpoTrainer, TokenPair, divergence, optimise
from serendipity.offline.coevolution.dpo import _arguments as arguments_of
from serendipity.offline.coevolution.pco_config import DpoConfig
from serendipity.offline.finite import DivergedError
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.config import LoraConfig

_WORDS = ["<pad>", "<end>", "novel", "Action", "Drama", "War", "Film", "Noir"]
_PAIRS = [
    TokenPair([2, 3], [4, 1], [5, 1]),
    TokenPair([2], [6, 7, 1], [3, 1]),
    TokenPair([2, 4, 5], [3, 1], [6, 7, 1]),
]


def _model(seed: int) -> LlamaForCausalLM:
    shape = LlamaConfig(
        vocab_size=len(_WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape)


def _base(seed: int = 1, name: str = "tiny") -> BaseModel:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(_WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )
    return BaseModel(name, _model(seed).eval(), fast, "compact")


def _dataset(pairs: list[TokenPair]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt_ids": [list(pair.prompt) for pair in pairs],
            "chosen_ids": [list(pair.chosen) for pair in pairs],
            "rejected_ids": [list(pair.rejected) for pair in pairs],
        }
    )


def _trainer(tmp_path: Any, policy: Any, reference: Any, config: DpoConfig) -> KlDpoTrainer:
    return KlDpoTrainer(
        model=policy,
        ref_model=reference,
        args=arguments_of(tmp_path, config.suited_to("tiny"), 3),
        train_dataset=_dataset(_PAIRS),
        processing_class=_base().tokenizer,
        kl_weight=config.kl_weight,
    )


def _distributions(model: Any, prompt: list[int], completion: list[int]) -> np.ndarray[Any, Any]:
    """log p of every token at every place of the completion, one sequence at a time: [len(completion), V]."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].double().numpy()
    chosen = logits[len(prompt) - 1 : -1]
    largest = chosen.max(-1, keepdims=True)
    log_sum = largest + np.log(np.exp(chosen - largest).sum(-1, keepdims=True))
    return np.asarray(chosen - log_sum)


def _by_hand(policy: Any, reference: Any, beta: float, weight: float) -> float:
    """Eq. 16 and 17 in NumPy, pair by pair."""
    total = 0.0
    for pair in _PAIRS:
        ratios, kls = [], []
        for completion in (list(pair.chosen), list(pair.rejected)):
            ours = _distributions(policy, list(pair.prompt), completion)
            theirs = _distributions(reference, list(pair.prompt), completion)
            places = np.arange(len(completion))
            ratios.append((ours - theirs)[places, completion].sum())
            kls.append((np.exp(ours) * (ours - theirs)).sum())
        total += math.log1p(math.exp(-beta * (ratios[0] - ratios[1]))) + weight * (kls[0] + kls[1]) / 2
    return total / len(_PAIRS)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_is_the_closed_form(tmp_path: Any, weight: float) -> None:
    policy, reference = _model(1), _model(2)
    expected = _by_hand(policy, reference, 0.1, weight)
    trainer = _trainer(tmp_path, policy, reference, DpoConfig(kl_weight=weight))

    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    loss = trainer.compute_loss(trainer.model, batch)

    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.floats(-4, 4), min_size=6, max_size=6), st.lists(st.floats(-4, 4), min_size=6, max_size=6))
def test_divergence_is_never_negative(p: list[float], q: list[float]) -> None:
    ours, theirs = torch.tensor([[p, q]], dtype=torch.float64).log_softmax(-1).unbind(1)
    assert float(divergence(ours, theirs)) >= -1e-9
    assert float(divergence(ours, ours)) == pytest.approx(0, abs=1e-9)


def test_divergence_of_two_coins() -> None:
    ours, theirs = torch.tensor([[math.log(0.5), math.log(0.5)]]), torch.tensor([[math.log(0.25), math.log(0.75)]])
    assert float(divergence(ours, theirs)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_gradient_of_the_divergence_leads_back_to_the_reference(tmp_path: Any) -> None:
    policy, reference = _model(1), _model(2)
    pulling = _trainer(tmp_path, policy, reference, DpoConfig(kl_weight=50.0))
    batch = pulling.data_collator([dict(row) for row in pulling.train_dataset])
    pulling.compute_loss(pulling.model, batch).backward()
    with torch.no_grad():
        for weight in policy.parameters():
            assert weight.grad is not None
            weight -= 1e-4 * weight.grad
    pulling.compute_loss(pulling.model, batch)
    kls = pulling._metrics["train"]["kl"]
    assert kls[1] < kls[0]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_without_divergence_it_is_plain_dpo(tmp_path: Any) -> None:
    config = DpoConfig(kl_weight=0, learning_rate=1e-2, epochs=3, batch_size=2)
    tuned = optimise(_base(), _PAIRS, config, seed=3)

    plain = _model(1)
    trainer = DPOTrainer(
        model=plain,
        ref_model=copy.deepcopy(plain).eval(),
        args=arguments_of(tmp_path, config.suited_to("tiny"), 3),
        train_dataset=_text(_PAIRS),
        processing_class=_base().tokenizer,
    )
    trainer.train()

    for ours, theirs in zip(tuned.model.parameters(), plain.parameters(), strict=True):
        # trl reads its logits in another order of additions: a learning rate of 0.01 moves weights by a thousand
        # times more than that.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-5)


def test_what_is_unset_suits_the_base_and_what_is_set_stays() -> None:
    tiny, large = DpoConfig().suited_to("tiny"), DpoConfig(batch_size=4).suited_to("/models/large")
    assert (tiny.batch_size, tiny.accumulation, tiny.learning_rate) == (32, 1, 5e-4)
    assert (large.batch_size, large.accumulation, large.learning_rate) == (4, 8, 5e-6)


def _text(pairs: list[TokenPair]) -> Dataset:
    def words(ids: Any) -> str:
        return " ".join(_WORDS[place] for place in ids)

    return Dataset.from_list(
        [
            {
                "prompt": words(pair.prompt),
                "chosen": " " + words(pair.chosen[:-1]),
                "rejected": " " + words(pair.rejected[:-1]),
            }
            for pair in pairs
        ]
    )


def _preference(model: Any) -> float:
    """Mean log-ratio of chosen to rejected."""
    found = []
    for pair in _PAIRS:
        scores = [
            _distributions(model, list(pair.prompt), list(completion))[np.arange(len(completion)), completion].sum()
            for completion in (list(pair.chosen), list(pair.rejected))
        ]
        found.append(scores[0] - scores[1])
    return float(np.mean(found))


@pytest.mark.parametrize(("name", "lora"), [("tiny", None), ("large", LoraConfig(rank=4, alpha=8.0, dropout=0.0))])
def test_training_prefers_the_chosen_and_the_divergence_slows_it(name: str, lora: LoraConfig | None) -> None:
    moved = []
    for weight in (0.0, 20.0):
        config = DpoConfig(kl_weight=weight, learning_rate=1e-2, epochs=8, lora=lora or LoraConfig())
        base = _base(name=name)
        before = _preference(base.model)
        tuned = optimise(base, _PAIRS, config, seed=3)
        moved.append(_preference(tuned.model) - before)
        assert "forward" not in vars(tuned.model)
        assert "Lora" not in str(type(tuned.model.model.layers[0].self_attn.q_proj))
        # Of the tiny model a copy is tuned; adapters are merged into the base itself.
        assert (tuned.model is base.model) == (name == "large")
    assert moved[0] > moved[1] > 0


def test_same_seed_gives_the_same_weights_and_leaves_the_random_states_alone() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    state = torch.get_rng_state()
    first = optimise(_base(), _PAIRS, DpoConfig(learning_rate=1e-2), seed=5)
    assert torch.equal(state, torch.get_rng_state())
    second = optimise(_base(), _PAIRS, DpoConfig(learning_rate=1e-2), seed=5)
    for ours, theirs in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_pairs_nothing_changes() -> None:
    base = _base()
    before = copy.deepcopy(base.model.state_dict())
    tuned = optimise(base, [], DpoConfig(), seed=1)
    assert all(torch.equal(before[name], weight) for name, weight in tuned.model.state_dict().items())


def test_models_that_change_their_logits_after_the_output_layer_are_refused() -> None:
    base = _base()
    base.model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping: found 30"):
        optimise(base, _PAIRS, DpoConfig(), seed=1)


@pytest.mark.parametrize(("batch_size", "found"), [(1, "2: found loss nan"), (3, r"1, model\.\S+: found weight ")])
def test_preferences_that_diverge_stop_the_cycle(batch_size: int, found: str) -> None:
    config = DpoConfig(learning_rate=1e39, epochs=1, batch_size=batch_size)
    with pytest.raises(DivergedError, match=rf"^preference optimisation, step {found}.*, expected finite numbers"):
        optimise(_base(), _PAIRS, config, seed=3)
