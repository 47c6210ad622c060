"""Distil InterestGPT from a build, or make its data set alone.

    serendip distil --build var/complete-journey --out var/interest-gpt
    serendip distil --build var/complete-journey --out var/qwen --base path/to/model --examples 300

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

from pydantic import ValidationError
from rich.progress import Progress

from serendipity.interests.model import InterestGptError
from serendipity.offline.distillation.builder import build_interest_gpt, build_training_data
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.errors import BuilderError
from serendipity.offline.interest_steps import worth
from serendipity.tools.arguments import add_build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip distil`."""
    add_build(parser, "directory with logs/ and interests/", required=True)
    parser.add_argument("--out", type=Path, metavar="DIR", help="model directory (default: BUILD/distilled)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with any field of the distillation")
    parser.add_argument("--base", help="tiny, or the path of a transformers model (default: tiny)")
    parser.add_argument("--examples", type=int, metavar="N", help="examples, all splits together")
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="encoder of the interests (default: packaged)")
    parser.add_argument("--dataset-only", action="store_true", help="make the data set and stop")


def run(args: argparse.Namespace) -> int:
    """Distil; returns 1 when something given cannot be used."""
    out = args.out or args.build / "distilled"
    try:
        config = _config(args)
        encoder = TextEncoder(args.text_encoder or default_path())
        with Progress(transient=True) as progress:
            if args.dataset_only:
                made = build_training_data(
                    args.build / "logs", args.build / "interests", out, config, encoder=encoder, progress=progress
                )
                print(json.dumps(asdict(made), indent=2))
            else:
                spec = build_interest_gpt(
                    args.build / "logs", args.build / "interests", out, config, encoder=encoder, progress=progress
                )
                told = ", ".join(f"{name} {value}" for name, value in worth(spec).items())
                print(f"{out}: {spec.model_name}: {told}")
    except ValidationError as error:
        for wrong in error.errors():
            place = ".".join(map(str, wrong["loc"]))
            print(f"serendip distil: {place}: found {wrong.get('input')!r}: {wrong['msg']}", file=sys.stderr)
        return 1
    except (BuilderError, InterestGptError, OSError, ValueError) as error:
        print(f"serendip distil: {error}", file=sys.stderr)
        return 1
    return 0


def _config(args: argparse.Namespace) -> DistillationConfig:
    content: dict[str, Any] = tomllib.loads(args.config.read_text(encoding="utf-8")) if args.config else {}
    if args.base is not None:
        content["base"] = args.base
    if args.examples is not None:
        content.setdefault("dataset", {})["num_examples"] = args.examples
    return DistillationConfig.model_validate(content)
