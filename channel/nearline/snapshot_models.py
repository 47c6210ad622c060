"""What a kind of near-line work needs of the snapshot being held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from serendipity.channel.snapshot.holder import Lease, SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot


class SnapshotModel(Protocol):
    """A model as a snapshot names it, and what it is asked with."""

    @property
    def name(self) -> str:
        """The model's name on Triton, for metrics and operators."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot, which stays open as long as the model is used."""

    def close(self) -> None:
        """Close what was opened beside the snapshot."""


Model = TypeVar("Model", bound=SnapshotModel)


class SnapshotModels(Generic[Model]):
    """The model of the snapshot being held; one that is replaced is closed with the next look.

    opens: opens a snapshot's; None if it names no model of the kind. Raises SnapshotUnavailable.
    """

    def __init__(self, holder: SnapshotHolder, opens: Callable[[Snapshot], Model | None]) -> None:
        self._holder = holder
        self._opens = opens
        self._lease: Lease | None = None
        self._model: Model | None = None

    def current(self) -> Model | None:
        """Open the held snapshot's, unless it is open; None if the snapshot names no model of the kind.

        Takes seconds for a vocabulary of many nodes. Raises SnapshotUnavailable.
        """
        lease = self._holder.acquire()
        if self._lease is not None and lease.snapshot is self._lease.snapshot:
            lease.release()
            return self._model
        try:
            model = self._opens(lease.snapshot)
        except BaseException:
            lease.release()
            raise
        self.close()
        self._lease, self._model = lease, model
        return model

    def close(self) -> None:
        """Close the model and let its snapshot go."""
        if self._model is not None:
            self._model.close()
        if self._lease is not None:
            self._lease.release()
        self._lease = self._model = None
