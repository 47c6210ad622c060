"""A small language model from scratch: a tokenizer of its own and a Llama of about a hundred thousand weights.

Its tokens are whole: a name, and what stands between two names, are one each. Below them lies byte-level BPE, so that
any text can be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from serendipity.offline.tuning.config import TinyLmConfig

PAD, END = "<pad>", "<end>"


def make_tokenizer(whole: Iterable[str], texts: Iterable[str], config: TinyLmConfig) -> PreTrainedTokenizerFast:
    """Make the tokenizer. whole: what becomes a token each; texts: what BPE is trained on."""
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
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in dict.fromkeys(whole) if _survives(text)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=config.max_positions,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, config: TinyLmConfig, seed: int, *, reward: bool = False) -> Any:
    """Make the model with weights drawn from the seed; nothing else's random state is touched.

    reward: with a head that gives a text one number, in the place of that of the next token.
    """
    shape = _shape(tokenizer, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if reward:
            shape.num_labels = 1
            return LlamaForSequenceClassification(shape)
        model = LlamaForCausalLM(shape)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, do_sample=False
    )
    return model


def _shape(tokenizer: PreTrainedTokenizerFast, config: TinyLmConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.max_positions,
        initializer_range=config.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )


def _survives(text: str) -> bool:
    """Tell whether a whole token is written as it reads: the byte-level decoder takes some letters for bytes."""
    written: Sequence[str] = [text]
    return bool(decoders.ByteLevel().decode(list(written)) == text)
