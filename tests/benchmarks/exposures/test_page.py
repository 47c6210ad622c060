"""The page says who ranks best, and whether the target is met."""

from __future__ import annotations

import numpy as np

from benchmarks.exposures.metrics import METRICS, Resamples
from benchmarks.exposures.page import CHANNEL, Ranked, log_section, metrics_section, novel_section, target
from tests.fixtures.exposures_slice import log_of

USERS = np.repeat(np.arange(40), 10)
CLICKED = np.random.default_rng(3).random(len(USERS)) < 0.4
LOG = log_of(USERS, clicked=CLICKED)
RESAMPLES = Resamples(40, seed=0, samples=100)
RIGHT, WRONG = CLICKED.astype(float), -CLICKED.astype(float)


def test_the_target_is_a_click_rate_above_every_controls() -> None:
    ranked = Ranked(LOG, {"popularity": WRONG, "better": RIGHT, CHANNEL: RIGHT})
    assert target(ranked, ["popularity"], RESAMPLES).startswith("**met**: 1.000 against 0.0")
    assert target(ranked, ["popularity", "better"], RESAMPLES).startswith(
        "**not met**: 1.000 against 1.000 of the best, better"
    )
    turned = Ranked(LOG, {"popularity": RIGHT, CHANNEL: WRONG})
    assert target(turned, ["popularity"], RESAMPLES).startswith("**not met**")


def test_a_small_lead_is_said_to_be_chance() -> None:
    other = RIGHT.copy()
    # One user's first is another exposure, which was not clicked.
    other[np.flatnonzero(~CLICKED[:10])[0]] = 2.0
    ranked = Ranked(LOG, {"popularity": other, CHANNEL: RIGHT})
    assert target(ranked, ["popularity"], RESAMPLES).startswith("**met by a gap that may be chance**")


def test_differences_to_the_channel_are_shown() -> None:
    text = novel_section(Ranked(LOG, {"popularity": WRONG, CHANNEL: RIGHT}), RESAMPLES)
    assert "400 exposures of 40 users" in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "+1.000" in rows["popularity"]
    assert "–" in rows[f"**{CHANNEL}**"]


def test_every_metric_is_shown_of_what_was_exposed_and_of_what_is_ranked_first() -> None:
    shown = log_section({"a week": LOG}, RESAMPLES)
    ranked = metrics_section(Ranked(LOG, {CHANNEL: RIGHT}), "tenth", RESAMPLES)
    assert all(metric in text for text in (shown, ranked) for metric in METRICS)
    # One of each user's ten; all of them were clicked.
    line = ranked.splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")][1:3] == [f"**{CHANNEL}**", "40"]
    assert "1.000 (1.000 to 1.000)" in line
