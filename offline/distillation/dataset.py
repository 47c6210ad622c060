"""Teacher outputs → the SFT data set D = {(prompt, reasoning + interests)} (Dewu, arXiv 2508.04032, distillation).

dataset.parquet   user_id, as_of (Unix seconds), split, prompt, reasoning, answer, teacher, num_interests,
                  num_confirmed, num_dropped; by moment, then user
rejected.parquet  user_id, as_of, reason, prompt: contexts that make no example
parts/            one pair of files per moment: what a killed run resumes from
dataset.json      what was counted; written last

Point in time: a prompt tells what happened strictly before `as_of`, and the teacher knows no more. Only what
"confirms" an answer lies after it, and always before the end of the logs.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.interests.grounding import Grounder
from serendipity.interests.prompt import PromptStyle
from serendipity.layout import hash_of, write_atomically
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.distillation.examples import REPEATED, Example, Rejected, make_example, with_search
from serendipity.offline.distillation.moments import SPLITS, cuts_of, entered_between, split_of
from serendipity.offline.distillation.teacher import Teacher
from serendipity.offline.errors import BuilderError
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.taxonomy import TaxonomyNode
from serendipity.offline.logs.histories import Histories

DATASET = "dataset.parquet"
REJECTED = "rejected.parquet"
SUMMARY = "dataset.json"
PARTS = "parts"

_BATCH = 512
"""Contexts the teacher is asked for at once."""

_CORRECTION_USERS = 4_000
"""Users that the correction is measured on at most."""

_CORRECTION_PRIOR = 50.0
"""Entries' worth of the teacher being right mixed into every category's correction."""

_EXAMPLE_TYPES = pa.schema(
    [
        ("user_id", pa.string()),
        ("as_of", pa.int64()),
        ("split", pa.string()),
        ("prompt", pa.string()),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
        ("teacher", pa.string()),
        ("num_interests", pa.int32()),
        ("num_confirmed", pa.int32()),
        ("num_dropped", pa.int32()),
    ]
)
_REJECTED_TYPES = pa.schema(
    [("user_id", pa.string()), ("as_of", pa.int64()), ("reason", pa.string()), ("prompt", pa.string())]
)


class DatasetError(BuilderError):
    """A data set cannot be read: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class DatasetSummary:
    """What a data set holds.

    identity: hash of what it was made from; until: Unix seconds, end of the logs; style: of the prompts; examples: by
    split; rejected: by reason; num_interests, num_confirmed, num_dropped: totals over the examples.
    """

    identity: str
    until: int
    style: PromptStyle
    teacher: str
    selection: str
    examples: Mapping[str, int]
    rejected: Mapping[str, int]
    num_interests: int
    num_confirmed: int
    num_dropped: int

    @classmethod
    def read(cls, directory: Path) -> DatasetSummary:
        """Read dataset.json. Raises DatasetError."""
        path = directory / SUMMARY
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DatasetError(f"{path}: cannot be read ({error}); expected the summary of a data set") from error


def build_dataset(
    histories: Histories,
    until: int,
    nodes: Sequence[TaxonomyNode],
    categories: Sequence[str],
    titles: Sequence[str],
    teacher: Teacher,
    grounder: Grounder,
    out: Path,
    config: DatasetConfig,
    style: PromptStyle,
    *,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Ask the teacher about users at several moments and write the data set.

    until: end of the logs, Unix seconds; nodes: by id; categories: names of the top-level categories by number − 1;
    titles: of the catalogue's items, by row.
    A run that was killed is continued moment by moment, and a finished data set of the same identity is left as it is.
    Raises ValueError when the logs are too short, and what the teacher raises.
    """
    cuts = cuts_of(histories, until, config)
    identity = _identity(histories, until, categories, titles, teacher, grounder, config, style)
    try:
        made = DatasetSummary.read(out)
        if made.identity == identity:
            return made
    except DatasetError:
        pass
    parts = out / PARTS / identity[:16]
    parts.mkdir(parents=True, exist_ok=True)
    chosen = _draw(histories, cuts, config)
    correction = np.ones(len(categories) + 1)
    if config.selection == "corrected":
        correction = _correction(histories, cuts[0], nodes, len(categories), teacher, config)
    task = progress.add_task("examples", total=sum(map(len, chosen))) if progress else None
    for cut, users in zip(cuts, chosen, strict=True):
        kept, rejected = parts / f"{cut}.parquet", parts / f"{cut}.rejected.parquet"
        if not kept.is_file():
            found = _examples_at(
                histories, cut, users, correction, nodes, categories, titles, teacher, grounder, config, style
            )
            _write(rejected, _REJECTED_TYPES, [row for row in found if isinstance(row, Rejected)])
            # The examples last: their presence says that the moment is done.
            _write(kept, _EXAMPLE_TYPES, [row for row in found if isinstance(row, Example)])
        if progress and task is not None:
            progress.advance(task, len(users))
    examples, refused = _merge(parts, cuts)
    summary = DatasetSummary(
        identity=identity,
        until=until,
        style=style,
        teacher=teacher.name,
        selection=config.selection,
        examples={split: sum(row.split == split for row in examples) for split in SPLITS},
        rejected=dict(sorted(Counter(row.reason for row in refused).items())),
        num_interests=sum(row.num_interests for row in examples),
        num_confirmed=sum(row.num_confirmed for row in examples),
        num_dropped=sum(row.num_dropped for row in examples),
    )
    _write(out / DATASET, _EXAMPLE_TYPES, examples)
    _write(out / REJECTED, _REJECTED_TYPES, refused)
    write_atomically(out / SUMMARY, json.dumps(asdict(summary), indent=2, sort_keys=True).encode())
    shutil.rmtree(out / PARTS)
    return summary


def read_examples(directory: Path, split: str | None = None) -> list[Example]:
    """Read the examples of a data set; split: only those of it. Raises DatasetError."""
    examples = _read_examples(directory / DATASET)
    return [example for example in examples if split in (None, example.split)]


def _draw(histories: Histories, cuts: Sequence[int], config: DatasetConfig) -> list[list[int]]:
    """Choose users for every moment, evenly over moments and at random over users."""
    chosen = []
    wanted = config.num_examples
    for index, cut in enumerate(cuts):
        rng = np.random.default_rng([config.seed, cut])
        known = [user for user in range(len(histories)) if histories.count_before(user, cut)]
        share = -(-wanted // (len(cuts) - index))
        users = sorted(rng.permutation(known)[:share].tolist())
        chosen.append(users)
        wanted -= len(users)
    return chosen


def _correction(
    histories: Histories,
    cut: int,
    nodes: Sequence[TaxonomyNode],
    num_categories: int,
    teacher: Teacher,
    config: DatasetConfig,
) -> NDArray[np.float64]:
    """Measure on the latest horizon how much more often than the teacher's weights say users entered each category.

    [categories + 1]: (entered + a) / (expected + a), a = _CORRECTION_PRIOR, over the proposals to _CORRECTION_USERS.
    """
    known = [user for user in range(len(histories)) if histories.count_before(user, cut)]
    users = np.random.default_rng([config.seed, cut, 2]).permutation(known)[:_CORRECTION_USERS]
    entered = entered_between(histories, cut, config.horizon_days, num_categories, users)
    expected, found = np.zeros(num_categories + 1), np.zeros(num_categories + 1)
    reasoner = teacher.at(cut)
    for start in range(0, len(users), _BATCH):
        contexts = contexts_at(histories, cut, users[start : start + _BATCH].tolist())
        for row, interests in enumerate(reasoner.reason(contexts, config.depth), start):
            for interest in interests:
                category = nodes[interest.node_id].categories[0]
                expected[category] += interest.weight
                found[category] += entered[row, category]
    correction: NDArray[np.float64] = (found + _CORRECTION_PRIOR) / (expected + _CORRECTION_PRIOR)
    return correction


def _examples_at(
    histories: Histories,
    cut: int,
    users: Sequence[int],
    correction: NDArray[np.float64],
    nodes: Sequence[TaxonomyNode],
    categories: Sequence[str],
    titles: Sequence[str],
    teacher: Teacher,
    grounder: Grounder,
    config: DatasetConfig,
    style: PromptStyle,
) -> list[Example | Rejected]:
    reasoner = teacher.at(cut)
    rng = np.random.default_rng([config.seed, cut, 1])
    depth = max(config.hints, config.num_interests if config.selection == "teacher" else config.depth)
    entered = entered_between(histories, cut, config.horizon_days, len(categories), np.array(users, np.int64))
    made: list[Example | Rejected] = []
    for start in range(0, len(users), _BATCH):
        known = contexts_at(histories, cut, users[start : start + _BATCH])
        proposed = reasoner.reason(known, depth)
        contexts = [
            with_search(context, found, nodes, categories, config, rng)
            for context, found in zip(known, proposed, strict=True)
        ]
        changed = [place for place, context in enumerate(contexts) if context is not known[place]]
        answers = dict(zip(changed, reasoner.reason([contexts[place] for place in changed], depth), strict=True))
        for place, (context, hinting) in enumerate(zip(contexts, proposed, strict=True)):
            row = start + place
            made.append(
                make_example(
                    context,
                    answers.get(place, hinting),
                    hinting,
                    set(np.flatnonzero(entered[row]).tolist()),
                    correction,
                    nodes,
                    grounder,
                    categories,
                    titles,
                    config,
                    style,
                    teacher.name,
                    split_of(context.user_id),
                    rng,
                )
            )
    return made


def _merge(parts: Path, cuts: Sequence[int]) -> tuple[list[Example], list[Rejected]]:
    examples: list[Example] = []
    rejected: list[Rejected] = []
    prompts: set[str] = set()
    for cut in cuts:
        rejected += [Rejected(**row) for row in _rows(parts / f"{cut}.rejected.parquet")]
        for example in _read_examples(parts / f"{cut}.parquet"):
            if example.prompt in prompts:
                rejected.append(Rejected(example.user_id, example.as_of, REPEATED, example.prompt))
            else:
                prompts.add(example.prompt)
                examples.append(example)
    return examples, rejected


def _identity(
    histories: Histories,
    until: int,
    categories: Sequence[str],
    titles: Sequence[str],
    teacher: Teacher,
    grounder: Grounder,
    config: DatasetConfig,
    style: PromptStyle,
) -> str:
    """Hash everything the data set depends on."""
    told = replace(histories, user_ids=[], profiles=[], searches=[])
    arrays = [getattr(told, field.name) for field in fields(told)]
    texts = [histories.user_ids, histories.profiles, histories.searches, list(categories), list(titles)]
    described = {"config": config.model_dump(), "style": style, "teacher": teacher.name, "until": until}
    return hash_of(
        [
            json.dumps({**described, "threshold": grounder.threshold}, sort_keys=True).encode(),
            *(json.dumps(text, sort_keys=True).encode() for text in texts),
            *(array.tobytes() for array in arrays if isinstance(array, np.ndarray)),
        ]
    )


def _read_examples(path: Path) -> list[Example]:
    return [Example(**row) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); expected a table of the data set builder") from error
    return rows


def _write(path: Path, schema: pa.Schema, rows: Sequence[Example | Rejected]) -> None:
    beside = path.with_name(f".{path.name}.partial")
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    pq.write_table(table, beside, compression="zstd")
    beside.replace(path)
