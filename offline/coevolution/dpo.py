"""Direct preference optimisation against the previous cycle's model plus a divergence from it, on `trl`.

The loss is arXiv 2508.00450, eq. 16 and 17: −log σ(β [log π/π_ref(c_w) − log π/π_ref(c_l)]) + λ·KL(π‖π_ref), both
averaged over pairs. The divergence is that of the whole distributions over tokens, not of the one token that was
chosen; it is summed over the tokens of a completion, as the log-ratios are, and averaged over the two completions.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from serendipity.offline.coevolution.pco_config import DpoConfig
from serendipity.offline.finite import require_finite_weights
from serendipity.offline.progress import no_progress_bars
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import TINY, BaseModel
from serendipity.offline.tuning.training import Watched, adapters, global_randomness

_BETA = 0.1
"""β: how strongly a difference of log-ratios counts."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenPair:
    """A preference in tokens. chosen, rejected: completions, the token that ends an answer included."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


def optimise(
    base: BaseModel, pairs: Sequence[TokenPair], config: DpoConfig, *, seed: int, threads: int = 1
) -> BaseModel:
    """Tune a model on preferences, with what it is now as the reference. Without pairs nothing changes.

    All weights of the tiny model are tuned, of a copy, and `base` stays as it was; of any other base adapters are, and
    are merged into its weights in place, so that of a large model no second copy is held. threads: on the CPU.
    Raises ValueError for a model whose logits are not what its output layer gives (soft capping, scaling): trl and the
    divergence would be of different distributions; DivergedError when losses or weights are not finite.
    """
    if not pairs:
        return base
    _check(base.model.config)
    config = config.suited_to(base.name)
    with (
        limited_threads(threads),
        no_progress_bars(),
        global_randomness(),
        _renamed_in_transformers(),
        TemporaryDirectory(prefix="serendipity-dpo-") as scratch,
    ):
        torch.manual_seed(seed)
        if base.name == TINY:
            policy, reference = copy.deepcopy(base.model).train(), base.model.eval()
        else:
            policy, reference = get_peft_model(base.model.train(), adapters(config.lora, "CAUSAL_LM")), None
        trainer = KlDpoTrainer(
            model=policy,
            ref_model=reference,
            args=_arguments(Path(scratch), config, seed),
            train_dataset=Dataset.from_dict(
                {
                    "prompt_ids": [list(pair.prompt) for pair in pairs],
                    "chosen_ids": [list(pair.chosen) for pair in pairs],
                    "rejected_ids": [list(pair.rejected) for pair in pairs],
                }
            ),
            processing_class=base.tokenizer,
            callbacks=[_Logs()],
            kl_weight=config.kl_weight,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        tuned: Any = trainer.accelerator.unwrap_model(trainer.model)
        if isinstance(tuned, PeftModel):
            tuned = tuned.merge_and_unload()
        # trl put a forward of its own on the models, and would put the next one around it.
        for model in (tuned, base.model):
            vars(model).pop("forward", None)
        require_finite_weights(f"{trainer.purpose}, step {trainer.state.global_step}", tuned)
    return BaseModel(base.name, tuned.eval(), base.tokenizer, base.style)


class KlDpoTrainer(Watched, DPOTrainer):  # type: ignore[misc]
    """trl's trainer of DPO with a loss of its own: −log σ and λ·KL from one pass of π and one of π_ref.

    trl's loss knows of the chosen tokens alone, and away from a GPU it goes through the output layer at every place
    of the prompts too. Here the layer is asked where completions are, and its distributions serve both terms.
    """

    purpose = "preference optimisation"

    def __init__(self, *args: Any, kl_weight: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kl_weight = kl_weight

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002 - as of transformers
    ) -> Any:
        """Compute eq. 17 for a batch: chosen completions, then the rejected ones of the same pairs."""
        with self.compute_loss_context_manager():
            ours = _completion_logs(self.accelerator.unwrap_model(model), inputs)
            with torch.no_grad(), self._as_reference() as reference:
                theirs = _completion_logs(reference, inputs)
        # Places of a row's completion, and the tokens that stand there.
        rows, places = inputs["completion_mask"][:, 1:].nonzero(as_tuple=True)
        tokens = inputs["input_ids"][:, 1:][rows, places, None]
        differences = (ours - theirs).gather(-1, tokens).squeeze(-1)
        chosen, rejected = differences.new_zeros(len(inputs["input_ids"])).index_add(0, rows, differences).chunk(2)
        margins = self.beta * (chosen - rejected)
        dpo = -F.logsigmoid(margins).mean()
        with torch.set_grad_enabled(self._kl_weight > 0 and torch.is_grad_enabled()):
            kl = divergence(ours, theirs).sum() / len(inputs["input_ids"])
        loss = dpo + self._kl_weight * kl if self._kl_weight else dpo
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, found in (
            ("dpo", dpo), ("kl", kl), ("rewards/margins", margins.mean()),
            ("rewards/accuracies", (margins > 0).float().mean()),
        ):  # fmt: skip
            metrics[name].append(float(found.detach()))
        return (loss, {"margins": margins}) if return_outputs else loss

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """Lend π_ref: the model of its own or, where adapters are tuned, π without them."""
        if self.ref_model is not None:
            yield self.accelerator.unwrap_model(self.ref_model)
            return
        policy = self.accelerator.unwrap_model(self.model)
        with policy.disable_adapter():
            yield policy

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        # They are tokens already, exactly those that are served.
        return dataset


def divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(π‖π_ref) of the distributions of two tensors of log-probabilities: [n, V] each → [n].

    The paper leaves the direction open; this one keeps π from putting mass where the reference has none.
    """
    return (policy.exp() * (policy - reference)).sum(-1)


def _completion_logs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Log-probabilities of every token at the places of completions, in the mask's order: [places, V] float32."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    states = inner.base_model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state
    chosen = states[:, :-1][inputs["completion_mask"][:, 1:].bool()]
    return F.log_softmax(inner.get_output_embeddings()(chosen).float(), -1)


class _Logs(TrainerCallback):  # type: ignore[misc]
    """Says what trl logs at the end of each pass: means over its steps."""

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "kl" in logs:
            logger.info("step %d: loss %.4f, kl %.5f", state.global_step, logs["loss"], logs["kl"])


@contextmanager
def _renamed_in_transformers() -> Iterator[None]:
    """Keep quiet about a name that trl and peft use and transformers deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _check(config: Any) -> None:
    for name, neutral in (
        ("final_logit_softcapping", None), ("logit_scale", 1), ("output_multiplier", 1), ("lm_head_multiplier", 1),
        ("logits_scaling", 1),
    ):  # fmt: skip
        found = getattr(config, name, None)
        if found is not None and found != neutral:
            raise ValueError(f"{config.model_type}: {name}: found {found}, expected none: logits must be the layer's")


def _arguments(directory: Path, config: DpoConfig, seed: int) -> DPOConfig:
    has_gpu = torch.cuda.is_available()
    return DPOConfig(
        output_dir=str(directory),
        beta=_BETA,
        loss_type=["sigmoid"],
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        activation_checkpointing=False,  # trl recomputes by default
        max_length=None,
        bf16=has_gpu,
        use_cpu=not has_gpu,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        # A cycle is short: what a killed run had of it is done again.
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )
