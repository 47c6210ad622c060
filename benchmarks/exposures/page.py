"""The page of results: what was exposed, what rankings of it are worth, and the Relevance LLM's arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.exposures.controls import Chosen
from benchmarks.exposures.log import ExposureLog
from benchmarks.exposures.metrics import METRICS, NOVEL_CLICK_RATE, Ratio, Resamples, online_sums
from benchmarks.exposures.ranking import first_of_all, first_of_each, ordered_pairs
from benchmarks.exposures.relevance import EXPOSED, Arm, Judged
from serendipity.offline.evaluate.methods_report import table
from serendipity.offline.evaluate.significance import Estimate

CHANNEL = "channel"
SHARES = {"third": 1 / 3, "tenth": 1 / 10}

_FIRST_TENTH, _PAIRS = "first tenth", "pairs in order"


@dataclass(frozen=True)
class Ranked:
    """Exposures of users who have several, and their scores by each ranking, [n]; the channel's come last."""

    log: ExposureLog
    scores: Mapping[str, NDArray[np.float64]]

    def take(self, where: NDArray[np.bool_]) -> Ranked:
        """Keep the exposures that a mask, [n], marks."""
        return Ranked(self.log.take(where), {name: values[where] for name, values in self.scores.items()})


def log_section(weeks: Mapping[str, ExposureLog], resamples: Resamples) -> str:
    """Tell what was exposed, and the eight metrics of it."""
    rows = []
    for name, log in weeks.items():
        sums = online_sums(log, resamples.num_users)
        counts = (f"{len(log):,}", f"{len(np.unique(log.users)):,}", f"{log.novel.sum():,}")
        rows.append((name, *counts, *(_shown(resamples.ratio(sums[each])) for each in (*METRICS, NOVEL_CLICK_RATE))))
    return table(("exposed", "exposures", "users", "novel", *METRICS, NOVEL_CLICK_RATE), rows)


def metrics_section(ranked: Ranked, share: str, resamples: Resamples) -> str:
    """Give the eight metrics of each user's best, by every ranking."""
    log = ranked.log
    kept = {"all, as exposed": np.ones(len(log), np.bool_)}
    kept |= {name: first_of_each(log, scores, SHARES[share]) for name, scores in ranked.scores.items()}
    rows = []
    for name, where in kept.items():
        sums = online_sums(log.take(where), resamples.num_users)
        cells = (_shown(resamples.ratio(sums[each])) for each in (*METRICS, NOVEL_CLICK_RATE))
        rows.append((_bold(name), f"{where.sum():,}", *cells))
    return table((f"first {share} by", "exposures", *METRICS, NOVEL_CLICK_RATE), rows)


def novel_section(ranked: Ranked, resamples: Resamples) -> str:
    """Compare rankings of each user's novel exposures."""
    log = ranked.log
    found = {name: novel_ratios(log, values, resamples) for name, values in ranked.scores.items()}
    ours = found[CHANNEL]
    rows = []
    for name, ratios in found.items():
        gaps = ["–", "–"]
        if name != CHANNEL:
            gaps = [_difference(ours[measure].minus(ratios[measure])) for measure in (_FIRST_TENTH, _PAIRS)]
        rows.append((_bold(name), *map(_shown, ratios.values()), *gaps))
    heads = ("ranking", *ours, f"channel − it: {_FIRST_TENTH}", _PAIRS)
    said = f"{len(log):,} exposures of {len(np.unique(log.users)):,} users, {log.clicked.mean():.3f} of them clicked."
    return f"{said}\n\n{table(heads, rows)}"


def target(ranked: Ranked, controls: Sequence[str], resamples: Resamples) -> str:
    """Say whether the first tenth of each user's exposures by the channel is clicked more than by every control."""
    rates = {
        name: novel_ratios(ranked.log, ranked.scores[name], resamples)[_FIRST_TENTH] for name in (*controls, CHANNEL)
    }
    ours = rates.pop(CHANNEL)
    best = max(rates, key=lambda name: rates[name].value)
    gap = ours.minus(rates[best])
    by_chance = "met by a gap that may be chance" if gap.value > 0 else "not met"
    said = "met" if gap.low > 0 else by_chance
    return f"**{said}**: {ours.value:.3f} against {rates[best].value:.3f} of the best, {best}, {_difference(gap)}"


def novel_ratios(log: ExposureLog, scores: NDArray[np.float64], resamples: Resamples) -> dict[str, Ratio]:
    """Click rates of the first of each user's exposures and of all, and the share of pairs in order."""
    first = {f"first {name}": first_of_each(log, scores, share) for name, share in SHARES.items()}
    first["first tenth of all"] = first_of_all(log, scores, SHARES["tenth"])
    rates = {
        name: resamples.ratio(online_sums(log.take(where), resamples.num_users)["ACR"]) for name, where in first.items()
    }
    return rates | {_PAIRS: resamples.ratio(ordered_pairs(log, scores, resamples.num_users))}


def chosen_section(chosen: Sequence[Chosen]) -> str:
    """Tell what was chosen for the controls."""
    rows = [
        (one.control.name, ", ".join(f"{name} {value:g}" for name, value in one.parameters.items()) or "–",
         f"{one.validation:.4f}")
        for one in chosen
    ]  # fmt: skip
    return table(("control", "chosen", "pairs in order, validation"), rows)


def relevance_section(arms: Sequence[Arm]) -> str:
    """Give what every arm of the Relevance LLM comes to on each sample."""
    ours = next(arm for arm in arms if arm.name == EXPOSED)
    parts = []
    for sample in ours.judged:
        rows = [
            (arm.name, f"{arm.examples:,}" if arm.examples else "–", f"{arm.exposed:.0%}" if arm.examples else "–",
             *_cells(arm.judged[sample], ours.judged[sample]))
            for arm in arms
        ]  # fmt: skip
        heads = ("negatives", "moments", "of them exposed", "AUC", "pairs in order", "of novel exposures",
                 "exposed − it: AUC", "of novel exposures", "predicted", "clicked", "ECE")  # fmt: skip
        parts.append(f"**{sample[0].upper()}{sample[1:]}**\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def _cells(judged: Judged, ours: Judged) -> tuple[str, ...]:
    told = judged.reliability
    believed = ("–", "–", "–")
    if told is not None:
        believed = (
            f"{told.mean_predicted:.3f}", f"{told.base_rate:.3f}", f"{told.expected_calibration_error:.3f}",
        )  # fmt: skip
    gaps = ["–", "–"]
    if judged is not ours:
        gaps = [_difference(ours.auc.minus(judged.auc)), _difference(ours.novel.minus(judged.novel))]
    return (*map(_shown, (judged.auc, judged.pairs, judged.novel)), *gaps, *believed)


def _bold(name: str) -> str:
    return f"**{name}**" if name == CHANNEL else name


def _shown(ratio: Ratio) -> str:
    return _interval(ratio.estimate)


def _interval(found: Estimate) -> str:
    digits = 1 if found.value >= 10 else 3 if found.value >= 0.1 else 4
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _difference(found: Estimate) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
