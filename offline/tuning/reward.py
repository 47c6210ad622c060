"""Reward modelling with `trl`: −log σ(f(chosen) − f(rejected)) (Ouyang et al., arXiv 2203.02155)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.progress import Progress
from torch import Tensor
from trl import RewardConfig, RewardTrainer

from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.config import TuningConfig
from serendipity.offline.tuning.tokens import PreferredTokens
from serendipity.offline.tuning.training import Training, identity, train, trainer_arguments


def tune_reward(
    base: BaseModel,
    pairs: Sequence[PreferredTokens],
    checkpoints: Path,
    config: TuningConfig,
    *,
    progress: Progress | None = None,
) -> tuple[BaseModel, Training]:
    """Tune a model with a reward head on pairs and return it with adapters merged.

    Limits, resumption, what happens to `base` and errors: as of `sft.tune`.
    """
    wanted = list(pairs)[: config.max_examples]
    chosen = [pair for pair in wanted if max(len(pair.chosen), len(pair.rejected)) <= config.max_tokens]
    if not chosen:
        raise ValueError(f"max_tokens: found {config.max_tokens} and {len(wanted)} longer pairs, expected a shorter")
    directory = checkpoints / identity(base, [[pair.chosen, pair.rejected] for pair in chosen], config)
    dataset = Dataset.from_dict(
        {
            "chosen_ids": [pair.chosen for pair in chosen],
            "rejected_ids": [pair.rejected for pair in chosen],
            "length": [max(len(pair.chosen), len(pair.rejected)) for pair in chosen],
        }
    )
    arguments = RewardConfig(
        **trainer_arguments(directory, config), activation_checkpointing=config.gradient_checkpointing
    )

    def make_trainer(model: Any, steps: Any) -> RewardTrainer:
        return RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=_Collator(base.tokenizer.pad_token_id),
            processing_class=base.tokenizer,
            callbacks=[steps],
        )

    tuned = train(base, make_trainer, directory, config, "SEQ_CLS", progress=progress)
    training = Training(
        examples=len(chosen),
        too_long=len(wanted) - len(chosen),
        tokens=sum(len(pair.chosen) + len(pair.rejected) for pair in chosen),
        steps=tuned.steps,
        loss=tuned.loss,
        trainable=tuned.trainable,
    )
    return tuned.base, training


class _Collator:
    """Pads on the right: the chosen texts, then the rejected ones. The mask hides nothing: causal attention never
    looks at padding, the number is read before it, and attention without a mask is computed faster."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        texts = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        width = max(map(len, texts))
        ids = torch.tensor([text + [self._pad] * (width - len(text)) for text in texts])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
