"""Dewu's eight online metrics of exposures, with intervals.

The article names them and defines novelty; where it leaves open what is counted, this is what is counted here:

    ENR     novel exposures / exposures               CNR     novel clicks / clicks
    ACC-1   top-level categories clicked, per user    ACC-3   category paths of three levels clicked, per user
    ACR     clicks / exposures                        UVCTR   users who clicked / users
    AVDU    seconds played, per user                  ER      users who liked something / users

Users are those with an exposure among those that are counted. Intervals come of resampling users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.exposures.log import ExposureLog
from serendipity.offline.evaluate.significance import Estimate

METRICS = ("ENR", "CNR", "ACC-1", "ACC-3", "ACR", "UVCTR", "AVDU", "ER")

NOVEL_CLICK_RATE = "novel clicks / novel exposures"

_TAILS = (0.025, 0.975)
_AUC_SAMPLES = 200


@dataclass(frozen=True)
class Sums:
    """What is divided: a figure is Σ numerator / Σ denominator over users. Both [U] float64."""

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A figure and what it is in resamples of users, [samples]; NaN where nothing can be divided by."""

    value: float
    draws: NDArray[np.float64]

    @property
    def estimate(self) -> Estimate:
        """The figure with its 95 % percentile interval."""
        return _estimate(self.value, self.draws)

    def minus(self, other: Ratio) -> Estimate:
        """The difference of two figures of the same resamples."""
        return _estimate(self.value - other.value, self.draws - other.draws)


class Resamples:
    """Users drawn with replacement, the same draws for every figure."""

    def __init__(self, num_users: int, seed: int, samples: int = 1_000) -> None:
        """num_users: of the histories; samples: how often as many are drawn."""
        self.num_users = num_users
        rng = np.random.default_rng(seed)
        # In single precision counts are exact, and 1,000 × 27,000 of them take 100 MB.
        self._weights = np.stack(
            [np.bincount(rng.integers(num_users, size=num_users), minlength=num_users) for _ in range(samples)]
        ).astype(np.float32)

    def ratio(self, sums: Sums) -> Ratio:
        """Divide the sums over all users, and over every resample's."""
        top, below = (self._weights @ each.astype(np.float32) for each in (sums.numerator, sums.denominator))
        whole = float(sums.denominator.sum())
        value = float(sums.numerator.sum()) / whole if whole else float("nan")
        draws = np.divide(top, below, out=np.full(len(top), np.nan, np.float32), where=below > 0)
        return Ratio(value, draws.astype(np.float64))

    def auc(self, log: ExposureLog, scores: NDArray[np.float64]) -> Ratio:
        """Area under the ROC curve of all exposures, whoever's, by whether they were clicked; of 200 resamples."""
        draws = [
            roc_auc_score(log.clicked, scores, sample_weight=weights[log.users])
            for weights in self._weights[:_AUC_SAMPLES]
        ]
        return Ratio(float(roc_auc_score(log.clicked, scores)), np.array(draws, np.float64))


def online_sums(log: ExposureLog, num_users: int) -> Mapping[str, Sums]:
    """Sum up, by user number, what METRICS and NOVEL_CLICK_RATE divide."""

    def count(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(log.users[where], minlength=num_users).astype(np.float64)

    def distinct(numbers: NDArray[np.int32]) -> NDArray[np.float64]:
        pairs = np.unique(np.stack([log.users, numbers])[:, log.clicked], axis=1)
        return np.bincount(pairs[0], minlength=num_users).astype(np.float64)

    exposures, clicks = count(np.ones(len(log), np.bool_)), count(log.clicked)
    novel, novel_clicks = count(log.novel), count(log.novel & log.clicked)
    users = (exposures > 0).astype(np.float64)
    played = np.asarray(np.bincount(log.users, log.seconds, num_users), np.float64)
    return {
        "ENR": Sums(novel, exposures),
        "CNR": Sums(novel_clicks, clicks),
        "ACC-1": Sums(distinct(log.categories), users),
        "ACC-3": Sums(distinct(log.deep), users),
        "ACR": Sums(clicks, exposures),
        "UVCTR": Sums((clicks > 0).astype(np.float64), users),
        "AVDU": Sums(played, users),
        "ER": Sums((count(log.liked) > 0).astype(np.float64), users),
        NOVEL_CLICK_RATE: Sums(novel_clicks, novel),
    }


def _estimate(value: float, draws: NDArray[np.float64]) -> Estimate:
    low, high = np.nanquantile(draws, _TAILS)
    return Estimate(value, float(low), float(high))
