"""The closed loop: it learns, and makes lists that keep rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serendipity.keys import novel_category_key
from serendipity.offline.coevolution import coevolution
from serendipity.offline.coevolution.coevolution import Coevolution, tune_llms, validation_pairs
from serendipity.offline.coevolution.cycle import Llms
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.lists import choose_lists, make_lists, read_lists, write_lists
from serendipity.offline.coevolution.loop import Loop
from serendipity.offline.coevolution.preferences import Candidate, preferences
from serendipity.offline.coevolution.records import InteractionRecords
from tests.offline.coevolution.closed_loop_world import CATEGORIES, TwoGroups, catalogue, config, histories


@pytest.fixture(scope="module")
def start() -> Coevolution:
    settings, found, groups = config(), histories(), TwoGroups()
    click_groups, names = groups.click_groups(found), catalogue().categories
    renderer = Renderer(groups.profiles, names, settings.style)
    held_out = validation_pairs(found, click_groups, len(names), settings)
    return tune_llms(found, click_groups, renderer, held_out, settings)


def _loop(start: Coevolution) -> Loop:
    settings, found = config(), histories()
    groups = TwoGroups().click_groups(found)
    return Loop(InteractionRecords.of(found, groups, settings.examples), start.renderer, settings)


def _weights(llms: Llms) -> list[torch.Tensor]:
    return [*llms.novelty.base.model.parameters(), *llms.relevance.base.model.parameters()]


def _same(one: Llms, other: Llms) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(_weights(one), _weights(other), strict=True))


@pytest.fixture(scope="module")
def after_two_cycles(start: Coevolution) -> Llms:
    return _loop(start).run(start.llms, 2)


def test_cycles_gone_on_with_come_to_the_same(start: Coevolution, after_two_cycles: Llms) -> None:
    stages: list[tuple[int, str]] = []
    first = _loop(start).run(start.llms, 1)
    second = replace(_loop(start), first=1).run(first, 1, stage=lambda *stage: stages.append(stage))
    assert _same(second, after_two_cycles)
    assert stages[0] == (2, "records")


def test_cycles_change_both_llms_and_leave_the_start_as_it_was(start: Coevolution, after_two_cycles: Llms) -> None:
    assert not _same(start.llms, after_two_cycles)
    before = [weight.detach().clone() for weight in _weights(start.llms)]
    _loop(start).run(start.llms, 1)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(before, _weights(start.llms), strict=True))
    for name in ("novelty", "relevance"):
        ours, theirs = getattr(start, name).base.model, getattr(after_two_cycles, name).base.model
        assert any(not torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_lists_keep_the_threshold_the_order_and_leave_out_what_was_told(start: Coevolution) -> None:
    told = [(0, ()), (1, (2,)), (2, (5, 6, 7)), (1, (2,))]
    lists = start.lists([group for group, _ in told], [recent for _, recent in told])
    assert lists[1] == lists[3]
    assert any(lists)
    for (_, recent), made in zip(told, lists, strict=True):
        names = [aligned.category for aligned in made]
        assert not set(names) & {CATEGORIES[number - 1] for number in recent}
        assert len(set(names)) == len(names) <= start.num_candidates
        values = [aligned.alignment for aligned in made]
        assert values == sorted(values, reverse=True)
        assert all(value >= start.threshold for value in values)


def test_lists_do_not_depend_on_how_many_are_asked_for_at_once(
    start: Coevolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [(group, recent) for group in (2, 0, 1) for recent in ((), (3,), (3, 1), (2, 4, 5))]
    asked = [group for group, _ in told], [recent for _, recent in told]
    at_once = start.lists(*asked)
    monkeypatch.setattr(coevolution, "_ASKED_AT_ONCE", 5)
    in_parts = start.lists(*asked)
    assert [[found.category for found in row] for row in in_parts] == [
        [found.category for found in row] for row in at_once
    ]
    for part, whole in zip(in_parts, at_once, strict=True):
        assert [found.alignment for found in part] == pytest.approx([found.alignment for found in whole], abs=1e-5)


def test_lists_are_made_for_every_back_off_of_users_and_for_every_group(start: Coevolution, tmp_path: Path) -> None:
    found = histories()
    groups = (np.arange(len(found)) % 2 + 1).astype(np.int32)
    told = choose_lists(found, groups, 2, common_categories=8)
    write_lists(tmp_path, make_lists(start, "model", told))
    stored = {made.key: made for made in read_lists(tmp_path)}

    keys = {novel_category_key("model", group, start.renderer.names(recent)) for group, recent in told}
    assert len(keys) == len(told)
    assert set(stored) <= keys
    assert {len(recent) for _, recent in told} == {0, 1, 2, 3}
    assert {group for group, recent in told if not recent} == {0, 1, 2}
    assert sum(len(recent) == 1 for _, recent in told) == 3 * 8
    for made in stored.values():
        assert made.key == novel_category_key("model", made.group_id, made.told)
        assert not {aligned.category for aligned in made.categories} & set(made.told)
        assert all(start.threshold <= aligned.alignment <= 1 for aligned in made.categories)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=6))
def test_the_best_scored_is_preferred_to_one_of_less_and_never_to_an_equal(scores: list[float]) -> None:
    candidates = {(0, ()): [Candidate(number, -1.0, score) for number, score in enumerate(scores, 1)]}
    pairs = preferences([(0, ())], candidates, np.random.default_rng(3))
    assert len(pairs) == (1 if len(set(scores)) > 1 else 0)
    assert all(scores[pair.rejected - 1] < scores[pair.chosen - 1] == max(scores) for pair in pairs)


def test_what_is_rejected_is_drawn_as_the_novelty_llm_would_answer() -> None:
    likely = {2: 0.6, 3: 0.3, 4: 0.1}
    candidates = {(0, ()): [Candidate(1, -9.0, 5.0), *(Candidate(n, float(np.log(p)), -n) for n, p in likely.items())]}
    pairs = preferences([(0, ())] * 4_000, candidates, np.random.default_rng(5))
    assert {pair.chosen for pair in pairs} == {1}
    shares = np.bincount([pair.rejected for pair in pairs])[2:] / len(pairs)
    np.testing.assert_allclose(shares, list(likely.values()), atol=0.03)
