"""One training with `trl`: all weights, or low-rank adapters (`peft`) that are merged when it is done; resumable."""

from __future__ import annotations

import json
import logging
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from transformers import PrinterCallback, TrainerCallback

from serendipity.layout import hash_of
from serendipity.offline.finite import require_finite, require_finite_weights
from serendipity.offline.progress import no_progress_bars
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import TINY, BaseModel
from serendipity.offline.tuning.config import LoraConfig, TuningConfig

logger = logging.getLogger(__name__)

_Example = TypeVar("_Example")

TRAINER_STATE = "trainer_state.json"
"""What a trainer writes last of a checkpoint."""

Task = Literal["CAUSAL_LM", "SEQ_CLS"]
"""What `peft` calls a model that writes and one that gives a text a number."""


def short_enough(examples: Sequence[_Example], size: Callable[[_Example], int], config: TuningConfig) -> list[_Example]:
    """Take the first max_examples, and leave out those of more than max_tokens. size: tokens of an example.

    Raises ValueError when none is left to learn from.
    """
    wanted = examples[: config.max_examples]
    chosen = [example for example in wanted if size(example) <= config.max_tokens]
    longer = len(wanted) - len(chosen)
    if not chosen:
        raise ValueError(f"max_tokens: found {config.max_tokens} and {longer} longer examples, expected a shorter")
    if longer:
        logger.warning("max_tokens: %d examples of more than %d tokens are left out", longer, config.max_tokens)
    return chosen


def train(
    base: BaseModel,
    trainer_class: type[Any],
    arguments: Any,
    dataset: Any,
    collator: Any,
    config: TuningConfig,
    task: Task,
    *,
    progress: Progress | None = None,
) -> BaseModel:
    """Run a trainer of `trl`, from the last checkpoint in its output directory if there is one.

    trainer_class: stops at divergence (`Watched`). dataset: with a column `length`, the tokens of each example. Where
    all weights are tuned, those of `base` are changed in place. Raises DivergedError.
    """
    method = config.method or ("full" if base.name == TINY else "lora")
    with limited_threads(config.threads), no_progress_bars(), global_randomness():
        torch.manual_seed(config.seed)
        model = base.model.train()
        if method == "lora":
            model = get_peft_model(model, adapters(config.lora, task))
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=collator,
            processing_class=base.tokenizer,
            callbacks=[Steps(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(Path(arguments.output_dir)))
        tuned: Any = trainer.accelerator.unwrap_model(trainer.model)
        if isinstance(tuned, PeftModel):
            tuned = tuned.merge_and_unload()
        # trl puts a forward of its own on some models, and would put the next one around it.
        vars(tuned).pop("forward", None)
        require_finite_weights(f"{trainer_class.purpose}, step {trainer.state.global_step}", tuned)
    return BaseModel(base.name, tuned.eval(), base.tokenizer, base.style)


class Watched:
    """Put before a trainer of `trl`, ends its training at the first loss that is not finite, with DivergedError.

    purpose: what it is for, as errors call it.
    """

    purpose: ClassVar[str]
    state: Any

    def training_step(self, *args: Any, **options: Any) -> Any:
        """Compute loss and gradients of a batch."""
        loss = super().training_step(*args, **options)  # type: ignore[misc]
        require_finite(f"{self.purpose}, step {self.state.global_step + 1}", loss=float(loss))
        return loss


class Steps(TrainerCallback):  # type: ignore[misc]
    """Shows how far the training is and logs its losses."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: Any = None

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Begin the bar."""
        # A training of fewer steps than lie between two losses would end without any.
        state.logging_steps = max(1, min(state.logging_steps, state.max_steps))
        if self._progress:
            self._task = self._progress.add_task("tuning", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Advance the bar."""
        if self._progress:
            self._progress.advance(self._task)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Log a loss."""
        if logs and "loss" in logs:
            logger.info("step %d: loss %.4f", state.global_step, logs["loss"])


def trainer_arguments(directory: Path, config: TuningConfig) -> dict[str, Any]:
    """Say what all trainers of `trl` are told alike."""
    has_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(directory),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup_share,
        "weight_decay": config.weight_decay,
        "train_sampling_strategy": "group_by_length",
        "max_length": None,
        "remove_unused_columns": False,
        "bf16": has_gpu,
        "use_cpu": not has_gpu,
        "logging_steps": config.logging_steps,
        # Else trl takes the mean of the losses before for one that is not finite; `Watched` ends there.
        "logging_nan_inf_filter": False,
        "save_steps": config.checkpoint_steps,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
        "data_seed": config.seed,
    }


def last_whole_checkpoint(directory: Path) -> str | None:
    """Find the latest checkpoint of a trainer below a directory that a kill did not cut short; None: there is none."""
    for path in sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        is_begun = not (path / TRAINER_STATE).is_file()
        if (problem := f"{TRAINER_STATE}: missing" if is_begun else cut_short(path)) is None:
            return str(path)
        logger.warning("%s: incomplete (%s), passed over", path, problem)
    return None


def cut_short(directory: Path) -> str | None:
    """Tell which file below a directory of models is not there to its end, if any; each of their formats shows it."""
    for path in sorted(directory.rglob("*")):
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix == ".safetensors":
                with safe_open(path, "numpy"):
                    pass
            elif path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
                return f"{path.name}: cut short"
        except (ValueError, OSError, SafetensorError) as error:
            return f"{path.name}: {error}"
    return None


def adapters(config: LoraConfig, task: Task) -> PeftLoraConfig:
    """Say what is adapted: all linear layers."""
    return PeftLoraConfig(
        task_type=task,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
    )


def identity(base: BaseModel, tokens: list[Any], config: TuningConfig) -> str:
    """Hash what a checkpoint depends on. tokens: the training's, as JSON can write them."""
    settings = config.model_dump(exclude={"threads", "checkpoint_steps"})
    parts = [json.dumps(settings, sort_keys=True).encode(), base.model.config.to_json_string().encode()]
    parts += [weight.detach().float().cpu().numpy().tobytes() for weight in _first_and_last(base.model)]
    parts += [json.dumps(example).encode() for example in tokens]
    return hash_of(parts)[:16]


def _first_and_last(model: Any) -> list[torch.Tensor]:
    """Of a large model all weights would take minutes to hash; what was tuned before differs at both ends."""
    weights = list(model.parameters())
    return [weights[0], weights[-1]]


@contextmanager
def global_randomness() -> Iterator[None]:
    """Restore the random states that trl and transformers seed."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
