"""What the data set and the weight of likelihoods are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serendipity.interests.grounding import Grounder
from serendipity.interests.reasoner import Interest, Reasoner
from serendipity.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.offline.encoder import RememberingEncoder, TextEncoder
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories


@dataclass(frozen=True)
class Material:
    """until: end of the logs, Unix seconds; titles: of the catalogue's items, by row; teacher: one that learns nothing
    from these logs, such as a language model; None: the taxonomy reasoner."""

    histories: Histories
    until: int
    vocabulary: Vocabulary
    titles: Sequence[str]
    taxonomy: Taxonomy
    teacher: Reasoner | None
    grounder: Grounder

    @classmethod
    def read(cls, logs: Path, interests: Path, encoder: TextEncoder, teacher: Reasoner | None) -> Material:
        """Read logs and interests."""
        histories, catalogue = Histories.read(logs), Catalogue.read(logs)
        vocabulary = Vocabulary.read(interests)
        return cls(
            histories=histories,
            until=LogsSummary.read(logs_directory(logs)).events_until,
            vocabulary=vocabulary,
            titles=catalogue.titles,
            taxonomy=Taxonomy.from_catalogue(catalogue),
            teacher=teacher,
            grounder=vocabulary.grounder(RememberingEncoder(encoder)),
        )

    @property
    def teacher_name(self) -> str:
        """Name that is kept beside every answer."""
        return self.teacher.name if self.teacher else TaxonomyReasoner.name

    def teacher_at(self, moment: int) -> Reasoner:
        """Give who teaches as of a moment (Unix seconds), and knows nothing of what came after."""
        return self.teacher or self.reasoner_at(moment)

    def reasoner_at(self, moment: int) -> TaxonomyReasoner:
        """Fit the reasoner that proposes near-line, as of a moment."""
        return fit_reasoner(self.taxonomy, self.histories, moment)

    @property
    def categories(self) -> Sequence[str]:
        """Names of the top-level categories, by number − 1."""
        return self.vocabulary.categories

    def category_of(self, interest: Interest) -> int:
        """Number of the top-level category that an interest lies in."""
        return self.vocabulary.nodes[interest.node_id].categories[0]

    def name_of(self, interest: Interest) -> str:
        """Name of that category."""
        return self.categories[self.category_of(interest) - 1]

    def known_at(self, moment: int) -> list[int]:
        """List the users with a click before a moment (Unix seconds)."""
        return [user for user in range(len(self.histories)) if self.histories.count_before(user, moment)]
