"""Logs and interests → InterestGPT: the data set, the tuned model, and what its Triton model is told.

<out>/  config.json, model.safetensors, tokenizer.json …   as `save_pretrained` writes them, adapters merged
        categories.json, interest_gpt.json                 serendipity.interests.model
        distillation.json                                  what was counted and how long it took; written last
        dataset/  checkpoints/                             serendipity.offline.distillation.{dataset, sft}
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from rich.progress import Progress

from serendipity.interests.answer import CATEGORY_FIRST
from serendipity.interests.grounding import Grounder
from serendipity.interests.model import CATEGORIES, MODEL_PREFIX, SPEC, fingerprint
from serendipity.layout import write_atomically
from serendipity.offline.distillation.asking import named_categories, told_of
from serendipity.offline.distillation.base_model import open_base, style_of
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.dataset import DatasetSummary, build_dataset, read_examples
from serendipity.offline.distillation.examples import Example, hints_alone
from serendipity.offline.distillation.moments import TRAIN, VALIDATION, cuts_of, entered_between, split_of
from serendipity.offline.distillation.rank_weights import rank_weights
from serendipity.offline.distillation.sft import tune
from serendipity.offline.distillation.teacher import TaxonomyTeacher, Teacher
from serendipity.offline.encoder import RememberingEncoder, TextEncoder
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories
from serendipity.offline.tuning.base_model import BaseModel, no_progress_bars
from serendipity.offline.tuning.training import Training
from serendipity.v1 import records_pb2

DATASET_DIRECTORY = "dataset"
CHECKPOINTS = "checkpoints"
REPORT = "distillation.json"

_MAX_BATCH = 64
"""Users in one call of the Triton model at most."""

_MOST_PROMPT_TOKENS = {"compact": 1_024, "chat": 2_048}


@dataclass(frozen=True)
class DistillationReport:
    """What was done. seconds: by stage."""

    dataset: DatasetSummary
    training: Training
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Material:
    """What data set and rank weights are made from."""

    histories: Histories
    until: int
    vocabulary: Vocabulary
    titles: Sequence[str]
    teacher: Teacher
    grounder: Grounder

    @classmethod
    def read(cls, logs: Path, interests: Path, encoder: TextEncoder, teacher: Teacher | None) -> _Material:
        histories, catalogue = Histories.read(logs), Catalogue.read(logs)
        vocabulary = Vocabulary.read(interests)
        return cls(
            histories=histories,
            until=LogsSummary.read(logs_directory(logs)).events_until,
            vocabulary=vocabulary,
            titles=catalogue.titles,
            teacher=teacher or TaxonomyTeacher(Taxonomy.from_catalogue(catalogue), histories),
            grounder=vocabulary.grounder(RememberingEncoder(encoder)),
        )

    def dataset(self, out: Path, config: DistillationConfig, progress: Progress | None) -> DatasetSummary:
        return build_dataset(
            self.histories,
            self.until,
            self.vocabulary.nodes,
            self.vocabulary.categories,
            self.titles,
            self.teacher,
            self.grounder,
            out / DATASET_DIRECTORY,
            config.dataset,
            style_of(config),
            progress=progress,
        )


def build_training_data(
    logs: Path,
    interests: Path,
    out: Path,
    config: DistillationConfig,
    *,
    encoder: TextEncoder,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Make the data set alone, in <out>/dataset, where `build_interest_gpt` goes on from it. Arguments: see there."""
    return _Material.read(logs, interests, encoder, None).dataset(out, config, progress)


def build_interest_gpt(
    logs: Path,
    interests: Path,
    out: Path,
    config: DistillationConfig,
    *,
    encoder: TextEncoder,
    teacher: Teacher | None = None,
    progress: Progress | None = None,
) -> records_pb2.InterestGptSpec:
    """Distil InterestGPT from the logs and the interests built of them, and write its directory.

    teacher: None for the taxonomy reasoner, fitted as of every moment. encoder: the one of the interests' vectors.
    A run that was killed is continued. Raises ValueError when the logs are too short, and what data set, base and
    training raise.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    material = _Material.read(logs, interests, encoder, teacher)
    dataset = material.dataset(out, config, progress)
    seconds = {"dataset": time.monotonic() - started}
    started = time.monotonic()
    examples = read_examples(out / DATASET_DIRECTORY)
    training_examples = [example for example in examples if example.split == TRAIN]
    base = open_base(config, training_examples, material.vocabulary.categories)
    short = [short for example in training_examples if (short := hints_alone(example)) is not None]
    # A small model must learn to copy before anything else, and does so in a fraction of the tokens.
    if base.style == "compact" and short:
        base, _ = tune(base, short, out / CHECKPOINTS / "hints", config.sft, progress=progress)
    tuned, training = tune(base, training_examples, out / CHECKPOINTS, config.sft, progress=progress)
    seconds["training"] = time.monotonic() - started
    started = time.monotonic()
    spec = _export(tuned, examples, material.vocabulary, config, out)
    spec.rank_weights.extend(_measure_ranks(tuned, material, config, spec, progress))
    text = json_format.MessageToJson(spec, preserving_proto_field_name=True, sort_keys=True)
    write_atomically(out / SPEC, text.encode())
    seconds["export"] = time.monotonic() - started
    report = DistillationReport(dataset, training, {name: round(value, 1) for name, value in seconds.items()})
    write_atomically(out / REPORT, json.dumps(asdict(report), indent=2, sort_keys=True).encode())
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return spec


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
        answer_fields=CATEGORY_FIRST,
        facts=records_pb2.FactsSpec(
            search_days=facts.search_days,
            clicked_titles=facts.clicked_titles,
            signal_titles=facts.signal_titles,
            hints=config.dataset.hints,
        ),
    )


def _measure_ranks(
    tuned: BaseModel,
    material: _Material,
    config: DistillationConfig,
    spec: records_pb2.InterestGptSpec,
    progress: Progress | None,
) -> list[float]:
    """Measure the weight of each rank on validation users, as of the last moment whose horizon the logs hold.

    A rank counts after grounding. Where there are fewer validation users than rank_weight_users, others fill up, whose
    answers the training has seen: the weights are then somewhat too high.
    """
    histories, vocabulary = material.histories, material.vocabulary
    cut = cuts_of(histories, material.until, config.dataset)[0]
    known = [user for user in range(len(histories)) if histories.count_before(user, cut)]
    known.sort(key=lambda user: split_of(histories.user_ids[user]) != VALIDATION)
    users = known[: config.rank_weight_users]
    contexts = contexts_at(histories, cut, users)
    hinting = material.teacher.at(cut) if config.dataset.hints else None
    facts = told_of(contexts, vocabulary.nodes, vocabulary.categories, material.titles, hinting, config.dataset)
    found = named_categories(
        tuned, contexts, facts, material.grounder, spec.num_interests, spec.max_new_tokens, progress=progress
    )
    days, chosen = config.dataset.horizon_days, np.array(users, np.int64)
    return rank_weights(found, entered_between(histories, cut, days, len(vocabulary.categories), chosen))
