"""What is tuned: a model and its tokenizer, from scratch, from the package of SmolLM2 or from any directory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.examples import POPULATION_SEED, Example
from serendipity.offline.distillation.tiny_lm import make_model, make_tokenizer
from serendipity.offline.language_models.packaged import default_cache_dir, smollm2_path

TINY = "tiny"
SMOLLM2 = "smollm2"

_PROFILE_TOKENS = 256
_BPE_EXAMPLES = 2_000


class BaseModelError(Exception):
    """A base cannot be loaded: names the directory, what was found and what was expected."""


@dataclass(frozen=True)
class BaseModel:
    """A causal language model, its tokenizer and the style it is prompted in."""

    name: str
    model: Any
    tokenizer: Any
    style: PromptStyle

    @property
    def max_positions(self) -> int:
        """Tokens of prompt and answer together at most."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or self.tokenizer.model_max_length)


def style_of(config: DistillationConfig) -> PromptStyle:
    """Tell the style that a configuration's prompts are written in."""
    return config.dataset.prompt_style or ("compact" if config.base == TINY else "chat")


def open_base(config: DistillationConfig, examples: Sequence[Example], categories: Sequence[str]) -> BaseModel:
    """Load the base, or make the tiny model, whose tokens are named after categories and what examples speak of.

    Raises BaseModelError, and LanguageModelError where SmolLM2's package is missing.
    """
    style = style_of(config)
    if config.base == TINY:
        tokenizer = make_tokenizer(
            _names(examples, categories), [example.prompt for example in examples[:_BPE_EXAMPLES]], config.tiny
        )
        model = make_model(tokenizer, config.tiny, config.sft.seed)
        return BaseModel(TINY, model, tokenizer, style)
    directory = smollm2_path(default_cache_dir()) if config.base == SMOLLM2 else Path(config.base)
    return load_model(directory, config.base if config.base == SMOLLM2 else directory.name, style)


def load_model(directory: Path, name: str, style: PromptStyle) -> BaseModel:
    """Load what `save_pretrained` wrote: float32 on a CPU, the weights' own type elsewhere. Nothing is downloaded.

    Raises BaseModelError.
    """
    if not (directory / "config.json").is_file():
        raise BaseModelError(f"{directory / 'config.json'}: missing; expected the directory of a transformers model")
    try:
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, padding_side="left")
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(
            f"{directory}: not a causal language model that transformers can load ({error})"
        ) from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(f"{directory}: eos_token: found none, expected the token that ends an answer")
    if style == "chat" and not tokenizer.chat_template:
        raise BaseModelError(f"{directory}: chat_template: found none, expected one; use the prompt style compact")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Sampling options that a base brings along must not reach greedy decoding.
    model.generation_config = GenerationConfig(
        do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    return BaseModel(name, model.eval(), tokenizer, style)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep `transformers` from drawing bars of its own."""
    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows_progress:
            logging.enable_progress_bar()


def _names(examples: Sequence[Example], categories: Sequence[str]) -> list[str]:
    """Names that become one token each: categories, what answers name, and the commonest profile attributes."""
    named: Counter[str] = Counter()
    profiles: Counter[str] = Counter()
    for example in examples:
        for row in json.loads(example.answer)["interests"]:
            named.update((row["seed"], row["demand"], row["interest"]))
        line = example.prompt.partition("\n")[0].partition(": ")[2]
        profiles.update(attribute for attribute in line.split("; ") if attribute)
    # Seeds may be what a user typed: only what is said of many users is worth a token.
    common = [name for name, times in sorted(named.items()) if times >= max(3, len(examples) // 1_000)]
    return [
        *categories,
        POPULATION_SEED,
        *common,
        *(attribute for attribute, _ in profiles.most_common(_PROFILE_TOKENS)),
    ]
