"""Measure how many missing novel-category lists a second the Novelty and the Relevance LLM fill through Triton.

    python -m benchmarks.coevolution --build var/complete-journey --launch
    python -m benchmarks.coevolution --build var/complete-journey --url 127.0.0.1:8000

Keys are drawn as they may be missing: a group of the published snapshot, and up to three of its categories. The Novelty
LLM is asked for the manifest's number of candidates outside them, the Relevance LLM about each of these. Every row asks
in batches of one size, one batch at a time, for at least --seconds, after one batch that is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.triton_serving import batch_sizes, serving
from serendipity import layout
from serendipity.channel.errors import ChannelError
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.channel.snapshot.stores import Store
from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.groups.sequence import SHORT_CATEGORIES
from serendipity.interests.prompt import STYLES
from serendipity.tools.serving.deployment import DeployError, load, place
from serendipity.tools.serving.kinds import NOVELTY_LLM, RELEVANCE_LLM, Serving, novelty_llm, relevance_llm
from serendipity.tools.serving.trainings import PlacementError
from serendipity.tools.serving.triton_program import TritonError
from serendipity.v1 import records_pb2

_CALL_TIMEOUT = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started or does not answer."""
    parser = options_of("coevolution", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with a snapshot of lists")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", metavar="HOST:PORT", help="HTTP address of a Triton that serves the models")
    where.add_argument("--launch", action="store_true", help="place the models and start a Triton for them alone")
    parser.add_argument("--threads", type=int, metavar="N", help="with --launch: threads (default: as checked in)")
    parser.add_argument("--batches", type=int, nargs="+", metavar="N", help="prompts a call (default: 1, 8, …)")
    parser.add_argument("--keys", type=int, default=256, help="keys drawn, asked for over and over")
    parser.add_argument("--seconds", type=float, default=10.0, help="time of each row, at least")
    parser.add_argument("--seed", type=int, default=0, help="seed of the keys")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report (Markdown)")
    args = read_options(parser, argv)
    try:
        snapshot = args.build / "snapshots" / layout.CURRENT
        manifest = layout.read_manifest(snapshot)
        if not manifest.HasField("coevolution"):
            raise ValueError(f"{snapshot / layout.MANIFEST}: coevolution: found none, expected the two LLMs")
        spec = manifest.coevolution
        keys = draw_keys(profiles_of(snapshot), list(manifest.categories), args.keys, args.seed)
        sizes = batch_sizes(args.batches, spec.max_batch)
        serving_as = Serving(llm_threads=args.threads)
        llms, trained = (NOVELTY_LLM, RELEVANCE_LLM), args.build / "coevolution"

        def load_both(grpc_url: str) -> None:
            for model in (novelty_llm(spec), relevance_llm(spec)):
                load(grpc_url, model)

        with serving(
            args.url,
            lambda models: [place(llm, trained, models, serving_as) for llm in llms],
            load_both,
        ) as url:
            rows = asyncio.run(measure(url, spec, keys, sizes, args.seconds))
    except (ChannelError, DeployError, PlacementError, TritonError, layout.SnapshotError, ValueError) as error:
        return failed(parser, error)
    return publish(_report(args, spec, rows), args.out)


@dataclass(frozen=True)
class Key:
    """What a list is made for: profile of the group, and latest distinct categories."""

    profile: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Throughput:
    """Prompts a second of both LLMs in batches of one size. candidates: of a list, each scored by the second."""

    batch: int
    proposed: float
    scored: float
    candidates: int

    @property
    def lists_per_second(self) -> float:
        """Lists that one Triton fills a second when both models take turns."""
        return 1 / (1 / self.proposed + self.candidates / self.scored)


def profiles_of(snapshot: Path) -> list[str]:
    """Read the groups' profiles. Raises ChannelError."""
    store = Store(snapshot / layout.GROUPS)
    try:
        return [records_pb2.GroupRecord.FromString(value).profile for _, value in store.values()]
    finally:
        store.close()


def draw_keys(profiles: Sequence[str], categories: Sequence[str], wanted: int, seed: int) -> list[Key]:
    """Draw keys: any group, with 0 to 3 categories."""
    generator = np.random.default_rng(seed)
    keys = []
    for _ in range(wanted):
        many = min(int(generator.integers(0, SHORT_CATEGORIES + 1)), len(categories))
        recent = generator.permutation(len(categories))[:many].tolist()
        profile = profiles[int(generator.integers(len(profiles)))]
        keys.append(Key(profile, tuple(categories[number] for number in recent)))
    return keys


async def measure(
    url: str, spec: records_pb2.CoevolutionSpec, keys: Sequence[Key], sizes: Sequence[int], seconds: float
) -> list[Throughput]:
    """Measure every batch size. Raises ChannelError."""
    style = STYLES[STYLES.index(spec.prompt_style)]
    client = CoevolutionLlms(url, max_batches_in_flight=1)
    prompts = [novelty_prompt(key.profile, key.categories, style) for key in keys]
    excluded = [key.categories for key in keys]
    asked = cycle(zip(prompts, excluded, strict=True))

    async def propose(size: int) -> None:
        batch = list(islice(asked, size))
        await client.propose(
            spec, [prompt for prompt, _ in batch], [names for _, names in batch], spec.num_candidates, _CALL_TIMEOUT
        )

    try:
        found = await client.propose(spec, prompts, excluded, spec.num_candidates, _CALL_TIMEOUT)
        questions = [
            relevance_prompt(key.profile, key.categories, category, style)
            for key, row in zip(keys, found, strict=True)
            for category, _ in row
        ]
        scored = cycle(questions)

        async def score(size: int) -> None:
            await client.score(spec, list(islice(scored, size)), _CALL_TIMEOUT)

        return [
            Throughput(
                size, await _rate(propose, size, seconds), await _rate(score, size, seconds), spec.num_candidates
            )
            for size in sizes
        ]
    finally:
        await client.close()


async def _rate(ask: Callable[[int], Awaitable[None]], size: int, seconds: float) -> float:
    """Prompts answered a second, one batch after another."""
    await ask(size)
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        await ask(size)
        calls += 1
    return size * calls / (time.perf_counter() - start)


def _report(args: argparse.Namespace, spec: records_pb2.CoevolutionSpec, rows: Sequence[Throughput]) -> str:
    lines = [
        "# Novelty and Relevance LLM: missing lists filled",
        "",
        f"{made_by(args)}, load average {os.getloadavg()[1]:.1f} at the end.",
        f"Models {spec.novelty_model_name} and {spec.relevance_model_name}, base {spec.base}, {spec.prompt_style} "
        f"prompts. One batch at a time; {spec.num_candidates} candidates a list.",
        "",
        "| prompts a call | Novelty LLM, prompts/s | Relevance LLM, prompts/s | lists/s |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(f"| {row.batch} | {row.proposed:,.1f} | {row.scored:,.1f} | {row.lists_per_second:,.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
