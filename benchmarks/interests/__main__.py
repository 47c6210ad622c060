"""Judge latent interests of every origin in one table, and by the categories users newly enter in the held-out period.

    python -m benchmarks.interests --build var/complete-journey-held-out           without a language model
    python -m benchmarks.interests --interest-gpt tuned=DIR --interest-gpt base=DIR      InterestGPT beside them
    python -m benchmarks.interests --language-model smollm2 --categories 60        one hop, two hops, debate

A language model is asked about the most bought categories, one at a time (see category_links).

Reads the logs of a build that held its latest clicks out (`serendip evaluate channel` makes one). Answers of language
models are kept below --cache: a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from benchmarks.command import failed, options_of, read_options
from benchmarks.interests.bench import TAXONOMY, Bench, make_bench
from benchmarks.interests.category_links import (
    CategoryLinks,
    beside_popularity,
    click_similarities,
    context_of,
    follow,
    most_clicked,
    nearest_links,
    said_links,
    text_similarities,
)
from benchmarks.interests.judging import (
    POPULAR_OR_OWN,
    POPULAR_UNSEEN,
    Judged,
    K,
    judge_interests,
    popular_or_own,
    popular_unseen,
    row_of,
    run_reasoner,
    with_counts,
)
from benchmarks.interests.page import Conditions, markdown, write_interests_report
from benchmarks.interests.single_hop import SingleHop
from benchmarks.smollm2 import SMOLLM2, base_of
from serendipity import layout
from serendipity.interests.model import InterestGptError, read_spec
from serendipity.offline.encoder import EncoderError, TextEncoder, default_path
from serendipity.offline.evaluate.held_out_build import snapshot_of
from serendipity.offline.evaluate.methods_report import run_heading
from serendipity.offline.interests.debate import DebateConfig
from serendipity.offline.interests.hops import Prompting, TwoHop
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.language_models.config import LanguageModelConfig, LocalConfig
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import LanguageModel, LanguageModelError
from serendipity.offline.logs.errors import LogsError
from serendipity.tools.arguments import natural, new_directory, positive

_ANSWER_TOKENS = 48
"""Eight to ten short lines."""

_ASKED_AT_ONCE = 10
"""Categories of which all methods ask before any asks of the next: a run that is ended has asked all of the same."""

DEBATES: tuple[tuple[str, type[Prompting], int, int], ...] = (
    ("single-hop", SingleHop, 1, 1),
    ("two-hop", TwoHop, 1, 1),
    ("two-hop, debate 2 × 2", TwoHop, 2, 2),
)
"""Row, how it is asked, agents and rounds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Judge and print; returns 1 when nothing was held out or a model cannot be used."""
    parser = options_of("interests", __doc__)
    parser.add_argument("--dataset", default="complete-journey", help="names the default build directory")
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET-held-out)")
    parser.add_argument("--seeds", type=natural, nargs="+", default=[0, 1, 2], help="of samples of users and answers")
    parser.add_argument(
        "--interest-gpt", action="append", default=[], metavar="LABEL=DIR", help="an InterestGPT directory; repeatable"
    )
    parser.add_argument("--interest-gpt-users", type=int, default=200, help="users per seed for an InterestGPT")
    parser.add_argument(
        "--language-model", metavar="NAME", help="smollm2, or a TOML file with a [language_model] table, for the rows "
        "of one hop, two hops and debate"
    )  # fmt: skip
    parser.add_argument("--categories", type=positive, default=60, help="most bought categories that links lead from")
    parser.add_argument("--cache", type=Path, default=Path("var/completions"), help="answers of language models")
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="text encoder (default: the packaged MiniLM)")
    parser.add_argument("--out", type=new_directory, metavar="DIR", help="write interests.json and interests.md there")
    args = read_options(parser, argv)
    build = args.build or Path("var") / f"{Path(args.dataset).resolve().name}-held-out"
    if not build.is_dir():
        return failed(parser, f"{build}: no such directory")
    started, console = time.time(), Console()
    try:
        encoder = TextEncoder(args.text_encoder or default_path())
        bench = make_bench(build, encoder)
        judged = _judge_all(args, bench, console)
    except (LogsError, EncoderError, InterestGptError, LanguageModelError, ValueError) as error:
        return failed(parser, error)
    evaluation, rng = bench.evaluation, np.random.default_rng(args.seeds[0])
    baselines = {name: judged[name][0] for name in (POPULAR_UNSEEN, POPULAR_OR_OWN, TAXONOMY)}
    rows = [row_of(runs, baselines, rng) for runs in judged.values()]
    conditions = Conditions(
        dataset=layout.read_manifest(snapshot_of(build)).dataset,
        heading=run_heading(args.command, started, time.time()),
        cut=evaluation.cut,
        until=evaluation.until,
        users=len(evaluation.users),
        own_weight=bench.own_weight,
    )
    print(markdown(rows, bench.threshold, conditions))
    if args.out:
        write_interests_report(rows, bench.threshold, conditions, args.out)
    return 0


def _judge_all(args: argparse.Namespace, bench: Bench, console: Console) -> dict[str, list[Judged]]:
    """Run every method; returns the runs of each."""
    evaluation, clock = bench.evaluation, time.monotonic
    everyone = evaluation.users
    said = [
        popular_unseen(evaluation, everyone),
        popular_or_own(evaluation, everyone, bench.own_weight),
        run_reasoner(evaluation, TAXONOMY, bench.reasoner, everyone, args.seeds[0], clock),
    ]
    asked = most_clicked(evaluation, args.categories)
    for links, reasoner, seconds in _links(args, bench, asked, console):
        followed, (mixed, weight) = follow(evaluation, links), beside_popularity(evaluation, links, bench.start)
        told = with_counts(replace(followed, seconds=seconds), reasoner) if reasoner else followed
        said += [told, replace(mixed, method=f"{mixed.method} × {weight:g}")]
    judged = {one.method: [judge_interests(evaluation, one)] for one in said}
    # Seed by seed, so that a run that is ended has answers of all methods about some users in the cache.
    for seed in args.seeds:
        for method, reasoner_of in _interest_gpts(args, bench):
            users = evaluation.samples(args.seeds, args.interest_gpt_users)[seed]
            console.print(f"{method}: seed {seed}, {len(users)} users", style="dim")
            run_of_seed = run_reasoner(evaluation, method, reasoner_of(seed), users, seed, clock)
            judged.setdefault(method, []).append(judge_interests(evaluation, run_of_seed))
    return judged


def _interest_gpts(args: argparse.Namespace, bench: Bench) -> Iterator[tuple[str, Callable[[int], LlmReasoner]]]:
    """List the rows of InterestGPTs: name, reasoner by seed."""
    for argument in args.interest_gpt:
        label, _, directory = argument.rpartition("=")
        spec = read_spec(Path(directory))
        model = open_language_model(LocalConfig(path=Path(directory)), args.cache)
        yield f"InterestGPT {label or Path(directory).name}", partial(bench.json_reasoner, model, spec)


def _links(
    args: argparse.Namespace, bench: Bench, asked: Sequence[int], console: Console
) -> Iterator[tuple[CategoryLinks, LlmReasoner | None, float]]:
    """Link the categories in every way; with the answers of a language model, who asked it, and for how long."""
    evaluation = bench.evaluation
    for name, similarities in (
        ("text vectors", text_similarities(bench.category_vectors)),
        ("co-occurrence", click_similarities(evaluation)),
    ):
        yield nearest_links(f"{name}, {len(asked)} categories", evaluation, asked, similarities), None, 0.0
    if not args.language_model:
        return
    talker, seed = _language_model(args.language_model, args.cache), args.seeds[0]
    reasoners, seconds = {}, dict.fromkeys((name for name, *_ in DEBATES), 0.0)
    for name, prompting, agents, rounds in DEBATES:
        debate = DebateConfig(agents=agents, rounds=rounds, max_new_tokens=_ANSWER_TOKENS)
        reasoners[name] = bench.line_reasoner(talker, prompting(), debate, seed)
    contexts = [context_of(category, evaluation.cut) for category in asked]
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        for name, reasoner in reasoners.items():
            began = time.monotonic()
            reasoner.reason(contexts[start : start + _ASKED_AT_ONCE], K)
            seconds[name] += time.monotonic() - began
        done = min(start + _ASKED_AT_ONCE, len(asked))
        console.print(f"{talker.name}: {done} of {len(asked)} categories", style="dim")
    for name, reasoner in reasoners.items():
        links = said_links(f"{name}, {len(asked)} categories", evaluation, asked, reasoner.reason(contexts, K))
        yield links, reasoner, seconds[name]


def _language_model(name: str, cache: Path) -> LanguageModel:
    if name == SMOLLM2:
        return open_language_model(LocalConfig(path=Path(base_of(name))), cache)
    try:
        with Path(name).open("rb") as file:
            table = tomllib.load(file)["language_model"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise LanguageModelError(
            f"{name}: {error!r}; expected smollm2 or TOML with a [language_model] table"
        ) from error
    return open_language_model(read_language_model_config(table), cache)


def read_language_model_config(table: Mapping[str, Any]) -> LanguageModelConfig:
    """Read a table. Raises LanguageModelError naming every wrong field and what was expected, and no value."""
    adapter: TypeAdapter[LanguageModelConfig] = TypeAdapter(LanguageModelConfig)
    try:
        return adapter.validate_python(table)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, found['loc'])) or 'language model'}: {found['msg']}"
            for found in error.errors(include_input=False, include_url=False)
        ]
        raise LanguageModelError("language model configuration:\n  " + "\n  ".join(lines)) from None


if __name__ == "__main__":
    sys.exit(main())
