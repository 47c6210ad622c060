"""A causal language model that answers batches of prompts: tokens in, bounded greedy decoding, texts out.

Stands alone: needs torch, transformers and, for constrained answers, the module `constraint` placed beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from constraint import JsonConstraint  # type: ignore[import-not-found]  # placed beside this file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

CATEGORIES = "categories.json"
STYLES = ("compact", "chat")

_CHARACTERS_PER_TOKEN = 16
"""More than tokens have on average: what a prompt has beyond this is cut before anything looks at it."""


class PromptError(ValueError):
    """A prompt cannot be answered: says what was found and what was expected."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one prompt and one answer, in tokens; a prompt's includes instructions and template."""

    max_prompt_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """A text without special tokens. completion_tokens: without the end; max_new_tokens if it was cut off."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Generation:
    """Model, tokenizer and compiled grammar; `encode` prompts one by one, then `generate` for all of them."""

    def __init__(
        self,
        directory: Path,
        *,
        style: str,
        instructions: str,
        schema: dict[str, Any],
        limits: Limits,
        device: torch.device,
    ) -> None:
        """Load what `save_pretrained` wrote to `directory`. Raises ValueError or OSError naming what is wrong."""
        if style not in STYLES:
            raise ValueError(f"prompt_style: found {style!r}, expected one of {', '.join(STYLES)}")
        self._style, self._instructions, self._limits = style, instructions, limits
        self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        # bfloat16 is slower than float32 on most CPUs.
        dtype = torch.float32 if device.type == "cpu" else "auto"
        model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=dtype)
        self._model = model.eval().to(device)
        self._device = device
        self._ends = _end_tokens(self._model, self._tokenizer)
        pad = self._tokenizer.pad_token_id
        self._pad = self._ends[0] if pad is None else pad
        # Sampling options that a base model brings along must not reach greedy decoding.
        self._model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=limits.max_new_tokens, eos_token_id=self._ends, pad_token_id=self._pad
        )
        self._markers = _markers(self._tokenizer)
        self._check_room()
        self._constraint = JsonConstraint(
            self._tokenizer,
            schema,
            vocab_size=len(model.get_output_embeddings().weight),
            eos_token_ids=self._ends,
        )

    def encode(self, text: str) -> list[int]:
        """Turn a user message into the model's tokens, at most max_prompt_tokens.

        Of a message that is too long the beginning is cut off, so that instructions, template and the mark where the
        answer begins stay. What the tokenizer reads as one of its own marks is blanked: a user's text must not
        end the place it stands in. Raises PromptError.
        """
        kept = text[-_CHARACTERS_PER_TOKEN * self._limits.max_prompt_tokens :]
        for marker in self._markers:
            kept = kept.replace(marker, " ")
        if not kept.strip():
            raise PromptError("found no text, expected a user message")
        try:
            tokens = self._tokens(kept)
            while len(tokens) > self._limits.max_prompt_tokens:
                kept = self._without_first(kept, len(tokens) - self._limits.max_prompt_tokens)
                tokens = self._tokens(kept)
        except PromptError:
            raise
        except Exception as error:
            raise PromptError(f"cannot be tokenised ({type(error).__name__}: {error})") from error
        if not tokens:
            raise PromptError("found no tokens, expected at least one")
        return tokens

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], constrained: Sequence[bool]) -> list[Answer]:
        """Answer prompts (tokens) as one batch, padded on the left. constrained: per prompt."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self._pad)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(prompts):
            ids[row, width - len(tokens) :] = torch.tensor(tokens)
            mask[row, width - len(tokens) :] = 1
        processors = [self._constraint.decoding(constrained)] if any(constrained) else None
        written = self._model.generate(
            input_ids=ids.to(self._device), attention_mask=mask.to(self._device), logits_processor=processors
        )
        return [
            self._answer(row, len(tokens)) for row, tokens in zip(written[:, width:].tolist(), prompts, strict=True)
        ]

    def _answer(self, written: list[int], prompt_tokens: int) -> Answer:
        end = next((at for at, token in enumerate(written) if token in self._ends), len(written))
        text = self._tokenizer.decode(written[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(text, prompt_tokens, end)

    def _tokens(self, text: str) -> list[int]:
        if self._style == "compact":
            return list(self._tokenizer(text)["input_ids"])
        messages = [{"role": "system", "content": self._instructions}, {"role": "user", "content": text}]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template has written the marks of beginning and end already.
        return list(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def _without_first(self, text: str, tokens: int) -> str:
        """Cut off the beginning that makes up so many tokens, one character at least."""
        offsets = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if tokens >= len(offsets):
            raise PromptError(f"found no room for a user message in {self._limits.max_prompt_tokens} tokens")
        return text[max(1, offsets[tokens][0]) :]

    def _check_room(self) -> None:
        frame = len(self._tokens("-"))
        if frame >= self._limits.max_prompt_tokens:
            raise ValueError(
                f"max_prompt_tokens: found {self._limits.max_prompt_tokens}, expected more than the {frame} tokens "
                "of instructions and chat template"
            )
        most = getattr(self._model.config, "max_position_embeddings", None)
        needed = self._limits.max_prompt_tokens + self._limits.max_new_tokens
        if most is not None and needed > most:
            raise ValueError(
                f"max_prompt_tokens + max_new_tokens: found {needed}, expected at most the model's {most} positions"
            )


def fingerprint(directory: Path) -> str:
    """First 16 hex digits of the SHA-256 over the digests of weights, tokenizer and categories, in this order."""
    digest = hashlib.sha256()
    for path in (*sorted(directory.glob("*.safetensors")), directory / "tokenizer.json", directory / CATEGORIES):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the model's own and the tokenizer's."""
    found = model.generation_config.eos_token_id
    ends = list(found) if isinstance(found, list | tuple) else [found]
    known = dict.fromkeys(token for token in [*ends, tokenizer.eos_token_id] if token is not None)
    if not known:
        raise ValueError("eos_token: found none in tokenizer and generation configuration, expected one")
    return list(known)


def _markers(tokenizer: Any) -> list[str]:
    """What the tokenizer reads as a mark wherever it stands in a text, longest first.

    Marks of a base that are not special, such as <think>, are told from whole words it has added by their bracket.
    """
    added = tokenizer.added_tokens_decoder.values()
    return sorted(
        {token.content for token in added if token.special or token.content[:1] in "<["}, key=len, reverse=True
    )


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); it is written when the model is placed") from error
