from dataclasses import replace

import numpy as np
import pytest

from serendipity.features import INPUT_NAMES, TowerInputs
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.towers.factors import item_factors
from serendipity.offline.towers.interests import NO_NODE, ReasonedInterests
from serendipity.offline.towers.rows import Moment, RowsBuilder, TrainingRows
from tests.offline.towers.conftest import World


def rows_from(world: World, histories: Histories, time: int, until: int) -> TrainingRows:
    interests_at = ReasonedInterests(histories, Taxonomy.from_catalogue(world.catalogue))
    builder = RowsBuilder(histories, world.catalogue, world.prepared.builder.assembler, world.nodes, interests_at)
    (factors,) = item_factors(histories, len(world.catalogue), [time], world.config.factors, seed=0)
    return builder.rows(factors, until)


def assert_same_moment(first: Moment, second: Moment) -> None:
    np.testing.assert_array_equal(first.users, second.users)
    for name in INPUT_NAMES:
        np.testing.assert_array_equal(getattr(first.inputs, name), getattr(second.inputs, name), err_msg=name)
    np.testing.assert_array_equal(first.nodes, second.nodes)
    np.testing.assert_array_equal(first.clicked, second.clicked)
    np.testing.assert_array_equal(first.seen_rows, second.seen_rows)
    np.testing.assert_array_equal(first.items.statistics, second.items.statistics)
    np.testing.assert_array_equal(first.items.factors.clicked, second.items.factors.clicked)
    np.testing.assert_array_equal(first.items.factors.own, second.items.factors.own)


def test_nothing_after_the_cut_changes_a_feature(world: World) -> None:
    rows = world.prepared.fit[0]
    time, until = rows.moment.time, rows.until
    histories = world.histories
    rng = np.random.default_rng(3)
    # Labels keep their users and times, so that the same rows come out; everything else about them is scrambled.
    later = histories.times >= time
    items = histories.items.copy()
    items[later] = rng.integers(1, len(world.catalogue) + 1, later.sum())
    categories = histories.categories.copy()
    categories[later] = world.catalogue.item_categories[items[later] - 1]
    changed = rows_from(world, replace(histories, items=items, categories=categories), time, until)
    original = rows_from(world, histories, time, until)
    common = np.intersect1d(original.moment.users, changed.moment.users)
    assert len(common) > 20
    builder = RowsBuilder(histories, world.catalogue, world.prepared.builder.assembler, world.nodes, world.interests_at)
    assert_same_moment(
        builder.moment(original.moment.items.factors, common), builder.moment(changed.moment.items.factors, common)
    )
    assert not np.array_equal(original.rows, changed.rows)


def test_rows_are_what_serving_assembles(world: World) -> None:
    moment = world.prepared.fit[-1].moment
    assembler = world.prepared.builder.assembler
    taxonomy = Taxonomy.from_catalogue(world.catalogue)
    reasoner = fit_reasoner(taxonomy, world.histories, world.prepared.fit[0].moment.time)
    users = moment.users.tolist()
    found = reasoner.reason(contexts_at(world.histories, moment.time, users), assembler.max_interests)
    served = [
        assembler.assemble(
            world.histories.clicks_before(user, moment.time),
            world.histories.long_history_before(user, moment.time),
            assembler.encode_profile(world.histories.profiles[user]),
            world.nodes.vectors[[interest.node_id for interest in interests]],
            moment.time,
        )
        for user, interests in zip(users, found, strict=True)
    ]
    expected = TowerInputs.stack(served)
    trained = moment.take(np.arange(len(moment)), world.nodes.vectors)
    for name in INPUT_NAMES:
        assert getattr(trained, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(trained, name), getattr(expected, name), err_msg=name)


def test_positives_are_the_items_new_to_the_user_within_the_window(world: World) -> None:
    rows = world.prepared.fit[0]
    histories = world.histories
    for row, user in enumerate(rows.moment.users.tolist()):
        of_user = slice(histories.offsets[user], histories.offsets[user + 1])
        items, times = histories.items[of_user] - 1, histories.times[of_user]
        before = set(items[times < rows.moment.time].tolist())
        within = set(items[(times >= rows.moment.time) & (times < rows.until)].tolist())
        positives = rows.rows[rows.offsets[row] : rows.offsets[row + 1]]
        assert before
        assert set(positives.tolist()) == within - before
        assert len(positives) == len(within - before) > 0


def test_a_positive_takes_the_first_interest_that_holds_it_else_none(world: World) -> None:
    rows = world.prepared.fit[0]
    taxonomy = Taxonomy.from_catalogue(world.catalogue)
    slots = set()
    for row in range(len(rows.moment)):
        nodes = rows.moment.nodes[row]
        for place in range(rows.offsets[row], rows.offsets[row + 1]):
            item = int(rows.rows[place])
            holding = [
                slot + 1
                for slot, node in enumerate(nodes.tolist())
                if node != NO_NODE and any(start <= item < end for start, end in taxonomy.nodes[node].ranges)
            ]
            assert rows.slots[place] == (holding[0] if holding else 0)
            slots.add(int(rows.slots[place]))
    assert slots >= {0, 1}


def test_novel_positives_are_outside_the_clicked_categories(world: World) -> None:
    rows = world.prepared.fit[0]
    row = np.repeat(np.arange(len(rows.moment)), np.diff(rows.offsets))
    categories = world.catalogue.item_categories[rows.rows]
    np.testing.assert_array_equal(rows.novel, ~rows.moment.clicked[row, categories])
    assert 0 < rows.novel.sum() < len(rows.novel)


def test_factors_need_a_click_before_the_moment(world: World) -> None:
    with pytest.raises(LogsError, match="no clicks before 5"):
        next(item_factors(world.histories, len(world.catalogue), [5], world.config.factors, seed=0))
