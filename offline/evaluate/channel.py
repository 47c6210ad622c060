"""Replays held-out time through the real pipeline and measures what it recalled, beside the controls.

Everybody is judged alike (serendipity.offline.evaluate.measures): STRICT answers and the controls' novel lists, of the
same users, candidates and depth, and again with what the host has already, its own lists, excluded: the top of ALS ×
trend and of the popularity of 28 days, without regard to novelty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from serendipity.novelty import is_novel
from serendipity.offline.configuration import Configuration
from serendipity.offline.evaluate.channel_report import Answers, ChannelReport, ColdUsers, Percentiles
from serendipity.offline.evaluate.control_choice import (
    ALS_TREND,
    POPULARITY,
    Chosen,
    Grid,
    Period,
    choose_controls,
)
from serendipity.offline.evaluate.held_out import HeldOut, Score, Targets
from serendipity.offline.evaluate.measures import RECALLS, Judge
from serendipity.offline.evaluate.methods import RankedLists, measure_methods
from serendipity.offline.evaluate.reliability import Reliability, reliability
from serendipity.offline.evaluate.replay import (
    SOURCES,
    Advance,
    Recall,
    Replay,
    ReplayRequests,
    hits,
    replay,
    source_name,
)
from serendipity.offline.evaluate.source_worth import give_places, source_worths
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

CHANNEL = "channel"

_SEED = 20_240_601
"""Seed of the sample of users and of the bootstrap."""

_SILENT = frozenset({"empty", "unavailable"})
"""States of a source that gave nothing to anybody: one that the snapshot lacks."""


class ChannelEvaluationConfig(Configuration):
    """How the channel is evaluated."""

    depths: tuple[int, int] = (20, 100)
    """K of every measure, ascending; the larger is the number of candidates asked for, and of each list of the host."""
    max_users: Annotated[int, Field(ge=0)] = 0
    """Users replayed at most, sampled; 0: all."""
    bootstrap_samples: Annotated[int, Field(ge=1)] = 2_000
    """Resamples of users behind each interval."""
    grid: Grid = Grid()
    """Parameters that are tried for the controls."""


@dataclass(frozen=True)
class SeedReplay:
    """The channel built with one seed. strict: its answers; cold: those to users without a click before the cut."""

    seed: int
    lists: tuple[RankedLists, ...]
    strict: Replay
    cold: Replay


@dataclass(frozen=True)
class ChannelEvaluation:
    """A held-out period with everything that the channel is judged by, made before the channel is asked.

    chosen: the controls; users: [n] numbers, ascending, of those asked; host: [n, 2·K] item rows that the host has;
    popular: [n, 2·K] novel rows, most popular first; lists: the controls'.
    """

    histories: Histories
    catalogue: Catalogue
    config: ChannelEvaluationConfig
    chosen: tuple[Chosen, ...]
    period: Period
    users: NDArray[np.int64]
    judge: Judge
    host: NDArray[np.int64]
    popular: NDArray[np.int64]
    lists: tuple[RankedLists, ...]

    @classmethod
    def prepare(
        cls,
        histories: Histories,
        catalogue: Catalogue,
        cut: int,
        until: int,
        seeds: Sequence[int],
        config: ChannelEvaluationConfig,
        advance: Advance = lambda _: None,
    ) -> ChannelEvaluation:
        """Choose the controls on what came before the cut, fit them on it, and rank for [cut, until).

        seeds: of the controls that a seed changes. Raises ValueError where nobody can be judged.
        """
        chosen = choose_controls(histories, catalogue, cut, config.grid, advance)
        period = Period.of(histories, catalogue, cut, until, config.grid)
        held_out = period.held_out
        users = _sample(held_out.novel.users, config.max_users, np.random.default_rng(_SEED))
        if not len(users):
            raise ValueError(f"evaluation: found no novel target in [{cut}, {until}), expected a longer period")
        depth = max(config.depths)

        def rank(score: Score, k: int, *, novel: bool, excluded: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
            return held_out.top_k(score, users, k, novel=novel, excluded=excluded)

        own = {one.control.name: one for one in chosen}
        ours = {name: own[name].control.fit(period, own[name].parameters, seeds[0]) for name in (ALS_TREND, POPULARITY)}
        host = np.concatenate([rank(score, depth, novel=False) for score in ours.values()], axis=1)
        lists = []
        for one in chosen:
            for seed in seeds if one.control.seeded else (None,):
                score = one.control.fit(period, one.parameters, seed or 0)
                novel = rank(score, depth, novel=True)
                lists.append(
                    RankedLists(one.control.name, "control", seed, novel, rank(score, depth, novel=True, excluded=host))
                )
                advance(1)
        return cls(
            histories=histories,
            catalogue=catalogue,
            config=config,
            chosen=chosen,
            period=period,
            users=users,
            judge=Judge.of(held_out, period.statistics, users, host),
            host=host,
            popular=rank(ours[POPULARITY], 2 * depth, novel=True),
            lists=tuple(lists),
        )

    def replay(self, recall: Recall, seed: int, advance: Advance = lambda _: None) -> SeedReplay:
        """Ask the pipeline over a snapshot built as of the cut. seed: what it was built with.

        Raises ReplayError when an answer does not belong to this catalogue.
        """
        cut, depth = self.period.held_out.cut, max(self.config.depths)

        def ask(users: NDArray[np.int64], sources: frozenset[int] | None = None, *, host: bool = False) -> Replay:
            requests = ReplayRequests(depth, sources=sources, host=self.host if host else None)
            return replay(recall, self.histories, self.catalogue, users, cut, requests, advance=advance)

        strict = ask(self.users)
        lists = [RankedLists(CHANNEL, "channel", seed, strict.rows, ask(self.users, host=True).rows)]
        for source in SOURCES:
            name = source_name(source)
            if not set(strict.source_states.get(name, ())) <= _SILENT:
                alone = frozenset({source})
                rows, exclusive = ask(self.users, alone).rows, ask(self.users, alone, host=True).rows
                lists.append(RankedLists(f"source {name} alone", "source", seed, rows, exclusive))
                exchanged = give_places(strict.rows, (strict.sources == source) & (strict.rows >= 0), self.popular)
                lists.append(RankedLists(f"channel, popularity for {name}", "exchange", seed, exchanged))
        cold = _sample(
            cold_targets(self.histories, self.period.held_out).users,
            self.config.max_users,
            np.random.default_rng(_SEED),
        )
        return SeedReplay(seed, tuple(lists), strict, ask(cold))

    def report(self, dataset: str, replays: Sequence[SeedReplay]) -> ChannelReport:
        """Put all figures together; of the replays, answers and scores are described by the first."""
        held_out, depths, rng = self.period.held_out, self.config.depths, np.random.default_rng(_SEED)
        ordered = [*self.lists, *(one for run in replays for one in run.lists)]
        first = replays[0]
        return ChannelReport(
            dataset=dataset,
            snapshots=tuple(snapshot for run in replays for snapshot in run.strict.snapshots),
            cut=held_out.cut,
            until=held_out.until,
            users=len(self.users),
            targets={measure: self.judge.count(measure) for measure in RECALLS},
            depths=depths,
            bootstrap_samples=self.config.bootstrap_samples,
            chosen=self.chosen,
            methods=measure_methods(ordered, self.judge, depths),
            sources=tuple(source_worths([run.strict for run in replays], self.judge, self.popular, rng)),
            answers=self._answers(first.strict),
            cold=_cold_users(first.cold, cold_targets(self.histories, held_out), depths),
            reliability=_reliabilities(first.strict, first.cold, self.histories, held_out),
        )

    def _answers(self, strict: Replay) -> Answers:
        held_out, depth = self.period.held_out, max(self.config.depths)
        there = strict.rows >= 0
        novel = sum(
            int(is_novel(held_out.item_categories[rows[here]], held_out.clicked[user]).sum())
            for user, rows, here in zip(strict.users.tolist(), strict.rows, there, strict=True)
        )
        categories = [len(np.unique(held_out.item_categories[rows[rows >= 0]])) for rows in strict.rows]
        times = {"caller": strict.seconds, **strict.stage_seconds}
        return Answers(
            fill=float(strict.returned.mean() / depth),
            violations=int(there.sum()) - novel,
            categories=float(np.mean(categories)),
            coverage=len(np.unique(strict.rows[there])) / len(self.catalogue),
            degraded=int(strict.degraded.sum()),
            degraded_reasons=dict(strict.degraded_reasons),
            milliseconds={
                name: Percentiles(*(float(value) for value in np.percentile(seconds, (50, 99)) * 1e3))
                for name, seconds in times.items()
            },
        )


def cold_targets(histories: Histories, held_out: HeldOut) -> Targets:
    """Find what users without any click before the cut clicked in the period, among the candidates."""
    cold = np.diff(held_out.seen.indptr) == 0
    period = (histories.times >= held_out.cut) & (histories.times < held_out.until) & (histories.items > 0)
    chosen = period & cold[histories.users]
    pairs = np.unique(np.stack([histories.users[chosen].astype(np.int64), histories.items[chosen] - 1]), axis=1)
    pairs = pairs[:, np.isin(pairs[1], held_out.candidates)]
    return Targets.from_pairs(pairs[0], pairs[1])


def _cold_users(answers: Replay, targets: Targets, depths: Sequence[int]) -> ColdUsers | None:
    if not len(answers):
        return None
    asked = targets.of_users(answers.users)
    ranked = answers.rows_of(asked.users)
    return ColdUsers(
        users=len(answers),
        fill=float(answers.returned.mean() / answers.count),
        recall={k: float(asked.recall(ranked, k).mean()) for k in depths},
    )


def _reliabilities(warm: Replay, cold: Replay, histories: Histories, held_out: HeldOut) -> dict[str, Reliability]:
    """Reliability of the scores of everyone asked, by leading source, and of cold users alone."""

    def both(column: Callable[[Replay], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([column(answers)[answers.rows >= 0] for answers in (warm, cold)])

    hit = both(lambda answers: hits(answers, histories, held_out.cut, held_out.until))
    predicted, sources = both(lambda answers: answers.scores), both(lambda answers: answers.sources)
    groups = {"all": np.ones(len(hit), np.bool_)}
    groups |= {source_name(source): sources == source for source in SOURCES}
    groups["cold users"] = np.arange(len(hit)) >= int((warm.rows >= 0).sum())
    return {name: reliability(predicted[chosen], hit[chosen]) for name, chosen in groups.items() if chosen.any()}


def _sample(users: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if not most or len(users) <= most:
        return users
    return np.sort(rng.choice(users, most, replace=False))
