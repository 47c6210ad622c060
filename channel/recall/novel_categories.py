"""The novel categories a user is searched by (CoEA, arXiv 2508.00450): which group, which key, whose list.

A list is looked up for the user's group and the latest m distinct categories, m = 3, 2, 1, 0, and at last for the
default group; the first that holds a category the user may be shown serves. Two places hold lists, the snapshot and the
near-line store; of those that fit the snapshot one by its LLMs goes before one by others, then the newer counts.
Whatever answers, a list that is missing for the most specific key, or that other LLMs than the snapshot's wrote, is
asked for near-line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.nearline.subject import WantedList
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.group_stores import GroupStore, NovelCategoryStore, StoredList
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.groups.lists import is_current
from serendipity.groups.sequence import DEFAULT_GROUP, latest_distinct
from serendipity.keys import back_off_keys, novel_category_key
from serendipity.novelty import Clicks
from serendipity.v1 import channel_pb2, records_pb2

_KEYS = {
    3: channel_pb2.NOVEL_CATEGORY_KEY_M3,
    2: channel_pb2.NOVEL_CATEGORY_KEY_M2,
    1: channel_pb2.NOVEL_CATEGORY_KEY_M1,
    0: channel_pb2.NOVEL_CATEGORY_KEY_M0,
}


@dataclass(frozen=True)
class NovelCategories:
    """The novel categories searched by, best aligned first; k of them.

    key: which list they are of, UNSPECIFIED where there are no lists to look in; group_id, profile: group the list is
    for; recent: names of the m latest distinct categories it is for, newest first; numbers: [k] int32 category numbers,
    names: theirs; alignments: [k] float32, 0 to 1; starts, ends: [k] int64, item rows of each category; state: OK,
    STALE (other LLMs than the snapshot's wrote the list) or UNAVAILABLE (there is none, and something could not be
    read); generation: cycle of the collaborative optimisation that wrote it; failures: what could not be
    read, in words; has_list: there is a list, whether or not a category of it may be returned.
    """

    key: channel_pb2.NovelCategoryKey
    group_id: int
    profile: str
    recent: tuple[str, ...]
    names: tuple[str, ...]
    numbers: NDArray[np.int32]
    alignments: NDArray[np.float32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    state: channel_pb2.SourceState
    generation: int
    failures: tuple[str, ...] = ()
    has_list: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def none(cls, key: channel_pb2.NovelCategoryKey = channel_pb2.NOVEL_CATEGORY_KEY_UNSPECIFIED) -> NovelCategories:
        """No list."""
        rows = np.empty(0, np.int64)
        nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        return cls(key, DEFAULT_GROUP, "", (), (), *nothing, rows, rows, channel_pb2.SOURCE_STATE_OK, 0)

    @property
    def num_recent(self) -> int:
        """Latest categories the list is for: m, −1 for the list of the default group that stands in for all others."""
        return -1 if self.key == channel_pb2.NOVEL_CATEGORY_KEY_DEFAULT else len(self.recent)

    def alignments_of(self, categories: NDArray[np.int32]) -> NDArray[np.float32]:
        """Alignments of categories given by number, [n] float32; 0 for those that are not searched by."""
        most = max(int(self.numbers.max(initial=0)), int(categories.max(initial=0)))
        by_number = np.zeros(most + 1, np.float32)
        by_number[self.numbers] = self.alignments
        return by_number[categories]


def read_novel_categories(
    snapshot: Snapshot,
    state: UserState,
    settings: ChannelSettings,
    group_id: int | None,
    clicks: Clicks,
    allowed: NDArray[np.bool_],
) -> NovelCategories:
    """Find the list that serves a user, and ask near-line for what is missing.

    group_id: the user's in the snapshot, None for a stranger, for whom nothing is asked; clicks: the latest, those of
    the request included; allowed: [c + 1] bool by category number, novel categories that may be returned. A snapshot
    without a group model, or without lists, has none.
    """
    spec, llms = snapshot.group_spec, snapshot.coevolution
    lists, groups = snapshot.novel_categories, snapshot.groups
    if spec is None or llms is None or lists is None or groups is None or not settings.novel_categories_used:
        return NovelCategories.none()
    recent = tuple(snapshot.category_names[number - 1] for number in latest_distinct(clicks))
    reader = _ListReader(snapshot, lists, llms, state)
    found = reader.first(spec.group_model_id, group_id or DEFAULT_GROUP, recent, allowed)
    if group_id is not None and reader.most_specific_is_wanted:
        state.want_novel_categories(WantedList(spec.group_model_id, group_id, recent))
    if found is None:
        return replace(
            NovelCategories.none(channel_pb2.NOVEL_CATEGORY_KEY_NONE),
            state=channel_pb2.SOURCE_STATE_UNAVAILABLE if reader.failures else channel_pb2.SOURCE_STATE_OK,
            generation=llms.generation,
            failures=tuple(reader.failures),
            has_list=reader.has_list,
        )
    profile, unread = _profile(groups, found.group_id)
    best = found.allowed[: settings.novel_categories_used]
    numbers = found.list.numbers[best]
    return NovelCategories(
        key=found.key,
        group_id=found.group_id,
        profile=profile,
        recent=recent[: found.num_recent],
        names=tuple(snapshot.category_names[number - 1] for number in numbers.tolist()),
        numbers=numbers,
        alignments=found.list.alignments[best],
        starts=snapshot.category_offsets[numbers - 1],
        ends=snapshot.category_offsets[numbers],
        state=channel_pb2.SOURCE_STATE_OK if reader.is_current(found.list) else channel_pb2.SOURCE_STATE_STALE,
        generation=found.list.record.generation,
        failures=(*reader.failures, *unread),
        has_list=True,
    )


def _profile(groups: GroupStore, group_id: int) -> tuple[str, tuple[str, ...]]:
    """Read a group's profile, and what could not be read."""
    try:
        group = groups.read(group_id)
    except StoreError as error:
        return "", (f"group profile: {error}",)
    return "" if group is None else group.profile, ()


@dataclass(frozen=True)
class _Found:
    """The list that serves. num_recent: latest categories it is for; allowed: [a] int64, its categories that may be
    returned, by position."""

    key: channel_pb2.NovelCategoryKey
    group_id: int
    num_recent: int
    list: StoredList
    allowed: NDArray[np.int64]


class _ListReader:
    """Reads the lists of one request from both places; what fails in one place leaves the other.

    failures: what could not be read, in words; has_list: one was found; most_specific_is_wanted: its list is missing,
    unreadable or not current.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        lists: NovelCategoryStore,
        llms: records_pb2.CoevolutionSpec,
        state: UserState,
    ) -> None:
        self._snapshot = snapshot
        self._lists = lists
        self._llms = llms
        self._state = state
        self.failures: list[str] = []
        self._nearline_is_down = False
        self.has_list = False
        self.most_specific_is_wanted = False

    def first(
        self, group_model_id: str, group_id: int, recent: Sequence[str], allowed: NDArray[np.bool_]
    ) -> _Found | None:
        """Find the first list, from the most specific key to the default group's, with a category that is allowed.

        A list that holds none is not missing: everything it has is known to the user by now.
        """
        offsets = self._snapshot.category_offsets
        for i, (kind, of_group, m, key) in enumerate(_keys(group_model_id, group_id, recent)):
            best = self._best(key)
            if i == 0:
                self.most_specific_is_wanted = best is None or not self.is_current(best)
            if best is None:
                continue
            self.has_list = True
            numbers = best.numbers
            fits = np.flatnonzero(allowed[numbers] & (offsets[numbers] > offsets[numbers - 1]))
            if len(fits):
                return _Found(kind, of_group, m, best, fits)
        return None

    def is_current(self, found: StoredList) -> bool:
        """Tell whether the snapshot's LLMs would give the same list now."""
        return is_current(found.record, self._llms, self._snapshot.taxonomy_hash)

    def _best(self, key: bytes) -> StoredList | None:
        """Read what counts for a key: a current list before others, then the newer; of the same moment, the snapshot's.

        Age alone does not tell: a snapshot's lists are dated by the end of its logs, which another cycle of the LLMs
        leaves as it is, so that near-line lists by the LLMs before may be the younger ones.
        """
        found = [stored for stored in (self._stored(key), self._nearline(key)) if stored is not None]
        return max(found, key=lambda stored: (self.is_current(stored), stored.record.generated_at), default=None)

    def _stored(self, key: bytes) -> StoredList | None:
        try:
            stored = self._lists.read(key)
        except StoreError as error:
            self.failures.append(f"novel categories: {error}")
            return None
        if stored is not None and not self._fits(stored.record):
            self.failures.append(
                f"novel categories: key {key!r}: of another taxonomy or group model than the snapshot's"
            )
            return None
        return stored

    def _nearline(self, key: bytes) -> StoredList | None:
        if self._nearline_is_down:
            return None
        try:
            record = self._state.novel_categories(key)
            # Filled under a snapshot of another catalogue: to be expected after a build, and no list of this one's.
            if record is None or not self._fits(record):
                return None
            return StoredList.of(record, self._snapshot.num_categories)
        except StateUnavailable as error:
            # Said once: the other keys would meet the same.
            self._nearline_is_down = True
            self.failures.append(f"near-line novel categories: {error}")
        except ValueError as error:
            self.failures.append(f"near-line novel categories: key {key!r}: {error}")
        return None

    def _fits(self, record: records_pb2.NovelCategoriesRecord) -> bool:
        return (
            record.taxonomy_hash == self._snapshot.taxonomy_hash and record.group_model_id == self._llms.group_model_id
        )


def _keys(
    group_model_id: str, group_id: int, recent: Sequence[str]
) -> Iterator[tuple[channel_pb2.NovelCategoryKey, int, int, bytes]]:
    """Yield (kind, group, m, key), most specific first; the default group's without categories comes last, once."""
    for m, key in back_off_keys(group_model_id, group_id, recent):
        is_default = group_id == DEFAULT_GROUP and m == 0
        yield channel_pb2.NOVEL_CATEGORY_KEY_DEFAULT if is_default else _KEYS[m], group_id, m, key
    if group_id != DEFAULT_GROUP:
        yield (
            channel_pb2.NOVEL_CATEGORY_KEY_DEFAULT,
            DEFAULT_GROUP,
            0,
            novel_category_key(group_model_id, DEFAULT_GROUP, ()),
        )
