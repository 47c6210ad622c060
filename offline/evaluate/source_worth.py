"""What each source is worth in the channel's answers, against popularity that is given the same places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.measures import Judge
from serendipity.offline.evaluate.replay import SOURCES, Replay, source_name
from serendipity.offline.evaluate.significance import Estimate, bootstrap_difference


@dataclass(frozen=True)
class SourceWorth:
    """One source in the STRICT answers, means per user.

    places: candidates it leads; hits: novel targets among them; popularity_hits: novel targets that popularity of 28
    days finds when it is given those places, and the rest of the answer stays; difference: hits − popularity_hits.
    only_it: novel targets in the answer that no other source found. answers: SourceState → answers.
    """

    name: str
    places: float
    hits: float
    popularity_hits: float
    difference: Estimate
    only_it: float
    answers: dict[str, int]


def give_places(rows: NDArray[np.int64], given: NDArray[np.bool_], popular: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill the given places of answers with popular items that are not in the rest of the answer.

    rows: [n, K] item rows, −1 for none; given: [n, K] bool; popular: [n, P] item rows, most popular first. A place
    stays empty where there are too few of them. Returns [n, K].
    """
    filled = rows.copy()
    for i in np.flatnonzero(given.any(axis=1)).tolist():
        places = np.flatnonzero(given[i])
        following = popular[i][(popular[i] >= 0) & ~np.isin(popular[i], rows[i][~given[i]])][: len(places)]
        filled[i, places] = -1
        filled[i, places[: len(following)]] = following
    return filled


def source_worths(
    answers: Sequence[Replay], judge: Judge, popular: NDArray[np.int64], rng: np.random.Generator
) -> list[SourceWorth]:
    """Measure every source that was asked. answers: a replay of the judge's users a seed; popular: as `give_places`."""
    worths = []
    for column, source in enumerate(SOURCES):
        if not any(source_name(source) in replay.source_states for replay in answers):
            continue
        places, hits, popularity_hits, only_it = [], [], [], []
        states: dict[str, int] = {}
        for replay in answers:
            led = (replay.sources == source) & (replay.rows >= 0)
            alone = replay.found_by[:, :, column] & (replay.found_by.sum(axis=2) == 1)
            is_hit = judge.targets.hits(replay.rows)
            exchanged = judge.targets.hits(give_places(replay.rows, led, popular))
            places.append(led.sum(axis=1))
            hits.append((is_hit & led).sum(axis=1))
            popularity_hits.append((exchanged & led).sum(axis=1))
            only_it.append((is_hit & alone).sum(axis=1))
            for state, count in replay.source_states.get(source_name(source), {}).items():
                states[state] = states.get(state, 0) + count
        ours, theirs = np.mean(hits, axis=0), np.mean(popularity_hits, axis=0)
        worths.append(
            SourceWorth(
                name=source_name(source),
                places=float(np.mean(places)),
                hits=float(ours.mean()),
                popularity_hits=float(theirs.mean()),
                difference=bootstrap_difference(ours, theirs, rng),
                only_it=float(np.mean(only_it)),
                answers=states,
            )
        )
    return worths
