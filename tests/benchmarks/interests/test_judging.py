"""Interests of every origin are judged alike: at equal K, on the same users, with intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.interests import judging
from benchmarks.interests.judging import (
    OWN_WEIGHTS,
    POPULAR_UNSEEN,
    Evaluation,
    Row,
    Said,
    choose_own_weight,
    judge_interests,
    popular_or_own,
    popular_unseen,
    row_of,
    run_reasoner,
)
from benchmarks.interests.judging import K as PLACES
from benchmarks.interests.page import Conditions, markdown, write_interests_report
from serendipity.interests.reasoner import Interest, InterestPath
from serendipity.offline.evaluate.significance import bootstrap_difference
from serendipity.offline.interests.debate import DebateConfig
from serendipity.offline.interests.grounding_threshold import ThresholdReport
from serendipity.offline.interests.hops import TwoHop
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2
from tests.fixtures.shopkeeper import Shopkeeper
from tests.fixtures.small_shop import make_grounder
from tests.offline.interests.conftest import SHOP, make_catalogue

DAY = 86_400
START, CUT, UNTIL = 10 * DAY, 20 * DAY, 30 * DAY


def make_histories(taxonomy: Taxonomy) -> Histories:
    """Thirty coffee drinkers turn to tea before the cut and after it; bread is popular; one user has no future."""
    rows: list[list[tuple[int, str]]] = []
    for user in range(30):
        past = [(user + 1, "coffee"), (15 * DAY + user, "bread")] if user % 2 else [(user + 1, "coffee")]
        rows.append(
            [*past, (15 * DAY + user, "tea"), (CUT + user, "saws")] if user < 10 else [*past, (CUT + user, "tea")]
        )
    rows.append([(5, "coffee")])
    numbers = [[taxonomy.categories.index(name) + 1 for _, name in clicks] for clicks in rows]
    times = np.array([time for clicks in rows for time, _ in clicks], np.int64)
    return Histories(
        user_ids=[f"u{user:02d}" for user in range(len(rows))],
        profiles=[{} for _ in rows],
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        items=np.zeros(len(times), np.int64),
        categories=np.array([number for clicks in numbers for number in clicks], np.int32),
        times=times,
        search_offsets=np.zeros(len(rows) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


@pytest.fixture
def evaluation() -> Evaluation:
    taxonomy = Taxonomy.from_catalogue(make_catalogue(SHOP))
    histories = make_histories(taxonomy)
    return Evaluation.of(histories, taxonomy, CUT, UNTIL)


def says(evaluation: Evaluation, *names: str, method: str = "said") -> Said:
    ids = {node.name: node.node_id for node in evaluation.taxonomy.nodes if len(node.path) == 2}
    path = InterestPath(records_pb2.SEED_KIND_SEARCH, "a|b", "drinks", "tea", records_pb2.RELATION_HYPONYM, 0.5)
    users = evaluation.users
    return Said(method, 0, users, [[Interest(ids[name], 1.0, path) for name in names] for _ in users])


def test_users_without_a_past_or_a_future_are_not_judged(evaluation: Evaluation) -> None:
    assert evaluation.users.tolist() == list(range(30))


def test_hits_are_shares_of_all_places_and_a_category_counts_once(evaluation: Evaluation) -> None:
    judged = judge_interests(evaluation, says(evaluation, "tea", "tea", "bread"))
    assert judged.hit[:10].tolist() == [0.0] * 10
    assert judged.hit[10:].tolist() == [1 / PLACES] * 20


def test_popular_answers_are_novel_and_rank_by_users(evaluation: Evaluation) -> None:
    popular = popular_unseen(evaluation, evaluation.users)
    names = [evaluation.taxonomy.nodes[interest.node_id].name for interest in popular.interests[10]]
    assert names[:2] == ["bread", "tea"] or names[:2] == ["tea", "bread"]
    for user, found_interests in enumerate(popular.interests):
        found = [evaluation.taxonomy.nodes[one.node_id].categories[0] for one in found_interests]
        assert not {*found} & {*evaluation.histories.clicks_before(user, CUT).categories.tolist()}
        assert len({*found}) == len(found)


@pytest.fixture
def halves(evaluation: Evaluation) -> Evaluation:
    """Forty coffee drinkers: every second turns to tea. The first twenty click once lately, the others twice; of the
    first all turn to bread, of the others none."""
    coffee, tea, bread = (evaluation.taxonomy.categories.index(name) + 1 for name in ("coffee", "tea", "bread"))
    rows = [
        [*[(CUT - 9 + i, coffee) for i in range(1 + user // 20)], (CUT + 5, coffee)]
        + ([(CUT + 6, bread)] if user < 20 else [])
        + ([(CUT + 7, tea)] if user % 2 else [])
        for user in range(40)
    ]
    clicks = [click for row in rows for click in row]
    histories = Histories(
        user_ids=[f"u{user:02d}" for user in range(len(rows))],
        profiles=[{} for _ in rows],
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        items=np.zeros(len(clicks), np.int64),
        categories=np.array([category for _, category in clicks], np.int32),
        times=np.array([time for time, _ in clicks], np.int64),
        search_offsets=np.zeros(len(rows) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )
    return Evaluation.of(histories, evaluation.taxonomy, CUT, UNTIL)


def said_to(evaluation: Evaluation, name: str, users: range) -> Said:
    everybody = says(evaluation, name)
    told = [interests if user in users else [] for user, interests in enumerate(everybody.interests)]
    return replace(everybody, interests=told)


def own(evaluation: Evaluation, said: Said) -> Row:
    baselines = {POPULAR_UNSEEN: judge_interests(evaluation, popular_unseen(evaluation, evaluation.users))}
    return row_of([judge_interests(evaluation, said)], baselines, np.random.default_rng(0))


def test_what_is_said_to_everybody_is_nobodys_own_however_often_it_hits(halves: Evaluation) -> None:
    row = own(halves, says(halves, "tea", "bread"))
    assert row.hit == pytest.approx(1 / PLACES)
    assert row.own == pytest.approx(0)
    assert not row.passes
    popular = own(halves, popular_unseen(halves, halves.users))
    # Not by what happens here, but by what is judged.
    assert (popular.gain.value, popular.passes) == (0, False)


def test_what_is_said_to_those_who_turn_to_it_is_their_own_and_to_the_others_wrong(halves: Evaluation) -> None:
    right, wrong = (
        own(halves, said_to(halves, "tea", range(1, 40, 2))),
        own(halves, said_to(halves, "tea", range(0, 40, 2))),
    )
    assert right.passes
    assert not wrong.passes
    # Half of the users are told one of ten; of the other three of a group of four one or two turn to it.
    assert right.own > 0.02
    assert wrong.own < -0.02


def test_users_are_compared_with_those_who_click_as_much(halves: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = said_to(halves, "bread", range(20))
    assert own(halves, quiet).own == pytest.approx(0)
    monkeypatch.setattr(judging, "ACTIVITY_GROUPS", 1)
    assert own(replace(halves), quiet).passes


def test_samples_of_seeds_are_disjoint_and_of_one_size(evaluation: Evaluation) -> None:
    samples = evaluation.samples([4, 5, 6], 7)
    assert [len(users) for users in samples.values()] == [7, 7, 7]
    assert len(np.unique(np.concatenate(list(samples.values())))) == 21
    assert [len(users) for users in evaluation.samples([4, 5, 6], 99).values()] == [10, 10, 10]


def test_a_language_models_row_is_compared_on_its_own_users(evaluation: Evaluation, tmp_path: Path) -> None:
    taxonomy = evaluation.taxonomy
    clock = iter(range(100)).__next__
    runs = []
    for seed, users in evaluation.samples([0, 1], 8).items():
        reasoner = LlmReasoner(
            Shopkeeper(),
            make_grounder(taxonomy),
            taxonomy.categories,
            (),
            TwoHop(),
            debate=DebateConfig(agents=2, rounds=2),
        )
        runs.append(judge_interests(evaluation, run_reasoner(evaluation, "two-hop", reasoner, users, seed, clock)))
    baselines = {POPULAR_UNSEEN: judge_interests(evaluation, popular_unseen(evaluation, evaluation.users))}
    row = row_of(runs, baselines, np.random.default_rng(0))
    assert (row.users, row.seeds) == (16, (0, 1))
    assert row.parse_rate == 1.0
    assert row.grounded_share is not None
    assert row.kept_share is not None
    assert 0 < row.kept_share <= row.grounded_share < 1
    users = np.concatenate([run.said.users for run in runs])
    hit = np.concatenate([run.hit for run in runs])
    assert row.against[POPULAR_UNSEEN].value == pytest.approx((hit - baselines[POPULAR_UNSEEN].hit[users]).mean())
    assert row.cost is not None
    assert (row.cost.users, row.seconds) == (16, 2)
    assert row.cost.calls > 16 * 2 * 2
    popular = row_of([baselines[POPULAR_UNSEEN]], baselines, np.random.default_rng(0))
    assert popular.against == {}
    assert popular.parse_rate is None
    threshold = ThresholdReport(0.6, 0.9, 0.8, 0.85, True, {"name": 0.8}, {"name": 10})
    conditions = Conditions("shop", "`python -m benchmarks.interests`", CUT, UNTIL, 30, 0.7)
    write_interests_report([popular, row], threshold, conditions, tmp_path)
    page = (tmp_path / "interests.md").read_text(encoding="utf-8")
    assert page == markdown([popular, row], threshold, conditions)
    assert "| two-hop | 16 |" in page
    assert len(json.loads((tmp_path / "interests.json").read_text(encoding="utf-8"))["rows"]) == 2


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(300)
    difference = bootstrap_difference(base + 0.05 + 0.01 * rng.random(300), base, rng)
    assert difference.low > 0.05
    assert difference.high < 0.06
    with pytest.raises(ValueError, match="found 2 and 1 users"):
        bootstrap_difference(np.zeros(2), np.zeros(1), rng)


def returning(taxonomy: Taxonomy, *, come_back: bool) -> Histories:
    """Every user clicks saws long ago, then 200 times coffee; others make bread popular. Later they return to saws, or
    take bread."""
    coffee, bread, saws = (taxonomy.categories.index(name) + 1 for name in ("coffee", "bread", "saws"))
    later = saws if come_back else bread
    rows = [[(1, saws), *((2 + i, coffee) for i in range(200)), (START + 5, later), (CUT + 5, later)]] * 6
    rows += [[(START - 9 + i, bread)] for i in range(8)]
    clicks = [click for row in rows for click in row]
    return Histories(
        user_ids=[f"u{user:02d}" for user in range(len(rows))],
        profiles=[{} for _ in rows],
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        items=np.zeros(len(clicks), np.int64),
        categories=np.array([category for _, category in clicks], np.int32),
        times=np.array([time for time, _ in clicks], np.int64),
        search_offsets=np.zeros(len(rows) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


@pytest.mark.parametrize(("come_back", "expected"), [(True, "saws"), (False, "bread")])
def test_what_was_clicked_long_ago_counts_as_far_as_validation_says(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, *, come_back: bool, expected: str
) -> None:
    monkeypatch.setattr(judging, "K", 1)  # the shop has few categories: ten places would hold them all
    histories = returning(evaluation.taxonomy, come_back=come_back)
    judged = Evaluation.of(histories, evaluation.taxonomy, CUT, UNTIL)
    users = np.arange(6, dtype=np.int64)
    names = {node.node_id: node.name for node in evaluation.taxonomy.nodes}

    def first(weight: float) -> str:
        return names[popular_or_own(replace(judged, cut=START), users, weight).interests[0][0].node_id]

    assert (first(OWN_WEIGHTS[0]), first(5.0)) == ("bread", "saws")
    assert first(choose_own_weight(judged, START)) == expected
