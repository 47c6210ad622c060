"""Answers of a model in this process, unconstrained and greedy: what evaluation and rank weights are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress

from serendipity.offline.distillation.tokens import prompt_tokens
from serendipity.offline.tuning.base_model import BaseModel

BATCH = 64


@dataclass(frozen=True)
class Generated:
    """An answer. tokens: written, without the end; finished: False where it was cut off at max_new_tokens."""

    text: str
    prompt_tokens: int
    tokens: int
    finished: bool


@torch.inference_mode()
def generate(
    base: BaseModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> list[Generated]:
    """Answer prompts, in their order. Prompts of like length share a batch, so that little is padding."""
    task = progress.add_task("answers", total=len(prompts)) if progress else None
    model, tokenizer = base.model.eval(), base.tokenizer
    tokens = [prompt_tokens(tokenizer, prompt, base.style) for prompt in prompts]
    answers: list[Generated | None] = [None] * len(prompts)
    order = np.argsort([len(ids) for ids in tokens], kind="stable").tolist()
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        width = max(len(tokens[place]) for place in places)
        ids = torch.full((len(places), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(places):
            ids[row, width - len(tokens[place]) :] = torch.tensor(tokens[place])
            mask[row, width - len(tokens[place]) :] = 1
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )[:, width:].tolist()
        for place, row_tokens in zip(places, written, strict=True):
            end = row_tokens.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row_tokens else len(row_tokens)
            answers[place] = Generated(
                text=tokenizer.decode(row_tokens[:end], skip_special_tokens=True),
                prompt_tokens=len(tokens[place]),
                tokens=end,
                finished=end < len(row_tokens) or len(row_tokens) < max_new_tokens,
            )
        if progress and task is not None:
            progress.advance(task, len(places))
    return [answer for answer in answers if answer is not None]
