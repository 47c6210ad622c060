"""Teacher outputs → the SFT data set D = {(prompt, reasoning + interests)} (Dewu, arXiv 2508.04032, distillation).

dataset.parquet   user_id, as_of (Unix seconds), split, prompt, reasoning, answer; by moment, then user
dataset.json      what was counted; written last

Point in time: a prompt tells what happened strictly before `as_of`, and the teacher knows no more. Only what answers
are corrected by lies after it, and always before the end of the logs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.interests.prompt import PromptStyle
from serendipity.layout import write_atomically
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.distillation.examples import REPEATED, Example, make_example, with_search
from serendipity.offline.distillation.material import Material
from serendipity.offline.distillation.moments import SPLITS, TRAIN, cuts_of, entered_between, split_of
from serendipity.offline.errors import BuilderError
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.parquet import reading, write_rows

DATASET = "dataset.parquet"
SUMMARY = "dataset.json"

_TYPES = {name: "BIGINT" if name == "as_of" else "VARCHAR" for name in Example.__annotations__}

_BATCH = 512
"""Contexts the teacher is asked for at once."""

_CORRECTION_USERS = 4_000
"""Users that the correction is measured on at most."""

_CORRECTION_PRIOR = 50.0
"""Entries' worth of the teacher being right mixed into every category's correction."""


class DatasetError(BuilderError):
    """A data set cannot be read: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class DatasetSummary:
    """What a data set holds.

    until: Unix seconds, end of the logs; style: of the prompts; examples: by split; rejected: contexts that make no
    example, by reason.
    """

    until: int
    style: PromptStyle
    teacher: str
    examples: Mapping[str, int]
    rejected: Mapping[str, int]


def build_dataset(
    material: Material, out: Path, config: DatasetConfig, style: PromptStyle, *, progress: Progress | None = None
) -> DatasetSummary:
    """Ask the teacher about users at several moments and write the data set.

    Raises ValueError when the logs are too short, and what the teacher raises.
    """
    cuts = cuts_of(material.histories, material.until, config)
    chosen = _draw(material, cuts, config)
    correction = _correction(material, cuts[0], config)
    task = progress.add_task("examples", total=sum(map(len, chosen))) if progress else None
    examples: dict[str, Example] = {}
    rejected: Counter[str] = Counter()
    for cut, users in zip(cuts, chosen, strict=True):
        for found in _examples_at(material, cut, users, correction, config, style):
            if isinstance(found, str):
                rejected[found] += 1
            elif found.prompt in examples:
                rejected[REPEATED] += 1
            else:
                examples[found.prompt] = found
        if progress and task is not None:
            progress.advance(task, len(users))
    summary = DatasetSummary(
        until=material.until,
        style=style,
        teacher=material.teacher_name,
        examples={split: sum(row.split == split for row in examples.values()) for split in SPLITS},
        rejected=dict(sorted(rejected.items())),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / SUMMARY).unlink(missing_ok=True)
    write_rows(out / DATASET, _TYPES, map(asdict, examples.values()))
    write_atomically(out / SUMMARY, json.dumps(asdict(summary), indent=2, sort_keys=True).encode())
    return summary


def read_examples(directory: Path, split: str | None = None) -> list[Example]:
    """Read the examples of a data set; split: only those of it. Raises DatasetError."""
    path = directory / DATASET
    with reading(path, DatasetError, "a table of the data set builder") as query:
        rows = query(f"SELECT {', '.join(_TYPES)} FROM read_parquet(?)").fetchall()
    return [example for example in (Example(*row) for row in rows) if split in (None, example.split)]


def _draw(material: Material, cuts: Sequence[int], config: DatasetConfig) -> list[list[int]]:
    """Choose users for every moment, evenly over moments and at random over users."""
    chosen = []
    wanted = config.num_examples
    for index, cut in enumerate(cuts):
        rng = np.random.default_rng([config.seed, cut])
        share = -(-wanted // (len(cuts) - index))
        users = sorted(rng.permutation(material.known_at(cut))[:share].tolist())
        chosen.append(users)
        wanted -= len(users)
    return chosen


def _correction(material: Material, cut: int, config: DatasetConfig) -> NDArray[np.float64]:
    """Measure on the latest horizon how much more often than the teacher's weights say users entered each category.

    [categories + 1]: (entered + a) / (expected + a), a = _CORRECTION_PRIOR, over the proposals to _CORRECTION_USERS of
    the training users.
    """
    size = len(material.categories)
    learned = [user for user in material.known_at(cut) if split_of(material.histories.user_ids[user]) == TRAIN]
    users = np.random.default_rng([config.seed, cut, 2]).permutation(learned)[:_CORRECTION_USERS]
    entered = entered_between(material.histories, cut, config.horizon_days, size, users)
    expected, found = np.zeros(size + 1), np.zeros(size + 1)
    reasoner = material.teacher_at(cut)
    for start in range(0, len(users), _BATCH):
        contexts = contexts_at(material.histories, cut, users[start : start + _BATCH].tolist())
        for row, interests in enumerate(reasoner.reason(contexts, config.depth), start):
            for interest in interests:
                category = material.category_of(interest)
                expected[category] += interest.weight
                found[category] += entered[row, category]
    correction: NDArray[np.float64] = (found + _CORRECTION_PRIOR) / (expected + _CORRECTION_PRIOR)
    return correction


def _examples_at(
    material: Material,
    cut: int,
    users: Sequence[int],
    correction: NDArray[np.float64],
    config: DatasetConfig,
    style: PromptStyle,
) -> Iterator[Example | str]:
    reasoner = material.teacher_at(cut)
    rng = np.random.default_rng([config.seed, cut, 1])
    for start in range(0, len(users), _BATCH):
        known = contexts_at(material.histories, cut, users[start : start + _BATCH])
        proposed = reasoner.reason(known, config.depth)
        contexts = [
            with_search(context, found, material, config, rng) for context, found in zip(known, proposed, strict=True)
        ]
        changed = [place for place, context in enumerate(contexts) if context is not known[place]]
        answers = dict(zip(changed, reasoner.reason([contexts[place] for place in changed], config.depth), strict=True))
        for place, (context, found) in enumerate(zip(contexts, proposed, strict=True)):
            yield make_example(context, answers.get(place, found), correction, material, config, style, rng)
