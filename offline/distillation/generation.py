"""Answers of a model in this process, unconstrained and greedy: what evaluation and rank weights are measured on."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from rich.progress import Progress

from serendipity.interests.prompt import INSTRUCTIONS
from serendipity.offline.language_models.language_model import Completion, Prompt, Sampling
from serendipity.offline.language_models.local import LocalModel
from serendipity.offline.tuning.base_model import BaseModel

_BATCH = 64


def generate(
    base: BaseModel, prompts: Sequence[str], max_new_tokens: int, *, progress: Progress | None = None
) -> list[Completion]:
    """Answer user messages, in their order. Raises LanguageModelError for one that leaves no room for an answer."""
    task = progress.add_task("answers", total=len(prompts)) if progress else None
    tokenizer, system = base.tokenizer, INSTRUCTIONS
    if base.style == "compact":
        # A base may bring a chat template along that its prompts are not written in.
        tokenizer, system = copy.copy(tokenizer), ""
        tokenizer.chat_template = None
    model = LocalModel(
        base.name, lambda: (base.model.eval(), tokenizer), batch_size=_BATCH, threads=torch.get_num_threads()
    )
    found: dict[int, Completion] = {}
    for answers in model.answers([Prompt(text, system) for text in prompts], Sampling(max_new_tokens=max_new_tokens)):
        found.update(answers)
        if progress and task is not None:
            progress.advance(task, len(answers))
    return [found[place] for place in range(len(prompts))]
