"""Base against tuned model, unconstrained: constraint would make parsing a tautology."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress

from serendipity.interests.answer import AnswerError, Proposal, read_answer
from serendipity.interests.grounding import Grounder
from serendipity.offline.distillation.config import SftConfig
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.generation import generate
from serendipity.offline.distillation.tokens import tokenize
from serendipity.offline.language_models.language_model import Completion
from serendipity.offline.logs.histories import Histories
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.tokens import IGNORED


@dataclass(frozen=True)
class Quality:
    """How a model answers held-out users' prompts, unconstrained and greedily.

    parsed: share of answers that are whole JSON. proposals: mean per answer, of what could be read of all answers (cut
    off ones too). grounded: share of proposals that name a node; novel: share of the grounded in a category not among
    the latest 200 clicks; jaccard: of the first K grounded categories with the teacher's, mean over users; overlap:
    mean over depths 1 … K of the shared share of both lists' beginnings (average overlap: Fagin et al., SIAM J.
    Discrete Math. 2003); tokens: written, mean; perplexity: of the teacher's answer, per token.
    """

    num_users: int
    parsed: float
    proposals: float
    grounded: float
    novel: float
    jaccard: float
    overlap: float
    tokens: float
    perplexity: float


def evaluate_answers(
    model: BaseModel,
    examples: Sequence[Example],
    histories: Histories,
    grounder: Grounder,
    max_new_tokens: int,
    *,
    progress: Progress | None = None,
) -> Quality:
    """Let the model answer the prompts of examples it was not trained on. Raises ValueError without examples."""
    if not examples:
        raise ValueError("evaluate_answers: found no examples, expected those of held-out users")
    answers = generate(model, [example.prompt for example in examples], max_new_tokens, progress=progress)
    parsed = named = grounded = novel = 0
    jaccards, overlaps = [], []
    for example, answer in zip(examples, answers, strict=True):
        parsed += _is_whole(answer)
        proposals = _readable(answer.text)
        user = histories.user_numbers[example.user_id]
        known = set(histories.clicks_before(user, example.as_of).categories.tolist())
        categories = [found.node.category for found in grounder.ground(proposals) if found is not None]
        named += len(proposals)
        grounded += len(categories)
        novel += sum(category not in known for category in categories)
        teacher = _categories(example.answer, grounder)
        own = list(dict.fromkeys(categories))[: len(teacher)]
        jaccards.append(jaccard(own, teacher))
        overlaps.append(average_overlap(own, teacher))
    return Quality(
        num_users=len(examples),
        parsed=parsed / len(examples),
        proposals=named / len(examples),
        grounded=grounded / named if named else 0.0,
        novel=novel / grounded if grounded else 0.0,
        jaccard=float(np.mean(jaccards)),
        overlap=float(np.mean(overlaps)),
        tokens=float(np.mean([answer.completion_tokens - answer.finished for answer in answers])),
        perplexity=answer_perplexity(model, examples),
    )


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """Shared share of two sets; 1 for two empty ones."""
    union = {*one, *other}
    return len({*one} & {*other}) / len(union) if union else 1.0


def average_overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Mean over depths of how much of both lists' beginnings is shared, 0 … 1; 1 for two empty lists."""
    depth = max(len(one), len(other))
    if not depth:
        return 1.0
    return sum(len({*one[:d]} & {*other[:d]}) / d for d in range(1, depth + 1)) / depth


@torch.inference_mode()
def answer_perplexity(model: BaseModel, examples: Sequence[Example]) -> float:
    """exp of the mean negative log-likelihood of the teacher's answers, per token of this model's tokenizer."""
    tokens, _ = tokenize(examples, model.tokenizer, model.style, SftConfig(max_tokens=model.max_positions))
    loss, count = 0.0, 0
    for example in tokens:
        ids = torch.tensor([example.input_ids], device=model.model.device)
        labels = torch.tensor(example.labels[1:], device=model.model.device)
        logits = model.model(input_ids=ids).logits[0, :-1].float()
        loss += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        count += int((labels != IGNORED).sum())
    return math.exp(loss / count) if count else math.nan


def _is_whole(answer: Completion) -> bool:
    try:
        return bool(answer.finished and read_answer(answer.text))
    except AnswerError:
        return False


def _readable(text: str) -> list[Proposal]:
    try:
        return read_answer(text, whole=False)
    except AnswerError:
        return []


def _categories(answer: str, grounder: Grounder) -> list[int]:
    proposals = [Proposal(**row) for row in json.loads(answer)["interests"]]
    return list(dict.fromkeys(found.node.category for found in grounder.ground(proposals) if found is not None))
