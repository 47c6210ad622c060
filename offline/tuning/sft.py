"""Supervised fine-tuning on completions with `trl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import cross_entropy
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.config import TuningConfig
from serendipity.offline.tuning.tokens import IGNORED, TokenExample
from serendipity.offline.tuning.training import Watched, identity, short_enough, train, trainer_arguments


def tune(
    base: BaseModel,
    examples: Sequence[TokenExample],
    checkpoints: Path,
    config: TuningConfig,
    *,
    progress: Progress | None = None,
) -> BaseModel:
    """Tune the base on examples and return it with adapters merged.

    Of the first max_examples those of more than max_tokens are left out. A run that was killed resumes from its last
    checkpoint below `checkpoints`, if the examples and the configuration are the same. Where all weights are tuned,
    those of `base` are changed in place. Raises ValueError when no example is short enough to learn from,
    DivergedError when losses or weights are not finite.
    """
    chosen = short_enough(examples, lambda example: len(example.input_ids), config)
    directory = checkpoints / identity(base, [[example.input_ids, example.labels] for example in chosen], config)
    dataset = Dataset.from_dict(
        {
            "input_ids": [example.input_ids for example in chosen],
            "labels": [example.labels for example in chosen],
            "length": [len(example.input_ids) for example in chosen],
        }
    )
    arguments = TrlConfig(
        **trainer_arguments(directory, config),
        activation_checkpointing=config.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},
    )

    collator = _Collator(base.tokenizer.pad_token_id)
    return train(base, _Trainer, arguments, dataset, collator, config, "CAUSAL_LM", progress=progress)


class _Trainer(Watched, SFTTrainer):  # type: ignore[misc]
    """Asks for the logits of those columns alone in which something is learned.

    On a CPU trl projects every position onto the vocabulary and ignores most of it afterwards, which takes a small
    model longer than all of its layers: of prompts of 30 tokens and answers of two, a step took 2.4 times as long.
    """

    purpose = "fine-tuning"

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross entropy of what is learned."""
        if return_outputs or self.args.device.type != "cpu" or self.accelerator.num_processes > 1:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        columns = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
        labels = labels[:, columns]
        asked = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**asked, logits_to_keep=columns, use_cache=False).logits
        total = cross_entropy(
            logits.float().flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        learned = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(learned).clamp(min=1)


class _Collator:
    """Pads on the right and gives no attention mask: causal attention never looks at what comes later, and attention
    without a mask is computed faster."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, value: int) -> Tensor:
            return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

        return {
            "input_ids": padded("input_ids", self._pad),
            "labels": padded("labels", IGNORED),
            "position_ids": torch.arange(width).expand(len(rows), width),
        }
