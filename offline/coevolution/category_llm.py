"""A language model that is asked about the categories of a catalogue, from its base to its directory.

A directory holds what `save_pretrained` writes, and the catalogue's categories beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from serendipity.groups.model import CATEGORIES
from serendipity.interests.prompt import PromptStyle
from serendipity.layout import write_atomically
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.whole_tokens import make_tokenizer
from serendipity.offline.progress import no_progress_bars
from serendipity.offline.tuning.base_model import (
    BaseModel,
    BaseModelError,
    Head,
    load_model,
    open_base,
)
from serendipity.offline.tuning.tokens import prompt_tokens


@dataclass(frozen=True)
class CategoryLlm:
    """What the Novelty and the Relevance LLM have in common. threads: CPU threads it may use.

    Weights are float32, also where a base brings bfloat16: what the few steps of a cycle change lies below half of
    that type's last digit, and merged into it most would be lost. On a GPU trainings compute in bfloat16 all the same.

    head: what it ends in; instructions: the system message of its prompts, where they have one.
    """

    base: BaseModel
    categories: Sequence[str]
    threads: int = 1

    head: ClassVar[Head]
    instructions: ClassVar[str]

    @classmethod
    def open(cls, config: CoevolutionConfig, categories: Sequence[str], profiles: Sequence[str]) -> Self:
        """Open the base that the configuration names, not tuned yet. Raises what `tuning.base_model.open_base` does."""
        base = open_base(
            config.base,
            config.style,
            config.tiny,
            config.seed,
            lambda: make_tokenizer(categories, profiles, config.tiny),
            cls.head,
            whole=True,
        )
        return cls(base, list(categories), config.threads)

    @classmethod
    def read(cls, directory: Path, style: PromptStyle = "compact", threads: int = 1, base: str = "") -> Self:
        """Read what `save` wrote. base: name of what it was tuned from. Raises BaseModelError."""
        file = directory / CATEGORIES
        try:
            categories = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BaseModelError(f"{file}: cannot be read ({error}); expected a JSON list of categories") from error
        if not (isinstance(categories, list) and all(isinstance(name, str) for name in categories)):
            raise BaseModelError(f"{file}: found no list of texts, expected a JSON list of categories")
        return cls(load_model(directory, base or directory.name, style, cls.head, whole=True), categories, threads)

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and categories."""
        with no_progress_bars():
            self.base.model.save_pretrained(directory)
        self.base.tokenizer.save_pretrained(directory)
        write_atomically(directory / CATEGORIES, json.dumps(list(self.categories), ensure_ascii=False).encode())

    def prompt_tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Turn user messages into the tokens that the model reads."""
        return prompt_tokens(self.base.tokenizer, prompts, self.base.style, self.instructions)
