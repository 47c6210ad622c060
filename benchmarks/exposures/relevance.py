"""Whether the Relevance LLM learns more from what was shown and not clicked than from drawn categories.

Every arm is tuned as a build tunes it, from the same base, on clicks before the cut of users that are trained on, and
judged by exposures after it: of categories outside the user's latest three, which is what the LLM is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.exposures.kept import Arrays, Kept
from benchmarks.exposures.log import ExposureLog, click_rates
from benchmarks.exposures.metrics import Ratio, Resamples
from benchmarks.exposures.ranking import ordered_pairs
from serendipity.groups.lists import alignment
from serendipity.groups.sequence import latest_distinct
from serendipity.offline.coevolution.coevolution import validation_pairs
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.examples import (
    RelevanceExample,
    Renderer,
    relevance_example,
    relevance_examples,
    split_of,
)
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import fit_platt, score_pairs, tune_relevance
from serendipity.offline.evaluate.reliability import Reliability, reliability
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

DRAWN = "drawn"
DRAWN_SAME = "drawn, at the moments of “exposed”"
EXPOSED = "exposed"
CLICK_RATE = "click rate of the category"

_PRIOR = 20.0
"""Exposures' worth of the overall click rate mixed into every category's."""


@dataclass(frozen=True)
class Asked:
    """Exposures the LLM is asked about. log: m of them; groups: [m]; recent: of each, the latest distinct categories
    before it, newest first."""

    log: ExposureLog
    groups: NDArray[np.int32]
    recent: Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Judged:
    """How well scores tell clicked exposures from others. auc: of all; pairs: within users; novel: within users, of
    novel exposures; reliability: of alignments as a build normalises them; None without any."""

    auc: Ratio
    pairs: Ratio
    novel: Ratio
    reliability: Reliability | None


@dataclass(frozen=True)
class Arm:
    """One way to take examples. exposed: share of the examples whose categories were shown and not clicked."""

    name: str
    examples: int
    exposed: float
    judged: Mapping[str, Judged]


def compare(
    kept: Kept,
    groups: Path,
    config: CoevolutionConfig,
    logs: tuple[Histories, Catalogue, Exposures],
    after: Histories,
    judged: Mapping[str, ExposureLog],
    before: ExposureLog,
    resamples: Resamples,
) -> list[Arm]:
    """Tune and judge every arm, and rank by the categories' click rates before the cut beside them.

    groups: directory of the group model that is told; logs: of the build, up to its moment; after: histories that hold
    what came later too, by whose users `judged`, exposures by name of the sample, and `before`, exposures up to the
    moment, are numbered.
    """
    histories, catalogue, exposures = logs
    model = GroupModel.read(groups)
    renderer = Renderer(model.profiles, catalogue.categories, config.style)
    click_groups = model.click_groups(histories)
    asked = {name: ask(log, after, model) for name, log in judged.items()}
    num_categories = len(catalogue.categories)
    exposed = relevance_examples(histories, click_groups, num_categories, config.examples, exposures=exposures)
    examples = {
        DRAWN: relevance_examples(histories, click_groups, num_categories, config.examples),
        DRAWN_SAME: redrawn(exposed, histories, click_groups, num_categories, config),
        EXPOSED: exposed,
    }

    def make(name: str) -> Arrays:
        told = exposures if name == EXPOSED else None
        pairs = validation_pairs(histories, click_groups, num_categories, config, told)
        llm, scale, offset = _tuned(examples[name], pairs, renderer, catalogue, model, config)
        scores = {str(number): _scores(llm, those, renderer) for number, those in enumerate(asked.values())}
        return {"platt": np.array([scale, offset])} | scores

    arms = []
    identity = [model.spec.group_model_id.encode(), config.model_dump_json().encode()]
    identity += [those.log.identity for those in asked.values()]
    for name, learned in examples.items():
        made = kept.arrays("relevance", [name.encode(), *identity], partial(make, name))
        scale, offset = made["platt"].tolist()
        found = {}
        for number, (sample, those) in enumerate(asked.items()):
            scores = made[str(number)]
            aligned = np.array([alignment(value, scale, offset) for value in scores.tolist()])
            found[sample] = judge(those.log, scores, resamples, aligned)
        arms.append(Arm(name, len(learned), float(np.mean([row.exposed for row in learned])), found))
    rates = click_rates(before, before.categories, num_categories + 1, _PRIOR)
    of_rates = {name: judge(those.log, rates[those.log.categories], resamples) for name, those in asked.items()}
    return [*arms, Arm(CLICK_RATE, 0, 0.0, of_rates)]


def ask(log: ExposureLog, histories: Histories, model: GroupModel) -> Asked:
    """Keep exposures of categories outside the user's latest three, with what is told of the moment before each."""
    click_groups, last = model.click_groups(histories), model.assign(histories).group_id
    kept, groups, recent = np.zeros(len(log), np.bool_), [], []
    rows = zip(log.users.tolist(), log.times.tolist(), log.categories.tolist(), strict=True)
    for place, (user, time, category) in enumerate(rows):
        latest = tuple(latest_distinct(histories.clicks_before(user, time)))
        if category in latest:
            continue
        kept[place] = True
        recent.append(latest)
        following = int(histories.offsets[user]) + histories.count_before(user, time)
        is_last = following == int(histories.offsets[user + 1])
        groups.append(int(last[user] if is_last else click_groups[following]))
    return Asked(log.take(kept), np.array(groups, np.int32), recent)


def redrawn(
    examples: Sequence[RelevanceExample],
    histories: Histories,
    groups: NDArray[np.int32],
    num_categories: int,
    config: CoevolutionConfig,
) -> list[RelevanceExample]:
    """Make examples of the same clicks, told the same, against drawn categories."""
    rng = np.random.default_rng(config.examples.seed)
    made = []
    for example in examples:
        start = int(histories.offsets[example.user]) + histories.count_before(example.user, example.time)
        click = start + int(np.argmax(histories.categories[start:] == example.clicked))
        drawn = relevance_example(histories, groups, num_categories, config.examples, click, rng)
        if drawn is not None:
            made.append(replace(drawn, group=example.group, recent=example.recent))
    return made


def is_validation(log: ExposureLog, histories: Histories, config: CoevolutionConfig) -> NDArray[np.bool_]:
    """Mark the exposures of users that nothing is trained on, [n] bool."""
    held_out = np.array([split_of(user_id, config.examples) == "validation" for user_id in histories.user_ids])
    marked: NDArray[np.bool_] = held_out[log.users]
    return marked


def judge(
    log: ExposureLog,
    scores: NDArray[np.float64],
    resamples: Resamples,
    aligned: NDArray[np.float64] | None = None,
) -> Judged:
    """Judge scores of exposures, [m]. aligned: [m], the same as probabilities."""
    num_users = resamples.num_users
    where = log.novel
    return Judged(
        auc=resamples.auc(log, scores),
        pairs=resamples.ratio(ordered_pairs(log, scores, num_users)),
        novel=resamples.ratio(ordered_pairs(log.take(where), scores[where], num_users)),
        reliability=None if aligned is None else reliability(aligned, log.clicked),
    )


def _tuned(
    examples: Sequence[RelevanceExample],
    pairs: Sequence[RelevanceExample],
    renderer: Renderer,
    catalogue: Catalogue,
    model: GroupModel,
    config: CoevolutionConfig,
) -> tuple[RelevanceLlm, float, float]:
    """Tune the base on examples and normalise its scores on pairs of users that it is not trained on."""
    llm = RelevanceLlm.open(config, catalogue.categories, model.profiles)
    with TemporaryDirectory(prefix="exposures-relevance-") as scratch:
        llm = tune_relevance(llm, examples, renderer, Path(scratch), config.relevance_tuning)
    return llm, *fit_platt(*score_pairs(llm, pairs, renderer))


def _scores(llm: RelevanceLlm, asked: Asked, renderer: Renderer) -> NDArray[np.float64]:
    """f of every exposure; equal questions are asked once."""
    questions = list(zip(asked.groups.tolist(), asked.recent, asked.log.categories.tolist(), strict=True))
    distinct = {question: place for place, question in enumerate(dict.fromkeys(questions))}
    scores = llm.score([renderer.relevance(group, recent, category) for group, recent, category in distinct])
    return scores[[distinct[question] for question in questions]].astype(np.float64)
