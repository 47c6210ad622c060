"""Replays held-out time through the real pipeline and measures what it recalled.

STRICT answers are judged against novel targets, answers without a novelty policy against all targets, baselines by
their lists under the same protocol (serendipity.offline.evaluate.held_out). Users without a click before the cut are
measured apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from serendipity.novelty import NO_CATEGORY, clicked_categories, is_novel
from serendipity.offline.calibration import Outcomes, Reliability, reliability
from serendipity.offline.evaluate.channel_report import (
    Accuracy,
    ChannelReport,
    Comparison,
    FilterEffect,
    Percentiles,
    SourceContribution,
)
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.evaluate.metrics import coverage_at, hits, ndcg_at, recall_at
from serendipity.offline.evaluate.replay import (
    SOURCES,
    Advance,
    Recall,
    Replay,
    ReplayRequests,
    outcomes,
    replay,
    source_name,
)
from serendipity.offline.evaluate.significance import Ratio, bootstrap_ratio
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2


class ChannelEvaluationConfig(BaseModel):
    """How the channel is evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    depths: tuple[int, ...] = (20, 100)
    """K of Recall@K and NDCG@K, ascending; the largest is the number of candidates asked for."""
    max_users: Annotated[int, Field(ge=0)] = 0
    """Users replayed at most, sampled; 0: all."""
    bootstrap_samples: Annotated[int, Field(ge=1)] = 2_000
    """Resamples of users behind each interval."""
    reliability_bins: Annotated[int, Field(ge=1)] = 10
    """Bins of the reliability table."""
    seed: int = 20_240_601
    """Seed of the sample of users and of the bootstrap."""


@dataclass(frozen=True)
class BaselineLists:
    """One baseline's ranked rows, −1 for none.

    all: [len(held_out.targets), K]; novel: [len(held_out.novel), K], of novel categories only.
    """

    all: NDArray[np.int64]
    novel: NDArray[np.int64]


def evaluate_channel(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    held_out: HeldOut,
    *,
    dataset: str,
    config: ChannelEvaluationConfig | None = None,
    baselines: Mapping[str, BaselineLists] | None = None,
    advance: Advance = lambda _: None,
) -> ChannelReport:
    """Replay [held_out.cut, held_out.until) and measure it.

    recall: the pipeline over a snapshot built as of held_out.cut. Baselines are compared on the users replayed.
    Raises ReplayError when an answer does not belong to this catalogue.
    """
    config = config or ChannelEvaluationConfig()
    rng = np.random.default_rng(config.seed)
    cold = cold_targets(histories, held_out)
    rolling = rolling_novel_targets(histories, held_out)
    warm_users = _sample(held_out.targets.users, config.max_users, rng)
    cold_users = _sample(cold.users, config.max_users, rng)
    count = max(config.depths)

    def ask(users: NDArray[np.int64], policy: channel_pb2.NoveltyPolicy) -> Replay:
        requests = ReplayRequests(count, policy)
        return replay(recall, histories, catalogue, users, held_out.cut, requests, advance=advance)

    strict = ask(warm_users, channel_pb2.NOVELTY_POLICY_STRICT)
    free = ask(warm_users, channel_pb2.NOVELTY_POLICY_OFF)
    of_cold = ask(cold_users, channel_pb2.NOVELTY_POLICY_STRICT)
    novel_returned, returned = _novel_returned(strict, held_out)
    everyone = Targets.from_pairs(*_pairs_of(held_out.targets, warm_users))
    compared = {
        name: _compare(strict, free, lists, held_out, warm_users, config, rng)
        for name, lists in (baselines or {}).items()
    }
    return ChannelReport(
        dataset=dataset,
        snapshots=tuple(sorted({*strict.snapshots, *free.snapshots, *of_cold.snapshots})),
        calibrations=tuple(sorted({*strict.calibrations, *free.calibrations, *of_cold.calibrations})),
        cut=held_out.cut,
        until=held_out.until,
        users=len(strict),
        fill=float(strict.returned.mean() / count) if len(strict) else 0.0,
        full_answers=float((strict.returned == count).mean()) if len(strict) else 0.0,
        novelty_rate=novel_returned / returned if returned else 1.0,
        violations=returned - novel_returned,
        mean_unexpectedness=float(strict.unexpectedness[strict.rows >= 0].mean()) if returned else 0.0,
        categories_per_answer=_categories_per_answer(strict, catalogue.item_categories),
        degraded_answers=int(strict.degraded.sum() + free.degraded.sum() + of_cold.degraded.sum()),
        degraded_reasons=strict.degraded_reasons,
        coverage={k: coverage_at(strict.rows, len(catalogue), k) for k in config.depths},
        all=_accuracy(free, everyone, config.depths),
        novel=_accuracy(strict, _of_users(held_out.novel, warm_users), config.depths),
        rolling_novel=_accuracy(strict, _of_users(rolling, warm_users), config.depths),
        cold=_accuracy(of_cold, _of_users(cold, cold_users), config.depths),
        cold_users=len(of_cold),
        cold_fill=float(of_cold.returned.mean() / count) if len(of_cold) else 0.0,
        sources=_contributions(strict, _of_users(held_out.novel, warm_users)),
        filters=_filter_effects(strict, everyone, held_out, catalogue),
        reliability=_reliabilities(strict, of_cold, histories, held_out, config.reliability_bins),
        latency=_latency(strict),
        baselines=compared,
        novel_category_keys=strict.novel_category_keys,
        cold_novel_category_keys=of_cold.novel_category_keys,
    )


def cold_targets(histories: Histories, held_out: HeldOut) -> Targets:
    """Find what users without any click before the cut clicked in the period, among the candidates."""
    cold = np.diff(held_out.seen.indptr) == 0
    period = (histories.times >= held_out.cut) & (histories.times < held_out.until) & (histories.items > 0)
    chosen = period & cold[histories.users]
    pairs = np.unique(np.stack([histories.users[chosen].astype(np.int64), histories.items[chosen] - 1]), axis=1)
    pairs = pairs[:, np.isin(pairs[1], held_out.candidates)]
    return Targets.from_pairs(pairs[0], pairs[1])


def rolling_novel_targets(histories: Histories, held_out: HeldOut) -> Targets:
    """Keep the targets whose category is not among the latest 200 clicks just before the user's first click on them."""
    num_categories = held_out.clicked.shape[1] - 1
    owners: list[int] = []
    rows: list[int] = []
    for i, user in enumerate(held_out.targets.users.tolist()):
        wanted = held_out.targets.rows[held_out.targets.offsets[i] : held_out.targets.offsets[i + 1]]
        start = int(histories.offsets[user])
        first = start + histories.count_before(user, held_out.cut)
        last = start + histories.count_before(user, held_out.until)
        clicked, position = np.unique(histories.items[first:last] - 1, return_index=True)
        clicks = first + position[np.searchsorted(clicked, wanted)]
        known: dict[int, NDArray[np.bool_]] = {}
        for row, click in zip(wanted.tolist(), clicks.tolist(), strict=True):
            time = int(histories.times[click])
            # Clicks of one basket share one moment, and so one history.
            if time not in known:
                known[time] = clicked_categories(histories.clicks_before(user, time), num_categories)
            if not known[time][held_out.item_categories[row]]:
                owners.append(user)
                rows.append(row)
    return Targets.from_pairs(np.array(owners, np.int64), np.array(rows, np.int64))


def _accuracy(answers: Replay, targets: Targets, depths: tuple[int, ...]) -> Accuracy:
    return _accuracy_of(answers.rows_of(targets.users), targets, depths)


def _accuracy_of(ranked: NDArray[np.int64], targets: Targets, depths: tuple[int, ...]) -> Accuracy:
    if not len(targets):
        return Accuracy(0, 0, 0, dict.fromkeys(depths, float("nan")), dict.fromkeys(depths, float("nan")))
    hit = hits(ranked, targets)
    return Accuracy(
        users=len(targets),
        targets=len(targets.rows),
        found=int(hit.sum()),
        recall={k: float(recall_at(hit, targets, k).mean()) for k in depths},
        ndcg={k: float(ndcg_at(hit, targets, k).mean()) for k in depths},
    )


def _contributions(strict: Replay, novel: Targets) -> dict[str, SourceContribution]:
    is_hit = np.zeros(strict.rows.shape, np.bool_)
    if len(novel):
        is_hit[np.searchsorted(strict.users, novel.users)] = hits(strict.rows_of(novel.users), novel)
    result = {}
    for column, source in enumerate(SOURCES):
        totals = strict.source_totals.get(source_name(source))
        if totals is None:
            continue
        found = strict.found_by[:, :, column]
        alone = found & (strict.found_by.sum(axis=2) == 1)
        led_hits = int((is_hit & (strict.sources == source)).sum())
        result[source_name(source)] = SourceContribution(
            requested=totals.requested,
            found=totals.found,
            returned=totals.returned,
            hits=led_hits,
            also_found=int((is_hit & found).sum()),
            unique_hits=int((is_hit & alone).sum()),
            hit_rate=led_hits / totals.returned if totals.returned else 0.0,
            states=totals.states,
        )
    return result


def _filter_effects(
    strict: Replay, targets: Targets, held_out: HeldOut, catalogue: Catalogue
) -> dict[str, FilterEffect]:
    """Count targets each rule forbids. `excluded` and `served` forbid none: targets are new, and nothing was shown."""
    owners = np.repeat(targets.users, targets.counts)
    categories = catalogue.item_categories[targets.rows]
    forbidden = {
        "novelty": held_out.clicked[owners, categories],
        "category": categories == NO_CATEGORY,
        "availability": ~catalogue.available[targets.rows],
        "excluded": np.zeros(len(owners), np.bool_),
        "served": np.zeros(len(owners), np.bool_),
    }
    return {
        name: FilterEffect(totals.kept, totals.removed, int(forbidden[name].sum()) if name in forbidden else None)
        for name, totals in strict.filter_totals.items()
    }


def _reliabilities(
    warm: Replay, cold: Replay, histories: Histories, held_out: HeldOut, num_bins: int
) -> dict[str, Reliability]:
    """Reliability of the scores of everyone asked, by leading source, and of cold users alone."""
    parts = [outcomes(answers, histories, held_out.cut, held_out.until) for answers in (warm, cold)]
    scores = [answers.scores[answers.rows >= 0] for answers in (warm, cold)]
    everything = Outcomes.concatenate(parts)
    predicted = np.concatenate(scores)
    groups = {"all": np.ones(len(everything), np.bool_)}
    groups |= {source_name(source): everything.sources == source for source in SOURCES}
    groups["cold users"] = np.arange(len(everything)) >= len(parts[0])
    return {
        name: reliability(predicted[chosen], everything.hits[chosen], num_bins)
        for name, chosen in groups.items()
        if chosen.any()
    }


def _compare(
    strict: Replay,
    free: Replay,
    lists: BaselineLists,
    held_out: HeldOut,
    users: NDArray[np.int64],
    config: ChannelEvaluationConfig,
    rng: np.random.Generator,
) -> Comparison:
    def measure(answers: Replay, ranked: NDArray[np.int64], targets: Targets) -> tuple[Accuracy, dict[int, Ratio]]:
        some = _of_users(targets, users)
        ranked = ranked[np.isin(targets.users, users)]
        accuracy = _accuracy_of(ranked, some, config.depths)
        if not len(some):
            return accuracy, {}
        ours, theirs = hits(answers.rows_of(some.users), some), hits(ranked, some)
        ratios = {
            k: bootstrap_ratio(
                recall_at(ours, some, k), recall_at(theirs, some, k), rng, samples=config.bootstrap_samples
            )
            for k in config.depths
        }
        return accuracy, ratios

    of_all, all_ratio = measure(free, lists.all, held_out.targets)
    of_novel, novel_ratio = measure(strict, lists.novel, held_out.novel)
    return Comparison(of_all, of_novel, all_ratio, novel_ratio)


def _novel_returned(strict: Replay, held_out: HeldOut) -> tuple[int, int]:
    """Count the candidates that are novel at the cut, and all."""
    present = strict.rows >= 0
    novel = 0
    for user, rows, here in zip(strict.users.tolist(), strict.rows, present, strict=True):
        novel += int(is_novel(held_out.item_categories[rows[here]], held_out.clicked[user]).sum())
    return novel, int(present.sum())


def _categories_per_answer(answers: Replay, item_categories: NDArray[np.int32]) -> float:
    counts = [len(np.unique(item_categories[rows[rows >= 0]])) for rows in answers.rows]
    return float(np.mean(counts)) if counts else 0.0


def _latency(answers: Replay) -> dict[str, Percentiles]:
    times = {"caller": answers.seconds, **answers.stage_seconds}
    return {
        name: Percentiles(float(np.percentile(seconds, 50) * 1e3), float(np.percentile(seconds, 99) * 1e3))
        for name, seconds in times.items()
        if len(seconds)
    }


def _of_users(targets: Targets, users: NDArray[np.int64]) -> Targets:
    return Targets.from_pairs(*_pairs_of(targets, users))


def _pairs_of(targets: Targets, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    owners = np.repeat(targets.users, targets.counts)
    chosen = np.isin(owners, users)
    return owners[chosen], targets.rows[chosen]


def _sample(users: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if not most or len(users) <= most:
        return users
    return np.sort(rng.choice(users, most, replace=False))
