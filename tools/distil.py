"""Distil InterestGPT from a build, or one part of it: the data set, the training, the evaluation.

    serendip distil --build var/complete-journey --out var/interest-gpt
    serendip distil --build var/complete-journey --out var/smollm2 --base smollm2 --examples 300 --lora
    serendip distil --build var/complete-journey-held-out --out var/interest-gpt --evaluate

--build is a directory with logs/ and interests/ as `serendip build` makes them. Whatever was done is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from serendipity.interests.model import InterestGptError, read_spec
from serendipity.layout import write_atomically
from serendipity.offline.distillation.base_model import open_base, style_of
from serendipity.offline.distillation.builder import (
    DATASET_DIRECTORY,
    build_interest_gpt,
    build_training_data,
)
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.dataset import DatasetError, read_examples
from serendipity.offline.distillation.evaluation import evaluate_answers
from serendipity.offline.distillation.moments import TEST, TRAIN
from serendipity.offline.encoder import EncoderError, RememberingEncoder, TextEncoder, default_path
from serendipity.offline.interests.vocabulary import Vocabulary, VocabularyError
from serendipity.offline.language_models.language_model import LanguageModelError
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.tuning.base_model import BaseModelError, load_model
from serendipity.tools.arguments import add_build

QUALITY = "quality.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip distil`."""
    add_build(parser, "directory with logs/ and interests/", required=True)
    parser.add_argument("--out", type=Path, metavar="DIR", help="model directory (default: BUILD/distilled)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with any field of the distillation")
    parser.add_argument("--base", help="tiny, smollm2, or the path of a transformers model (default: tiny)")
    parser.add_argument("--examples", type=int, metavar="N", help="examples, all splits together")
    parser.add_argument("--epochs", type=float, help="passes over the training examples")
    method = parser.add_mutually_exclusive_group()
    method.add_argument("--lora", dest="method", action="store_const", const="lora", help="tune low-rank adapters")
    method.add_argument("--full", dest="method", action="store_const", const="full", help="tune all weights")
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="encoder of the interests (default: packaged)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--dataset-only", action="store_true", help="make the data set and stop")
    part.add_argument("--evaluate", action="store_true", help="compare base and tuned model on held-out users")
    parser.add_argument("--users", type=int, default=200, help="with --evaluate: held-out users compared at most")


def run(args: argparse.Namespace) -> int:
    """Distil; returns 1 when something given cannot be used."""
    out = args.out or args.build / "distilled"
    try:
        config = _config(args)
        encoder = TextEncoder.from_path(args.text_encoder or default_path())
        with Progress(transient=True) as progress:
            if args.dataset_only:
                made = build_training_data(
                    args.build / "logs", args.build / "interests", out, config, encoder=encoder, progress=progress
                )
                print(json.dumps(asdict(made), indent=2))
            elif args.evaluate:
                _evaluate(args, out, config, encoder, progress)
            else:
                spec = build_interest_gpt(
                    args.build / "logs", args.build / "interests", out, config, encoder=encoder, progress=progress
                )
                print(f"{out}: {spec.model_name}")
    except ValidationError as error:
        for wrong in error.errors():
            place = ".".join(map(str, wrong["loc"]))
            print(f"serendip distil: {place}: found {wrong.get('input')!r}: {wrong['msg']}", file=sys.stderr)
        return 1
    except (
        BaseModelError, DatasetError, EncoderError, InterestGptError, LanguageModelError, LogsError, OSError,
        ValueError, VocabularyError,
    ) as error:  # fmt: skip
        print(f"serendip distil: {error}", file=sys.stderr)
        return 1
    return 0


def _config(args: argparse.Namespace) -> DistillationConfig:
    content: dict[str, Any] = tomllib.loads(args.config.read_text(encoding="utf-8")) if args.config else {}
    given = (
        (content, "base", args.base),
        (content.setdefault("dataset", {}), "num_examples", args.examples),
        (content.setdefault("sft", {}), "epochs", args.epochs),
        (content["sft"], "method", args.method),
    )
    for table, name, value in given:
        if value is not None:
            table[name] = value
    return DistillationConfig.model_validate(content)


def _evaluate(
    args: argparse.Namespace, out: Path, config: DistillationConfig, encoder: TextEncoder, progress: Progress
) -> None:
    spec = read_spec(out)
    vocabulary = Vocabulary.read(args.build / "interests")
    grounder = vocabulary.grounder(RememberingEncoder(encoder))
    histories = Histories.read(args.build / "logs")
    held_out = read_examples(out / DATASET_DIRECTORY, TEST)
    chosen = np.random.default_rng(config.dataset.seed).permutation(len(held_out))[: args.users]
    examples = [held_out[place] for place in sorted(chosen.tolist())]
    base = open_base(
        config.model_copy(update={"base": spec.base}),
        read_examples(out / DATASET_DIRECTORY, TRAIN),
        vocabulary.categories,
    )
    tuned = load_model(out, "tuned", style_of(config))
    table = Table("", "parsed", "grounded", "novel", "Jaccard", "overlap", "proposals", "tokens", "perplexity")
    found = {}
    for name, model in (("base", base), ("tuned", tuned)):
        quality = evaluate_answers(model, examples, histories, grounder, spec.max_new_tokens, progress=progress)
        found[name] = asdict(quality)
        shares = (quality.parsed, quality.grounded, quality.novel, quality.jaccard, quality.overlap)
        rest = (f"{quality.proposals:.1f}", f"{quality.tokens:.0f}", f"{quality.perplexity:.2f}")
        table.add_row(name, *(f"{share:.3f}" for share in shares), *rest)
    write_atomically(out / QUALITY, json.dumps(found, indent=2).encode())
    Console().print(table)
