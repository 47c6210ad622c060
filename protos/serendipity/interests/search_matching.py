"""Search queries → what they speak of, by the words they share with names: one code for builds and for requests."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"\w+")
MIN_MATCH = 0.3
"""Matches below it share a common word and nothing else ("frozen")."""


class SearchMatcher:
    """Finds the top-level categories, or the interest nodes, that a query speaks of.

    A node matches by 2 · idf(shared words) / (idf(query) + idf(name)), the Dice coefficient weighted by how rare a
    word is among the names; what has several names takes the best of them.

    names: of nodes, each with the number of its top-level category, or its own. Nodes above the top level are not among
    them: a whole department is no interest.
    """

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self._names = [(words(name), category) for name, category in names]
        frequency = Counter(word for name, _ in self._names for word in name)
        self._idf = {word: math.log(1 + len(self._names) / count) for word, count in frequency.items()}
        self._unknown = math.log(1 + len(self._names))
        self._index: dict[str, list[int]] = {}
        for position, (name, _) in enumerate(self._names):
            for word in name:
                self._index.setdefault(word, []).append(position)
        self._weight = [self._sum(name) for name, _ in self._names]

    def match(self, query: str) -> dict[int, float]:
        """Match a query; returns number → strength in MIN_MATCH … 1."""
        asked = words(query)
        total = self._sum(asked)
        shared: dict[int, float] = {}
        for word in sorted(asked & self._index.keys()):
            for position in self._index[word]:
                shared[position] = shared.get(position, 0.0) + self._idf[word]
        found: dict[int, float] = {}
        for position, weight in shared.items():
            strength = 2 * weight / (total + self._weight[position])
            category = self._names[position][1]
            if strength >= MIN_MATCH:
                found[category] = max(found.get(category, 0.0), min(strength, 1.0))
        return found

    def _sum(self, names: frozenset[str]) -> float:
        return sum(self._idf.get(word, self._unknown) for word in sorted(names))


def words(text: str) -> frozenset[str]:
    """Split text into words, without case and without a plural s."""
    found = _WORD.findall(text.casefold())
    return frozenset(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found
    )
