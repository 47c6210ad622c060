"""Every error of the channel, in one tree.

ChannelError
├── InvalidQuery              the caller's request is refused (the edge answers INVALID_ARGUMENT)
├── SnapshotUnavailable       no snapshot is loaded, or a new one was refused and the old one kept
├── StoreError
│   ├── RecordCorrupt         one record cannot be read; the store as a whole can
│   └── StoreUnavailable      the store cannot be read
├── PublicationRefused        a snapshot is not made the wanted one; the present one stays
│   └── PublicationCancelled  an operator has ended it before it took effect
├── StateUnavailable          feedback or availability of this host cannot be read or written
│   ├── StateOverloaded       too many calls wait for the disk; the caller may try again
│   ├── StateCorrupt          one record cannot be decoded; the others can
│   └── StateFull             the environment has reached its map size
├── DeadlinePassed            no time was left to answer at all (the edge answers DEADLINE_EXCEEDED)
├── Overloaded                more calls than can be answered in time, or than the caller may make; it may try again
├── Unauthenticated           a call that tells of no known caller
├── PermissionDenied          a call of a caller who has another role
├── TowerError                no user vectors (the pipeline falls back to the stored one)
│   ├── TowerTimeout          no answer inside the time given
│   ├── TowerUnavailable      not reachable, not loaded, overloaded, or held back by the circuit breaker
│   └── TowerAnswerInvalid    an answer of the wrong shape, or with numbers that are not finite
└── GenerationError           near-line: a model on Triton did not give what was asked of it
    ├── ModelUnavailable      no answer, or none that can be read; the same call may succeed later
    └── ModelRefused          the model will not answer this call, whenever it is made

Errors of libraries (LMDB, protobuf, FAISS, tritonclient, torch) are turned into these where the library
is called, and the cause is chained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ChannelError(Exception):
    """Base of all errors of the channel."""


@dataclass(frozen=True)
class FieldViolation:
    """What is wrong with one field of a request. field: path in proto naming; description: found and expected."""

    field: str
    description: str


class InvalidQuery(ChannelError):
    """A request that cannot be answered as it stands; `violations` names every field at fault."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


class SnapshotUnavailable(ChannelError):
    """No snapshot can be served: names the directory, what was found and what was expected."""


class StoreError(ChannelError):
    """A store of the snapshot failed."""


class RecordCorrupt(StoreError):
    """One stored record is unreadable: names the file, the key, what was found and what was expected."""


class StoreUnavailable(StoreError):
    """A store cannot be opened or read."""


class PublicationRefused(ChannelError):
    """A snapshot cannot be published or rolled back to: names the version, what was found and what was expected."""


class PublicationCancelled(PublicationRefused):
    """A publication was ended before it took effect."""


class StateUnavailable(ChannelError):
    """The mutable state of this host (feedback, availability) cannot be read, or was not written."""


class StateOverloaded(StateUnavailable):
    """More calls wait for the disk than the store holds."""


class StateCorrupt(StateUnavailable):
    """One record of the host's state cannot be decoded; the others can."""


class StateFull(StateUnavailable):
    """A store of the host's state has reached its map size."""


class DeadlinePassed(ChannelError):
    """The deadline passed before anything could be answered."""


class Overloaded(ChannelError):
    """More calls than can be answered in time, or than a caller may make.

    retry_after: seconds until another try may be worth it.
    """

    def __init__(self, message: str, retry_after: float = 0.1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Unauthenticated(ChannelError):
    """Neither token nor certificate of the call belong to a known caller."""


class PermissionDenied(ChannelError):
    """The caller is known, and has another role than the call needs."""


class TowerError(ChannelError):
    """The user tower gave no usable answer."""


class TowerTimeout(TowerError):
    """The user tower did not answer inside the time given."""


class TowerUnavailable(TowerError):
    """The user tower could not be asked."""


class TowerAnswerInvalid(TowerError):
    """The user tower's answer is of the wrong shape, or holds numbers that are not finite."""


class GenerationError(ChannelError):
    """A model that is asked near-line did not give what was asked of it."""


class ModelUnavailable(GenerationError):
    """A model did not answer: not reachable, not loaded, overloaded, too slow or unreadable. Worth trying again."""


class ModelRefused(GenerationError):
    """A model refused what it was asked as it stands. With several questions in a call, one of them may be at fault."""
