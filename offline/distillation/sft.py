"""Supervised fine-tuning with `trl`: all weights, or low-rank adapters (`peft`) that are merged when it is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from rich.progress import Progress
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from serendipity.layout import hash_of
from serendipity.offline.distillation.base_model import TINY, BaseModel, no_progress_bars
from serendipity.offline.distillation.config import SftConfig
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.tokens import IGNORED, TokenExample, tokenize
from serendipity.offline.towers.threads import limited_threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """A finished training. examples: learned from; too_long: left out; tokens: of one epoch; loss: mean of the last
    tenth of the steps; trainable: weights that were tuned."""

    examples: int
    too_long: int
    tokens: int
    steps: int
    loss: float
    trainable: int


def tune(
    base: BaseModel,
    examples: Sequence[Example],
    checkpoints: Path,
    config: SftConfig,
    *,
    progress: Progress | None = None,
) -> tuple[BaseModel, Training]:
    """Tune the base on examples and return it with adapters merged.

    A run that was killed resumes from its last checkpoint below `checkpoints`, if the examples and the configuration
    are the same. Raises ValueError when no example is short enough to learn from.
    """
    chosen = list(examples)[: config.max_examples]
    tokens, too_long = tokenize(chosen, base.tokenizer, base.style, config)
    if not tokens:
        raise ValueError(
            f"sft.max_tokens: found {config.max_tokens} and {too_long} longer examples, expected a shorter"
        )
    directory = checkpoints / _identity(base, tokens, config)
    method = config.method or ("full" if base.name == TINY else "lora")
    with limited_threads(config.threads), no_progress_bars(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = base.model.train()
        if method == "lora":
            model = get_peft_model(model, _adapters(config))
        steps = _Steps(progress)
        trainer = SFTTrainer(
            model=model,
            args=_arguments(directory, config),
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [example.input_ids for example in tokens],
                    "labels": [example.labels for example in tokens],
                    "length": [len(example.input_ids) for example in tokens],
                }
            ),
            data_collator=_Collator(base.tokenizer.pad_token_id),
            processing_class=base.tokenizer,
            callbacks=[steps],
        )
        trainer.remove_callback(PrinterCallback)
        found = get_last_checkpoint(str(directory)) if directory.is_dir() else None
        trainer.train(resume_from_checkpoint=found)
        tuned: Any = trainer.accelerator.unwrap_model(trainer.model)
        trainable = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
        if isinstance(tuned, PeftModel):
            tuned = tuned.merge_and_unload()
    last = steps.losses[-max(1, len(steps.losses) // 10) :]
    training = Training(
        examples=len(tokens),
        too_long=too_long,
        tokens=sum(len(example.input_ids) for example in tokens),
        steps=int(trainer.state.global_step),
        loss=sum(last) / len(last) if last else float("nan"),
        trainable=trainable,
    )
    return BaseModel(base.name, tuned.eval(), base.tokenizer, base.style), training


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


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Shows how far the training is and keeps the losses."""

    def __init__(self, progress: Progress | None) -> None:
        self.losses: list[float] = []
        self._progress = progress
        self._task: Any = None

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if self._progress:
            self._task = self._progress.add_task("tuning", total=state.max_steps, completed=state.global_step)
        self.losses += [entry["loss"] for entry in state.log_history if "loss" in entry]

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        if self._progress:
            self._progress.advance(self._task)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            logger.info("step %d: loss %.4f", state.global_step, self.losses[-1])


def _adapters(config: SftConfig) -> PeftLoraConfig:
    return PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules="all-linear",
    )


def _arguments(directory: Path, config: SftConfig) -> TrlConfig:
    has_gpu = torch.cuda.is_available()
    return TrlConfig(
        output_dir=str(directory),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay,
        label_smoothing_factor=config.label_smoothing,
        activation_checkpointing=config.gradient_checkpointing,
        train_sampling_strategy="group_by_length",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        bf16=has_gpu,
        use_cpu=not has_gpu,
        logging_steps=10,
        save_steps=config.checkpoint_steps,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )


def _identity(base: BaseModel, tokens: Sequence[TokenExample], config: SftConfig) -> str:
    """Hash what a checkpoint depends on."""
    weights = next(iter(base.model.parameters())).detach().float().cpu().numpy().tobytes()
    settings = config.model_dump(exclude={"threads", "checkpoint_steps"})
    parts = [json.dumps(settings, sort_keys=True).encode(), base.model.config.to_json_string().encode(), weights]
    parts += [json.dumps([example.input_ids, example.labels]).encode() for example in tokens]
    return hash_of(parts)[:16]
