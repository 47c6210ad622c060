"""Who teaches: a reasoner as of each moment that users are described at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serendipity.offline.interests.reasoner import Reasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.offline.logs.histories import Histories


class Teacher(Protocol):
    """Gives the reasoner that answers for users as of a moment; it must know nothing of what came after."""

    @property
    def name(self) -> str:
        """Name that is kept beside every answer."""
        ...

    def at(self, moment: int) -> Reasoner:
        """Give the reasoner as of a moment (Unix seconds)."""
        ...


@dataclass(frozen=True)
class TaxonomyTeacher:
    """The taxonomy reasoner, fitted anew on what lies before each moment."""

    taxonomy: Taxonomy
    histories: Histories
    name: str = TaxonomyReasoner.name

    def at(self, moment: int) -> Reasoner:
        """Fit on clicks strictly before the moment."""
        return TaxonomyReasoner(self.taxonomy).fit(self.histories, moment)


@dataclass(frozen=True)
class TimelessTeacher:
    """A reasoner that learns nothing from these logs, such as a language model: the same at every moment."""

    reasoner: Reasoner

    @property
    def name(self) -> str:
        """Name of the reasoner."""
        return self.reasoner.name

    def at(self, moment: int) -> Reasoner:  # noqa: ARG002 (the same at every moment)
        """Give the reasoner, whatever the moment."""
        return self.reasoner
