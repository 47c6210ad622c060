"""User messages as a language model is fed them: instructions and template around them, cut to what it takes.

Stands alone: needs transformers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

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


class Prompts:
    """Writes prompts of a style in a model's tokenizer. tokenizer: the one in the model's directory."""

    def __init__(self, directory: Path, style: str, instructions: str, limits: Limits, *, cut: bool = True) -> None:
        """cut: a prompt that is too long loses its beginning; otherwise it is refused.

        Raises ValueError when the style is unknown or its instructions leave no room, OSError without tokenizer.
        """
        if style not in STYLES:
            raise ValueError(f"prompt_style: found {style!r}, expected one of {', '.join(STYLES)}")
        self.limits = limits
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self._style, self._instructions, self._cut = style, instructions, cut
        self._markers = _markers(self.tokenizer)
        frame = len(self._write("-"))
        if frame >= limits.max_prompt_tokens:
            raise ValueError(
                f"max_prompt_tokens: found {limits.max_prompt_tokens}, expected more than the {frame} tokens "
                "of instructions and chat template"
            )

    def write(self, message: str) -> list[int]:
        """Write the prompt of a user message in tokens, at most max_prompt_tokens.

        Of a message that is too long the beginning is cut off, if so wished, so that instructions, template and the
        mark where the answer begins stay. What the tokenizer reads as one of its own marks is blanked: a user's text
        must not end the place it stands in. Raises PromptError.
        """
        longest = _CHARACTERS_PER_TOKEN * self.limits.max_prompt_tokens
        if not self._cut and len(message) > longest:
            raise PromptError(f"found {len(message)} characters, expected at most {longest}")
        kept = message[-longest:]
        for marker in self._markers:
            kept = kept.replace(marker, " ")
        if not kept.strip():
            raise PromptError("found no text, expected a user message")
        try:
            prompt = self._write(kept)
            while len(prompt) > self.limits.max_prompt_tokens:
                if not self._cut:
                    found, most = len(prompt), self.limits.max_prompt_tokens
                    raise PromptError(f"found {found} tokens, expected at most {most}")
                kept = self._without_first(kept, len(prompt) - self.limits.max_prompt_tokens)
                prompt = self._write(kept)
        except PromptError:
            raise
        except Exception as error:
            raise PromptError(f"cannot be tokenised ({type(error).__name__}: {error})") from error
        if not prompt:
            raise PromptError("found no tokens, expected at least one")
        return prompt

    def _write(self, message: str) -> list[int]:
        if self._style == "compact":
            return list(self.tokenizer(message)["input_ids"])
        messages = [{"role": "system", "content": self._instructions}, {"role": "user", "content": message}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template has written the marks of beginning and end already.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _without_first(self, text: str, tokens: int) -> str:
        """Cut off the beginning that makes up so many tokens, one character at least."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if tokens >= len(offsets):
            raise PromptError(f"found no room for a user message in {self.limits.max_prompt_tokens} tokens")
        return text[max(1, offsets[tokens][0]) :]


def fingerprint(directory: Path) -> str:
    """First 16 hex digits of the SHA-256 over the digests of weights, tokenizer and categories, in this order."""
    digest = hashlib.sha256()
    for path in (*sorted(directory.glob("*.safetensors")), directory / "tokenizer.json", directory / CATEGORIES):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); it is written when the model is placed") from error


def _markers(tokenizer: Any) -> list[str]:
    """What the tokenizer reads as a mark wherever it stands in a text, longest first.

    Marks of a base that are not special, such as <think>, are told from whole words it has added by their bracket.
    """
    added = tokenizer.added_tokens_decoder.values()
    return sorted(
        {token.content for token in added if token.special or token.content[:1] in "<["}, key=len, reverse=True
    )
