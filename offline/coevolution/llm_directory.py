"""A tuned LLM as a directory: what `save_pretrained` writes, and the catalogue's categories beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from serendipity.groups.model import CATEGORIES
from serendipity.interests.prompt import PromptStyle
from serendipity.layout import write_atomically
from serendipity.offline.tuning.base_model import BaseModel, BaseModelError, Head, load_model, no_progress_bars


def save_llm(base: BaseModel, categories: Sequence[str], directory: Path) -> None:
    """Write weights, tokenizer and categories."""
    with no_progress_bars():
        base.model.save_pretrained(directory)
    base.tokenizer.save_pretrained(directory)
    write_atomically(directory / CATEGORIES, json.dumps(list(categories), ensure_ascii=False).encode())


def read_llm(directory: Path, style: PromptStyle, head: Head) -> tuple[BaseModel, list[str]]:
    """Read them again. Raises BaseModelError."""
    file = directory / CATEGORIES
    try:
        categories = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{file}: cannot be read ({error}); expected a JSON list of categories") from error
    if not (isinstance(categories, list) and all(isinstance(name, str) for name in categories)):
        raise BaseModelError(f"{file}: found no list of texts, expected a JSON list of categories")
    return load_model(directory, directory.name, style, head), categories
