"""Measure how fast InterestGPT refreshes users through Triton, and how many such machines a population needs.

    python -m benchmarks.interest_gpt --build var/complete-journey --launch
    python -m benchmarks.interest_gpt --build var/complete-journey --model DIR --url 127.0.0.1:8000

Prompts are those of the test users of the data set beside the model, if it lies there, else those of the build's users
at the end of its logs. A row scores as many categories of each as near-line does, or has answers written, in batches
of one size, one batch at a time, for at least --seconds, after one batch that is not counted; rows take turns, so that
a machine whose speed drifts slows all of them alike. "÷ writing" is the ratio to writing in batches of the same size.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.triton_serving import batch_sizes, serving
from serendipity.channel.errors import GenerationError
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt
from serendipity.interests.answer import AnswerError, read_answer
from serendipity.interests.facts import facts_of
from serendipity.interests.model import CATEGORIES
from serendipity.interests.prompt import STYLES, PromptStyle, render
from serendipity.offline.distillation.builder import DATASET_DIRECTORY
from serendipity.offline.distillation.dataset import DATASET, DatasetError, read_examples
from serendipity.offline.distillation.moments import TEST
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.user_facts import EVERYTHING
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.tools.serving.deployment import DeployError, load, place
from serendipity.tools.serving.kinds import INTEREST_GPT, Serving, interest_gpt
from serendipity.tools.serving.trainings import PlacementError, read_categories, read_interest_gpt
from serendipity.tools.serving.triton_program import TritonError
from serendipity.v1 import records_pb2

_DAY = 86_400
_ROUNDS = 20
_CALL_TIMEOUT = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started or does not answer."""
    parser = options_of("interest_gpt", __doc__)
    parser.add_argument(
        "--build", type=Path, required=True, metavar="DIR", help="build directory whose users are asked"
    )
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="model directory (default: interest_gpt/ of the build)"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", metavar="HOST:PORT", help="HTTP address of a Triton that serves the model")
    where.add_argument("--launch", action="store_true", help="place the model and start a Triton for it alone")
    parser.add_argument("--threads", type=int, metavar="N", help="with --launch: threads (default: as checked in)")
    parser.add_argument(
        "--batches", type=int, nargs="+", metavar="N", help="users a call (default: 1, 8, … to the most)"
    )
    parser.add_argument("--users", type=int, default=256, help="users whose prompts are sent, over and over")
    parser.add_argument("--seconds", type=float, default=12.0, help="time of each row, at least")
    parser.add_argument("--population", type=int, default=10_000_000, help="users to be refreshed")
    parser.add_argument("--days", type=float, default=7.0, help="time for all of them")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of users")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report (Markdown)")
    args = read_options(parser, argv)
    model_dir = args.model or args.build / "interest_gpt"
    try:
        spec = read_interest_gpt(model_dir)
        prompts = prompts_of(args.build, model_dir, spec, args.users, args.seed)
        candidates = read_categories(model_dir / CATEGORIES)[: spec.num_candidates]
        sizes = batch_sizes(args.batches, spec.max_batch)
        serving_as = Serving(llm_threads=args.threads)
        with serving(
            args.url,
            lambda models: place(INTEREST_GPT, model_dir, models, serving_as),
            lambda grpc_url: load(grpc_url, interest_gpt(spec)),
        ) as url:
            rows = asyncio.run(measure(url, spec, prompts, candidates, sizes, args.seconds))
    except (DatasetError, DeployError, GenerationError, LogsError, PlacementError, TritonError, ValueError) as error:
        return failed(parser, error)
    return publish(_report(args, spec, rows), args.out)


Mode = Literal["scoring", "writing"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass
class Throughput:
    """What was measured of calls with so many users each. seconds: of all calls, one after another.

    answers: one a user; those of scoring have no text.
    """

    batch: int
    mode: Mode
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)

    @property
    def users_per_second(self) -> float:
        """Users answered a second."""
        return len(self.answers) / self.seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        """Tokens read a second."""
        return sum(answer.prompt_tokens for answer in self.answers) / self.seconds

    @property
    def new_tokens_per_second(self) -> float:
        """Tokens written a second."""
        return sum(answer.completion_tokens for answer in self.answers) / self.seconds

    @property
    def share_parsed(self) -> float:
        """Share of the answers that can be read whole."""
        return sum(map(_parses, self.answers)) / len(self.answers)


async def measure(
    url: str,
    spec: records_pb2.InterestGptSpec,
    prompts: Sequence[str],
    candidates: Sequence[str],
    sizes: Sequence[int],
    seconds: float,
) -> list[Throughput]:
    """Measure every batch size in every mode. Raises GenerationError."""
    rows = [Throughput(size, mode) for size in sizes for mode in MODES]
    client = InterestGpt(url, max_batches_in_flight=1)
    asked = cycle(prompts)
    try:
        for row in rows:
            await _ask(client, spec, row, asked, candidates)
        for round_number in range(1, _ROUNDS + 1):
            for row in rows:
                while row.seconds < seconds * round_number / _ROUNDS:
                    start = time.perf_counter()
                    answers = await _ask(client, spec, row, asked, candidates)
                    row.seconds += time.perf_counter() - start
                    row.answers += answers
    finally:
        await client.close()
    return rows


async def _ask(
    client: InterestGpt,
    spec: records_pb2.InterestGptSpec,
    row: Throughput,
    asked: Iterator[str],
    candidates: Sequence[str],
) -> list[Answer]:
    prompts = [*islice(asked, row.batch)]
    if row.mode == "scoring":
        found = await client.log_likelihoods(spec, prompts, [candidates] * len(prompts), _CALL_TIMEOUT)
        return [Answer("", one.prompt_tokens, 0) for one in found]
    return await client.answers(spec, prompts, _CALL_TIMEOUT)


def machines_needed(population: int, days: float, users_per_second: float) -> int:
    """Machines of a rate that refresh a population in a time."""
    return math.ceil(population / (days * _DAY) / users_per_second)


def _parses(answer: Answer) -> bool:
    try:
        read_answer(answer.text)
    except AnswerError:
        return False
    return True


def prompts_of(build: Path, model_dir: Path, spec: records_pb2.InterestGptSpec, wanted: int, seed: int) -> list[str]:
    """Take the prompts of a sample of users. Raises ValueError, LogsError, DatasetError."""
    generator = np.random.default_rng(seed)
    if (model_dir / DATASET_DIRECTORY / DATASET).is_file():
        examples = read_examples(model_dir / DATASET_DIRECTORY, TEST)
        prompts = [examples[i].prompt for i in generator.permutation(len(examples))[:wanted].tolist()]
    else:
        histories, catalogue = Histories.read(build), Catalogue.read(build)
        users = generator.permutation(len(histories))[:wanted].tolist()
        contexts = contexts_at(histories, LogsSummary.read(build / "logs").events_until, users)
        rule = spec.facts if spec.HasField("facts") else EVERYTHING
        style: PromptStyle = STYLES[STYLES.index(spec.prompt_style)]
        facts = [facts_of(context, catalogue.categories, catalogue.titles.__getitem__, rule) for context in contexts]
        prompts = [render(told, style) for told in facts if not told.is_empty]
    if not prompts:
        raise ValueError(f"{build}: found no users of whom anything is known")
    return prompts


def _report(args: argparse.Namespace, spec: records_pb2.InterestGptSpec, rows: Sequence[Throughput]) -> str:
    alone = {row.mode: row for row in rows if row.batch == rows[0].batch}
    written = {row.batch: row for row in rows if row.mode == "writing"}
    answers = [answer for row in rows for answer in row.answers]
    prompt_tokens = np.mean([answer.prompt_tokens for answer in answers])
    lines = [
        "# InterestGPT: refresh throughput",
        "",
        f"{made_by(args)}, load average {os.getloadavg()[1]:.1f} at the end.",
        f"Model {spec.model_name}, base {spec.base}, {spec.prompt_style} prompts of {prompt_tokens:.0f} tokens in the "
        f"mean. Scoring: {spec.num_candidates} categories at most. Writing: at most {spec.num_interests} interests in "
        f"{spec.max_new_tokens} tokens. One batch at a time.",
        "",
        f"| users a call | mode | users/s | ÷ {rows[0].batch} a call | ÷ writing | prompt tokens/s | new tokens/s "
        "| new tokens a user | answers read whole |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        read = "–" if row.mode == "scoring" else f"{row.share_parsed:.1%}"
        lines.append(
            f"| {row.batch} | {row.mode} | {row.users_per_second:.2f} "
            f"| {row.users_per_second / alone[row.mode].users_per_second:.2f} "
            f"| {row.users_per_second / written[row.batch].users_per_second:.2f} "
            f"| {row.prompt_tokens_per_second:,.0f} | {row.new_tokens_per_second:,.0f} "
            f"| {row.new_tokens_per_second / row.users_per_second:.0f} | {read} of {len(row.answers)} |"
        )
    served = "writing" if spec.writes else "scoring"
    best = max((row for row in rows if row.mode == served), key=lambda row: row.users_per_second)
    needed = args.population / (args.days * _DAY)
    machines = machines_needed(args.population, args.days, best.users_per_second)
    lines += [
        "",
        f"{args.population:,} users in {args.days:g} days are {args.population:,} ÷ ({args.days:g} × 86,400 s) = "
        f"{needed:.2f} users/s. This machine refreshes {best.users_per_second:.2f} users/s "
        f"({best.batch} users a call, {best.mode}): {needed:.2f} ÷ {best.users_per_second:.2f} = "
        f"{needed / best.users_per_second:.2f}, so {machines} such machine{'s' if machines > 1 else ''} "
        "if nothing else runs on them.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
