"""What an entry of the near-line queues is about: a user, or a novel-category list."""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import TypeAlias

from serendipity.channel.nearline.wanted_list import WantedList
from serendipity.layout import user_key
from serendipity.v1 import records_pb2

Subject: TypeAlias = str | WantedList
"""A user's id, or the facts a list is made from."""


class Kind(StrEnum):
    """What is wanted near-line; each kind has a queue and a model of its own."""

    INTERESTS = "interests"
    """A user's latent interests, by InterestGPT."""
    GROUPS = "groups"
    """The group of a user that the snapshot has none for, by the group encoder."""
    LISTS = "lists"
    """A novel-category list, by the Novelty and the Relevance LLM."""


USER_KINDS = (Kind.INTERESTS, Kind.GROUPS)
"""Kinds whose entries and records are a user's: what is to be forgotten with the user."""


class SubjectError(ValueError):
    """A subject cannot be stored: says what was found and what was expected."""


def subject_key(subject: Subject) -> bytes:
    """Give the key a subject is queued and its records are stored by. Raises SubjectError."""
    try:
        key = subject.key if isinstance(subject, WantedList) else user_key(subject)
    except (ValueError, struct.error) as error:
        raise SubjectError(f"{subject!r}: cannot be stored ({error})") from error
    if not key:
        raise SubjectError("user_id: found an empty one, expected a user's")
    return key


def entry_of(subject: Subject) -> records_pb2.NearlineEntry:
    """Make an entry about a subject, and nothing else."""
    if isinstance(subject, str):
        return records_pb2.NearlineEntry(user_id=subject)
    return records_pb2.NearlineEntry(
        novel_categories=records_pb2.NovelCategoriesWant(
            group_model_id=subject.group_model_id, group_id=subject.group_id, categories=subject.categories
        )
    )


def subject_of(entry: records_pb2.NearlineEntry) -> Subject:
    """Tell what an entry is about."""
    return wanted_list(entry) if entry.HasField("novel_categories") else entry.user_id


def wanted_list(entry: records_pb2.NearlineEntry) -> WantedList:
    """Read the list that an entry of Kind.LISTS is about."""
    want = entry.novel_categories
    return WantedList(want.group_model_id, want.group_id, tuple(want.categories))


def entry_key(entry: records_pb2.NearlineEntry) -> bytes:
    """Give the key an entry is queued by. Raises SubjectError."""
    return subject_key(subject_of(entry))


def subject_name(entry: records_pb2.NearlineEntry) -> str:
    """Name what an entry is about for an operator: the user's id, or group and categories."""
    subject = subject_of(entry)
    return subject if isinstance(subject, str) else f"group {subject.group_id}: {', '.join(subject.categories) or '-'}"
