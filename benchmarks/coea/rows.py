"""The rows of the comparison: what is made, for a setting, of the scores that trials kept.

On one scale, the logarithm of a share of the candidates: r of a base (popularity, GRU4Rec, the category ranker, or
GRU4Rec and the ranker together, the mean of their logarithms); a, log alignment, and v, log-probability, of the group's
Relevance and Novelty LLM. The *trigger* is the same for every base:

    base + bonus     r + b · [never clicked]
    CoEA             the list that is served: of the Novelty LLM's best the alignments; nothing of the user is in it
    CoEA composed    r + w · a + [never clicked] · (b + x · v)

The composed list is the group's, for one user: what the user clicked tells r and which categories are new, the group's
list raises what the group turns to (w) and says which of the new ones are worth the trigger (x). w = x = 0 is base +
bonus: whether the group's list is used at all is chosen, too. "Never clicked" is of the history that is known when the
user is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from benchmarks.coea.coea import CYCLES, WITHOUT_LONG, listed
from benchmarks.coea.protocol import Episodes

Setting = Mapping[str, float]
"""One choice of a row's trade-off between quality and novelty, by name; empty where it has none."""

Family = Literal["reference", "exploitation", "control", "coea"]
"""What a row is compared as. References are nobody's best baseline, of exploitation rows the best quality is reported,
controls are a base with the trigger."""

BONUSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
WEIGHTS = (0.0, 0.5, 1.0)
"""Of alignments (w), and of the Novelty LLM's log-probabilities (x)."""

BREADTHS = (5, 6, 8, 10, 12, 16, 20)
"""Categories the Novelty LLM is asked for: the fewer, the more of a list is its choice; 5 and 10 fill the lists that
are measured on MovieLens and over a period."""

_LEAST = -12.0
"""Log share of what has no score, a category that was not asked about or of which no item is left."""


@dataclass(frozen=True)
class Known:
    """What trials of one seed say of some episodes, by name: [n, C] each, −inf where nothing is said."""

    episodes: Episodes
    scores: Mapping[str, NDArray[np.float32]]
    _shares: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def share(self, name: str) -> NDArray[np.float32]:
        """Give logarithms of shares of the candidates, which sum to 1: [n, C]."""
        if name not in self._shares:
            self._shares[name] = self._share(name)
        return self._shares[name]

    def _share(self, name: str) -> NDArray[np.float32]:
        candidates = self.episodes.candidates
        scores = np.where(candidates, self.scores[name], -np.inf)
        best = scores.max(axis=1, keepdims=True)
        found = log_softmax(np.where(candidates, np.maximum(scores - best, _LEAST), -np.inf), axis=1)
        return np.where(candidates, found, _LEAST).astype(np.float32)


@dataclass(frozen=True)
class Row:
    """A row. trials: names of those it needs; scores: of a setting, [n, C], higher is better, −inf: not on the list."""

    name: str
    family: Family
    trials: tuple[str, ...]
    settings: tuple[Setting, ...]
    scores: Callable[[Known, Setting], NDArray[np.float32]]

    def along_the_trigger(self, setting: Setting) -> tuple[Setting, ...]:
        """Give the setting with every bonus; nothing of a row without the trigger."""
        return tuple({**setting, "bonus": bonus} for bonus in BONUSES) if "bonus" in setting else ()


_BASES: Mapping[str, tuple[str, ...]] = {
    "Popularity": ("popularity",),
    "GRU4Rec": ("GRU4Rec",),
    "Category ranker": ("category ranker",),
    "GRU4Rec × ranker": ("GRU4Rec", "category ranker"),
}
_GRU, _RANKER, _BOTH = "GRU4Rec", "Category ranker", "GRU4Rec × ranker"


def rows() -> tuple[Row, ...]:
    """All rows, in the order of the report."""
    bonuses = tuple({"bonus": bonus} for bonus in BONUSES)
    return (
        _base("Popularity", "reference"),
        _base(_GRU, "exploitation"),
        Row("GRU4Rec, then new ones", "reference", (_GRU,), ({},), _first_kept),
        *(
            Row(f"{base} + bonus", "control", _trials(base), bonuses, _with_bonus(base))
            for base in ("Popularity", _GRU, _RANKER, _BOTH)
        ),
        _coea("CoEA", ""),
        _coea("CoEA" + WITHOUT_LONG, WITHOUT_LONG),
        _composed("CoEA + bonus", None),
        _composed("CoEA composed", _RANKER),
        _composed("CoEA composed w/o Long", _RANKER, WITHOUT_LONG),
        _composed("CoEA composed, GRU4Rec", _BOTH),
    )


def _trials(base: str) -> tuple[str, ...]:
    return tuple(name for name in _BASES[base] if name != "popularity")


def _base(name: str, family: Family) -> Row:
    return Row(name, family, _trials(name), ({},), lambda known, _: relevance(known, name))


def relevance(known: Known, base: str) -> NDArray[np.float32]:
    """Give r of a base: [n, C]."""
    parts = [known.share(name) for name in _BASES[base]]
    found: NDArray[np.float32] = np.mean(parts, axis=0)
    return found


def _with_bonus(base: str) -> Callable[[Known, Setting], NDArray[np.float32]]:
    def scores(known: Known, setting: Setting) -> NDArray[np.float32]:
        return relevance(known, base) + np.float32(setting["bonus"]) * ~known.episodes.clicked

    return scores


def _first_kept(known: Known, _: Setting) -> NDArray[np.float32]:
    """Keep GRU4Rec's first, and let everything new follow it: the best C-H@1 with the most NCP@5 there can be."""
    scores = relevance(known, _GRU)
    first = np.where(known.episodes.candidates, scores, -np.inf).argmax(axis=1)
    found = scores - 100 * known.episodes.clicked
    found[np.arange(len(found)), first] = 100
    return found.astype(np.float32)


def _coea(name: str, variant: str) -> Row:
    settings = tuple({"cycles": cycles, "breadth": breadth} for cycles, breadth in product(CYCLES, BREADTHS))

    def scores(known: Known, setting: Setting) -> NDArray[np.float32]:
        novelty, aligned = (
            known.scores[f"{kind}{setting['cycles']:.0f}{variant}"] for kind in ("novelty", "alignment")
        )
        return listed(novelty, aligned, int(setting["breadth"]))

    return Row(name, "coea", ("CoEA",), settings, scores)


def _composed(name: str, base: str | None, variant: str = "") -> Row:
    """Compose the group's list with a base; with none, it is the group's list with the trigger."""
    weights = WEIGHTS if base else (1.0,)
    settings = tuple(
        {"cycles": cycles, "alignment": w, "novelty": x, "bonus": bonus}
        for cycles, w, x, bonus in product(CYCLES, weights, WEIGHTS, BONUSES)
    )

    def compose(known: Known, setting: Setting) -> NDArray[np.float32]:
        aligned, novelty = (known.share(f"{kind}{setting['cycles']:.0f}{variant}") for kind in ("alignment", "novelty"))
        # An even share counts nothing, so that x moves new categories against each other.
        even = np.log(known.episodes.candidates.sum(axis=1, keepdims=True))
        trigger = setting["bonus"] + setting["novelty"] * (novelty + even)
        found = setting["alignment"] * aligned + ~known.episodes.clicked * trigger
        scores: NDArray[np.float32] = (found if base is None else relevance(known, base) + found).astype(np.float32)
        return scores

    return Row(name, "coea", ("CoEA", *(_trials(base) if base else ())), settings, compose)
