"""Logs and interests → InterestGPT: the data set, the tuned model, and what its Triton model is told.

<out>/  config.json, model.safetensors, tokenizer.json …   as `save_pretrained` writes them, adapters merged
        categories.json, interest_gpt.json                 serendipity.interests.model
        dataset/  checkpoints/                             serendipity.offline.distillation.{dataset, sft}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from rich.progress import Progress

from serendipity.interests.model import CATEGORIES, MODEL_PREFIX, SPEC, fingerprint
from serendipity.interests.reasoner import Reasoner
from serendipity.layout import write_atomically
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.dataset import build_dataset, read_examples
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.likelihoods import judge, weigh
from serendipity.offline.distillation.material import Material
from serendipity.offline.distillation.moments import TEST, TRAIN, VALIDATION, judged_at
from serendipity.offline.distillation.sft import tune
from serendipity.offline.distillation.whole_tokens import make_tokenizer, names_of
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.progress import no_progress_bars
from serendipity.offline.tuning import base_model
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.v1 import records_pb2

DATASET_DIRECTORY = "dataset"
CHECKPOINTS = "checkpoints"

_MAX_BATCH = 64
"""Users in one call of the Triton model at most."""

_BPE_EXAMPLES = 2_000

_MOST_PROMPT_TOKENS = {"compact": 1_024, "chat": 2_048}


def build_interest_gpt(
    logs: Path,
    interests: Path,
    out: Path,
    config: DistillationConfig,
    *,
    encoder: TextEncoder,
    teacher: Reasoner | None = None,
    progress: Progress | None = None,
) -> records_pb2.InterestGptSpec:
    """Distil InterestGPT from the logs and the interests built of them, and write its directory.

    teacher: one that learns nothing from these logs; None: the taxonomy reasoner, fitted as of every moment. encoder:
    the one of the interests' vectors. A run that was killed is continued. Raises ValueError when the logs are too
    short, and what data set, base and training raise.
    """
    out.mkdir(parents=True, exist_ok=True)
    material = Material.read(logs, interests, encoder, teacher)
    build_dataset(material, out / DATASET_DIRECTORY, config.dataset, config.style, progress=progress)
    examples = read_examples(out / DATASET_DIRECTORY)
    training_examples = [example for example in examples if example.split == TRAIN]
    base = open_base(config, training_examples, material.categories)
    tuned = tune(base, training_examples, out / CHECKPOINTS, config.sft, progress=progress)
    spec = _export(tuned, examples, material.vocabulary, config, out)
    if not spec.writes:
        reasoner, most = material.reasoner_at(judged_at(material.until, config.dataset)), spec.max_prompt_tokens
        judged, task = [], progress.add_task("judging", total=2) if progress else None
        for split in (VALIDATION, TEST):
            judged.append(judge(tuned, reasoner, material, config, split, most))
            if progress and task is not None:
                progress.advance(task)
        validation, test = judged
        spec.likelihood_weight, report = weigh(validation, test)
        spec.report.CopyFrom(report)
    text = json_format.MessageToJson(spec, preserving_proto_field_name=True, sort_keys=True)
    write_atomically(out / SPEC, text.encode())
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return spec


def open_base(config: DistillationConfig, examples: Sequence[Example], categories: Sequence[str]) -> BaseModel:
    """Load the base, or make the tiny model, whose tokens are named after categories and what examples speak of.

    Raises BaseModelError.
    """

    def tokenizer() -> Any:
        texts = [example.prompt for example in examples[:_BPE_EXAMPLES]]
        return make_tokenizer(names_of(examples, categories), texts, config.tiny)

    return base_model.open_base(config.base, config.style, config.tiny, config.sft.seed, tokenizer)


def _export(
    tuned: BaseModel, examples: Sequence[Example], vocabulary: Vocabulary, config: DistillationConfig, out: Path
) -> records_pb2.InterestGptSpec:
    """Write weights, tokenizer and categories, and tell what is known of the model without asking it anything."""
    with no_progress_bars():
        tuned.model.save_pretrained(out)
    tuned.tokenizer.save_pretrained(out)
    write_atomically(out / CATEGORIES, json.dumps(list(vocabulary.categories), ensure_ascii=False).encode())
    longest = max(len(tuned.tokenizer(example.answer)["input_ids"]) for example in examples)
    max_new_tokens = longest + longest // 4 + 1
    name = fingerprint(out)
    facts = config.dataset.facts
    return records_pb2.InterestGptSpec(
        model_name=MODEL_PREFIX + name,
        fingerprint=name,
        base=tuned.name,
        prompt_style=tuned.style,
        num_interests=config.dataset.num_interests,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=min(tuned.max_positions - max_new_tokens, _MOST_PROMPT_TOKENS[tuned.style]),
        taxonomy_hash=vocabulary.taxonomy_hash,
        max_batch=_MAX_BATCH,
        writes=config.ask == "write",
        num_candidates=config.num_candidates,
        facts=records_pb2.FactsSpec(
            search_days=facts.search_days,
            clicked_titles=facts.clicked_titles,
            signal_titles=facts.signal_titles,
        ),
    )
