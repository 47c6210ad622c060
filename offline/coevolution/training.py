"""Tuning of the two LLMs, and what is fitted on validation once they are tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.linear_model import LogisticRegression

from serendipity.groups.lists import alignment
from serendipity.offline.coevolution.examples import NoveltyExample, RelevanceExample, Renderer
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.tuning.config import TuningConfig
from serendipity.offline.tuning.reward import tune_reward
from serendipity.offline.tuning.sft import tune
from serendipity.offline.tuning.tokens import IGNORED, PreferredTokens, TokenExample

SMALLEST_SCALE = 1e-3
"""A model that learned nothing must not turn its own order round."""


def tune_novelty(
    llm: NoveltyLlm,
    examples: Sequence[NoveltyExample],
    renderer: Renderer,
    checkpoints: Path,
    config: TuningConfig,
    progress: Progress | None = None,
) -> NoveltyLlm:
    """Fine-tune the Novelty LLM on first occurrences (arXiv 2508.00450, eq. 8 and 9).

    Resumes and raises as `tuning.sft.tune` does; where all weights are tuned, those of `llm` are changed in place.
    """
    prompts = llm.prompt_tokens([renderer.novelty(row.group, row.recent, trigger=False) for row in examples])
    end = llm.base.tokenizer.eos_token_id
    tokens = []
    for row, prompt in zip(examples, prompts, strict=True):
        completion = [*llm.answers[row.target - 1], end]
        tokens.append(TokenExample([*prompt, *completion], [*[IGNORED] * len(prompt), *completion]))
    return replace(llm, base=tune(llm.base, tokens, checkpoints, config, progress=progress))


def tune_relevance(
    llm: RelevanceLlm,
    examples: Sequence[RelevanceExample],
    renderer: Renderer,
    checkpoints: Path,
    config: TuningConfig,
    progress: Progress | None = None,
) -> RelevanceLlm:
    """Tune the Relevance LLM on pairs: −log σ(f(x, c⁺) − f(x, c⁻)), averaged over the c⁻ of a moment
    (arXiv 2508.00450, eq. 12).

    Resumes and raises as `tuning.reward.tune_reward` does; where all weights are tuned, those of `llm` are changed in
    place.
    """
    prompts = llm.prompt_tokens(
        [
            renderer.relevance(row.group, row.recent, category)
            for row in examples
            for category in (row.clicked, *row.unclicked)
        ]
    )
    rest = iter(prompts)
    tokens = [PreferredTokens(next(rest), [next(rest) for _ in row.unclicked]) for row in examples]
    return replace(llm, base=tune_reward(llm.base, tokens, checkpoints, config, progress=progress))


def score_pairs(
    llm: RelevanceLlm, examples: Sequence[RelevanceExample], renderer: Renderer
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute f of the two categories of every pair: [pairs] float32 each, a clicked one as often as it has pairs."""
    of = [(row, category) for row in examples for category in (row.clicked, *row.unclicked)]
    scores = llm.score([renderer.relevance(row.group, row.recent, category) for row, category in of])
    sizes = np.array([len(row.unclicked) for row in examples], np.int64)
    first = np.concatenate([[0], np.cumsum(sizes + 1)[:-1]]).astype(np.int64)
    return np.repeat(scores[first], sizes), np.delete(scores, first)


def fit_platt(clicked: NDArray[np.float32], unclicked: NDArray[np.float32]) -> tuple[float, float]:
    """Fit scale and offset of `lists.alignment` on validation scores, so that it is the probability of "clicked".

    Platt's targets (Platt 1999) keep it finite where the scores separate: of N clicked (N + 1) / (N + 2), of the others
    the mirror image. As many of either kind are fitted on, so that 0.5 stands for "as likely as not". The scale is
    SMALLEST_SCALE at least. Raises ValueError without scores.
    """
    if not len(clicked) or not len(unclicked):
        raise ValueError(f"fit_platt: found {len(clicked)} and {len(unclicked)} scores, expected some of either kind")
    scores, labels, weights = [], [], []
    for values, label in ((clicked, 1), (unclicked, 0)):
        sure = (len(values) + 1) / (len(values) + 2)
        for target, weight in ((label, sure), (1 - label, 1 - sure)):
            scores.append(values)
            labels.append(np.full(len(values), target))
            weights.append(np.full(len(values), weight / len(values)))
    fitted = LogisticRegression(C=np.inf, max_iter=1_000, tol=1e-8).fit(
        np.concatenate(scores)[:, None].astype(np.float64), np.concatenate(labels), np.concatenate(weights)
    )
    return max(float(fitted.coef_[0, 0]), SMALLEST_SCALE), float(fitted.intercept_[0])


def choose_threshold(clicked: NDArray[np.float32], scale: float, offset: float, keep: float) -> float:
    """Choose the largest threshold that lets the share `keep` of the clicked validation categories pass.

    clicked: their scores f. Recall alone decides: any measure that counts unclicked categories too (precision, F1)
    would follow from how many of them were drawn for each clicked one, which is ours to choose. Raises ValueError
    without scores.
    """
    if not len(clicked):
        raise ValueError("choose_threshold: found no scores, expected those of clicked categories")
    ordered = np.sort(clicked.astype(np.float64))
    dropped = int(np.floor((1 - keep) * len(ordered) + 1e-9))
    return alignment(float(ordered[min(dropped, len(ordered) - 1)]), scale, offset)
