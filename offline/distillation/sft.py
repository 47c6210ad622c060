"""Supervised fine-tuning of InterestGPT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from serendipity.offline.distillation.config import SftConfig
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.tokens import tokenize
from serendipity.offline.tuning import sft
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.training import Training


def tune(
    base: BaseModel,
    examples: Sequence[Example],
    checkpoints: Path,
    config: SftConfig,
    *,
    progress: Progress | None = None,
) -> tuple[BaseModel, Training]:
    """Tune the base on examples and return it with adapters merged: as serendipity.offline.tuning.sft.tune."""
    tokens, too_long = tokenize(list(examples)[: config.max_examples], base.tokenizer, base.style, config)
    tuned, training = sft.tune(base, tokens, checkpoints, config, progress=progress)
    return tuned, replace(training, too_long=too_long)
