"""What is tuned: a model and its tokenizer, from scratch or from any directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.errors import BuilderError
from serendipity.offline.progress import no_progress_bars
from serendipity.offline.tuning.config import TinyLmConfig
from serendipity.offline.tuning.tiny_lm import make_model

TINY = "tiny"

Head = Literal["causal", "reward"]
"""causal: gives the next token's distribution. reward: gives a text one number."""


class BaseModelError(BuilderError):
    """A base cannot be loaded: names the directory, what was found and what was expected."""


@dataclass(frozen=True)
class BaseModel:
    """A language model, its tokenizer and the style it is prompted in."""

    name: str
    model: Any
    tokenizer: Any
    style: PromptStyle

    @property
    def max_positions(self) -> int:
        """Tokens of prompt and answer together at most."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or self.tokenizer.model_max_length)


def style_for(base: str, wanted: PromptStyle | None) -> PromptStyle:
    """Tell the style that a base is prompted in: what is wanted, else compact for the tiny model, chat for others."""
    return wanted or ("compact" if base == TINY else "chat")


def open_base(
    base: str,
    style: PromptStyle,
    tiny: TinyLmConfig,
    seed: int,
    make_tokenizer: Callable[[], Any],
    head: Head = "causal",
    *,
    whole: bool = False,
) -> BaseModel:
    """Load the base, or make the tiny model, whose tokenizer comes from the caller.

    seed: of the weights that are drawn. whole: float32 everywhere, see `load_model`. Raises BaseModelError.
    """
    if base == TINY:
        tokenizer = make_tokenizer()
        return BaseModel(TINY, make_model(tokenizer, tiny, seed, reward=head == "reward"), tokenizer, style)
    directory = Path(base)
    with torch.random.fork_rng(devices=[]):
        # A reward model's head is new to a base.
        torch.manual_seed(seed)
        return load_model(directory, directory.name, style, head, whole=whole)


def load_model(
    directory: Path, name: str, style: PromptStyle, head: Head = "causal", *, whole: bool = False
) -> BaseModel:
    """Load what `save_pretrained` wrote: float32 on a CPU, the weights' own type elsewhere. Nothing is downloaded.

    whole: float32 everywhere. Raises BaseModelError.
    """
    if not (directory / "config.json").is_file():
        raise BaseModelError(f"{directory / 'config.json'}: missing; expected the directory of a transformers model")
    try:
        dtype = "auto" if torch.cuda.is_available() and not whole else torch.float32
        with no_progress_bars():
            if head == "causal":
                model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=dtype)
            else:
                model = AutoModelForSequenceClassification.from_pretrained(
                    directory, local_files_only=True, dtype=dtype, num_labels=1
                )
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, padding_side="left")
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(
            f"{directory}: not a {head} language model that transformers can load ({error})"
        ) from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(f"{directory}: eos_token: found none, expected the token that ends an answer")
    if style == "chat" and not tokenizer.chat_template:
        raise BaseModelError(f"{directory}: chat_template: found none, expected one; use the prompt style compact")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if head == "causal":
        # Sampling options that a base brings along must not reach greedy decoding.
        model.generation_config = GenerationConfig(
            do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
        )
    else:
        # A text's number is read at its last token that does not pad.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return BaseModel(name, model.eval(), tokenizer, style)
