"""Controls rank exposures by what came before a moment, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.exposures.controls import CLICK_RATE, CONTROLS, Known, choose
from benchmarks.exposures.kuairand import write_kuairand
from benchmarks.exposures.log import ExposureLog
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, before
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.exposures_slice import FROM, write_tiny_slice

CUT = FROM + 2

World = tuple[Histories, Catalogue, ExposureLog]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("controls")
    host, logs = directory / "host", directory / "logs"
    write_kuairand(write_tiny_slice(directory / "slice"), host)
    build_logs(host, logs, LogsConfig(), now=FROM + 86_400)
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    return histories, catalogue, ExposureLog.read(host, histories, catalogue)


def known_at(world: World, cut: int) -> Known:
    return Known.before(*world, cut, cut + 86_400)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_what_comes_later_changes_no_score(world: World, control: object) -> None:
    histories, catalogue, log = world
    later = known_at(world, CUT)
    past = Known.before(before(histories, CUT), catalogue, log.take(log.times < CUT), CUT, CUT + 86_400)
    control = next(each for each in CONTROLS if each is control)
    for parameters in (control.tried[0], control.tried[-1]):
        np.testing.assert_allclose(control.fit(later, parameters)(log), control.fit(past, parameters)(log), rtol=1e-4)


def test_popularity_counts_users_and_items_never_clicked_come_last(world: World) -> None:
    _, catalogue, log = world
    known = known_at(world, CUT)
    rows = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    # 10 and 11 were watched by two users, 12 by one who clicked it again.
    assert [known.users[rows[item]] for item in ("10", "11", "12", "13")] == [2, 2, 1, 0]
    assert [known.week_users[rows[item]] for item in ("10", "11", "12", "14")] == [0, 1, 1, 1]
    neighbours = next(control for control in CONTROLS if control.name == "item-kNN")
    scores = neighbours.fit(known, neighbours.tried[0])(log)
    assert np.isneginf(scores[log.rows == rows["13"]]).all()
    assert np.isfinite(scores[log.rows == rows["12"]]).all()


def test_the_click_rate_of_an_item_is_of_its_exposures_before_the_cut(world: World) -> None:
    _, catalogue, log = world
    control = next(control for control in CONTROLS if control.name == CLICK_RATE)
    scores = control.fit(known_at(world, FROM + 95), {"prior": 1.0})(log)
    row = catalogue.item_ids.index("14")
    # Shown twice and clicked once, among five exposures of which three were clicked.
    assert scores[log.rows == row] == pytest.approx((1 + 3 / 5) / (2 + 1))


def test_the_parameters_that_order_most_pairs_are_chosen(world: World) -> None:
    _, _, log = world
    control = next(control for control in CONTROLS if control.name == "popularity")
    rates = {0.0: np.where(log.clicked, 0.0, 1.0), 1.0: np.where(log.clicked, 1.0, 0.0)}
    tried = replace(control, tried=[{"p": 0.0}, {"p": 1.0}], fit=lambda _, chosen: lambda _: rates[chosen["p"]])
    chosen = choose(tried, known_at(world, CUT), log)
    assert (chosen.parameters, chosen.validation) == ({"p": 1.0}, 1.0)
