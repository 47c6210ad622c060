"""What tells the kinds of near-line work apart: what a model is asked about an entry, and what its answer becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args

from serendipity import layout
from serendipity.channel.errors import ModelRefused, SnapshotUnavailable
from serendipity.channel.nearline.outcome import Failed, Outcome, Unneeded
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.interests.prompt import PromptStyle
from serendipity.v1 import records_pb2

Question = TypeVar("Question")
_One = TypeVar("_One")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Asked(Generic[Question]):
    """An entry, and what a model is asked about it."""

    entry: records_pb2.NearlineEntry
    question: Question


@dataclass(frozen=True)
class Generated:
    """What became of what was asked. counts: what else is added to the totals of the kind."""

    outcomes: list[Outcome]
    counts: Mapping[str, int] = field(default_factory=dict)


class Job(ABC, Generic[Question]):
    """The work of one kind with the model that a snapshot names. snapshot: stays open as long as the job is used."""

    snapshot: Snapshot

    @abstractmethod
    def is_current(self, record: Any, now: int) -> bool:
        """Tell whether what is stored for an entry is as good as what the model would give. now: Unix seconds."""

    @abstractmethod
    def read(self, entry: records_pb2.NearlineEntry, now: int) -> Question | Failed | Unneeded:
        """Read what the model is asked about an entry, or say how the entry ends without it.

        now: moment the records are generated as of, Unix seconds. Raises RecordCorrupt (the entry fails),
        StoreUnavailable and StateUnavailable.
        """

    @abstractmethod
    async def generate(self, asked: Sequence[Asked[Question]], now: int) -> Generated:
        """Ask the model, and make records of its answers. Raises ModelUnavailable; then nothing came of any."""

    def close(self) -> None:
        """Close what was opened beside the snapshot."""


async def ask_in_halves(
    questions: Sequence[_One], ask: Callable[[Sequence[_One]], Awaitable[Iterable[_Answer]]]
) -> list[tuple[_One, _Answer | ModelRefused]]:
    """Ask all at once; what is refused (raises ModelRefused) is halved until the questions at fault are alone.

    Returns all of them, each with its answer or the refusal, in their order.
    """
    if not questions:
        return []
    try:
        answers = await ask(questions)
    except ModelRefused as error:
        if len(questions) == 1:
            return [(questions[0], error)]
        half = len(questions) // 2
        return await ask_in_halves(questions[:half], ask) + await ask_in_halves(questions[half:], ask)
    return list(zip(questions, answers, strict=True))


async def ask_about(
    asked: Sequence[Asked[Question]],
    ask: Callable[[Sequence[Asked[Question]]], Awaitable[Iterable[_Answer]]],
    outcomes: list[Outcome],
) -> list[tuple[Asked[Question], _Answer]]:
    """Ask about entries; those that are refused fail, the others are returned with their answers."""
    answered = []
    for one, answer in await ask_in_halves(asked, ask):
        if isinstance(answer, ModelRefused):
            outcomes.append(Failed(one.entry, str(answer)))
        else:
            answered.append((one, answer))
    return answered


def prompt_style(snapshot: Snapshot, named: str) -> PromptStyle:
    """Read the prompt style that a model's spec names. Raises SnapshotUnavailable for one that is not known."""
    style: PromptStyle | None = next((known for known in get_args(PromptStyle) if known == named), None)
    if style is None:
        path = snapshot.directory / layout.MANIFEST
        raise SnapshotUnavailable(f"{path}: prompt_style: found {named!r}, expected a known one")
    return style
