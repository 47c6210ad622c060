"""A small causal language model from scratch: a tokenizer of its own and a Llama of about a million weights.

Its tokens are whole: a category's name, the count behind it, the JSON between two fields are one each, so that a prompt
has some 200 tokens and an answer eight per interest. Below them lies byte-level BPE, so that any text can be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from serendipity.interests.answer import CATEGORY_FIRST, FIELDS, Proposal, write_answer
from serendipity.interests.prompt import CategoryFact, UserFacts, render
from serendipity.interests.text import clean_text
from serendipity.offline.distillation.config import TinyLmConfig

PAD, END = "<pad>", "<end>"

_NAME = "NAME"
_MOST_COUNTS = 8
_MOST_AGES = 8


def make_tokenizer(names: Iterable[str], texts: Iterable[str], config: TinyLmConfig) -> PreTrainedTokenizerFast:
    """Make the tokenizer. names: what becomes a token each (categories, demands); texts: what BPE is trained on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2 + len(alphabet) + config.merges,
        special_tokens=[PAD, END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    whole = dict.fromkeys([*_marks(), *(name for name in map(clean_text, names) if len(name) > 1)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in whole if _survives(text)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=config.max_positions,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, config: TinyLmConfig, seed: int) -> LlamaForCausalLM:
    """Make the model with weights drawn from the seed; nothing else's random state is touched."""
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(shape)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, do_sample=False
    )
    return model


def _marks() -> list[str]:
    """What stands between names in prompts and answers, taken from what writes them so that it cannot differ."""
    row = Proposal(*[_NAME] * len(FIELDS))
    fact = CategoryFact(_NAME, 1, 7)
    prompt = render(
        UserFacts(profile={_NAME: _NAME}, searches=[_NAME], recent=[fact], earlier=[fact], hints=[_NAME, _NAME]),
        "compact",
    )
    empty = render(UserFacts(), "compact")
    answers = [write_answer([row, row], fields) for fields in (FIELDS, CATEGORY_FIRST)]
    marks = [mark for text in (prompt, *answers) for mark in text.split(_NAME) if mark.strip()]
    # Of a mark such as " x1\nearlier: " the count varies: it is a token of its own.
    lines = [f"{line.split(':')[0]}: " for line in prompt.splitlines()[:-1]]
    counts = [f" x{1 << power}" for power in range(_MOST_COUNTS)]
    ages = [f" {1 << power}w" for power in range(_MOST_AGES)]
    ends = ["; ", "\n"]
    return [
        *(mark for mark in marks if '"' in mark),
        *(f"\n{line}" for line in lines),
        *lines,
        "\n" + empty.splitlines()[-1],
        empty.splitlines()[-1],
        ends[0],
        *(count + end for count in counts for end in ends),
        *(count + age + end for count in counts for age in ages for end in ends),
    ]


def _survives(text: str) -> bool:
    """Tell whether a whole token is written as it reads: the byte-level decoder takes some letters for bytes."""
    written: Sequence[str] = [text]
    return bool(decoders.ByteLevel().decode(list(written)) == text)
