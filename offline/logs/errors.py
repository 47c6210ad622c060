"""What can be wrong with a host's logs."""

from __future__ import annotations

from serendipity.offline.errors import BuilderError


class LogsError(BuilderError):
    """A host file or a built log cannot be used; names the file and column, what was found and what was expected."""


class RejectionError(LogsError):
    """Too many rows of a host file were rejected; counts: reason → rows."""

    def __init__(self, message: str, counts: dict[str, int]) -> None:
        super().__init__(message)
        self.counts = counts
