"""The closed loop in memory and on disk: it learns, resumes wherever it was killed, and makes lists that keep rules."""

from __future__ import annotations

import shutil
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


class Killed(Exception):
    """Stands for the end of the process."""


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
def uninterrupted(start: Coevolution) -> Llms:
    return _loop(start).run(start.llms, 2)


@pytest.mark.parametrize(("cycle", "name"), [(1, "novelty"), (2, "relevance"), (2, "placing")])
def test_killed_at_any_stage_it_comes_to_the_same(
    cycle: int, name: str, start: Coevolution, uninterrupted: Llms, tmp_path: Path
) -> None:
    def kill(at: int, stage: str) -> None:
        if (at, stage) == (cycle, name):
            raise Killed

    with pytest.raises(Killed):
        _loop(start).run(start.llms, 2, tmp_path, stage=kill)
    stages: list[tuple[int, str]] = []
    llms = _loop(start).run(start.llms, 2, tmp_path, stage=lambda *stage: stages.append(stage))

    assert _same(llms, uninterrupted)
    assert stages[0] == (cycle, "records")


def test_a_finished_run_is_read_again_and_can_be_gone_on_with(start: Coevolution, tmp_path: Path) -> None:
    first = _loop(start).run(start.llms, 1, tmp_path)
    again = _loop(start).run(start.llms, 1, tmp_path, stage=lambda *_: pytest.fail("nothing was to be done"))
    assert _same(first, again)
    run: list[int] = []
    _loop(start).run(start.llms, 3, tmp_path, on_cycle=lambda _, cycle: run.append(cycle))
    assert run == [2, 3]
    kept = sorted(path.parent.name for path in tmp_path.glob("*/novelty"))
    assert kept == ["cycle_0003"]


@pytest.mark.parametrize("damage", ["truncated weights", "empty configuration", "missing categories", "nothing in it"])
def test_a_cycle_whose_files_are_not_all_there_is_passed_over_and_run_again(
    damage: str, start: Coevolution, uninterrupted: Llms, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _loop(start).run(start.llms, 2, tmp_path)
    novelty = tmp_path / "cycle_0002" / "novelty"
    if damage == "truncated weights":
        weights = novelty / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "empty configuration":
        (novelty / "config.json").write_bytes(b"")
    elif damage == "missing categories":
        (novelty / "categories.json").unlink()
    else:
        shutil.rmtree(tmp_path / "cycle_0002")
        (tmp_path / "cycle_0002").mkdir()
    run: list[int] = []
    llms = _loop(start).run(start.llms, 2, tmp_path, on_cycle=lambda _, cycle: run.append(cycle))
    assert run == [1, 2]
    assert _same(llms, uninterrupted)
    assert "cycle_0002: incomplete (" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["cycle_0002"]


def test_a_run_that_went_further_than_is_asked_for_begins_anew(
    start: Coevolution, uninterrupted: Llms, tmp_path: Path
) -> None:
    _loop(start).run(start.llms, 3, tmp_path)
    run: list[int] = []
    llms = _loop(start).run(start.llms, 2, tmp_path, on_cycle=lambda _, cycle: run.append(cycle))
    assert run == [1, 2]
    assert _same(llms, uninterrupted)


def test_cycles_change_both_llms_and_leave_the_start_as_it_was(start: Coevolution, uninterrupted: Llms) -> None:
    assert not _same(start.llms, uninterrupted)
    before = [weight.detach().clone() for weight in _weights(start.llms)]
    _loop(start).run(start.llms, 1)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(before, _weights(start.llms), strict=True))
    for name in ("novelty", "relevance"):
        ours, theirs = getattr(start, name).base.model, getattr(uninterrupted, name).base.model
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
