import json
from collections.abc import Callable
from pathlib import Path

import pytest

from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.sufficiency import Wanted
from serendipity.offline.logs.survey import survey

NOW = 1_500_000_000
DAY = 86_400
WANTED = Wanted(
    asked=10, fill=0.5, empty=0.01, item_users=3, learned=(0.1, 0.9), history=5, groups=1, positives=3, days=4
)


def test_a_survey_tells_what_is_there_and_which_level_would_serve(
    write_host: Callable[..., Path], tmp_path: Path
) -> None:
    items = [(f"i{n}", ("all", f"c{n % 8}", f"i{n}")) for n in range(80)]
    # Every day another category, so that each later click is in a new one at level 1.
    events = [(f"u{user}", f"i{day}", "click", NOW - (10 - day) * DAY) for user in range(4) for day in range(6)]
    events += [("u0", "i0", "exposure", NOW), ("u0", None, "search", NOW, "tea"), ("u0", "nowhere", "click", NOW)]
    found = survey(write_host(items=items, events=events), LogsConfig(novelty_level=1), WANTED, NOW)
    assert (found.users, found.clicks, found.items, found.clicked) == (4, 6, 80, 6)
    assert (found.since, found.until, found.longest_gap) == (NOW - 10 * DAY, NOW, 5 * DAY)
    assert found.events == {"clicks": 24, "signals": 0, "searches": 1, "exposures": 1}
    assert found.rejected == {"events/unknown_item": 1}
    assert json.loads(found.examples["events/unknown_item"][0])["item_id"] == "nowhere"
    assert [facts.room.categories for facts in found.levels] == [1, 8, 80]
    assert [facts.serves for facts in found.levels] == [False, True, True]
    assert found.levels[1].touched == pytest.approx(6)
    assert (found.recommended, found.problems) == (1, [])
    assert found.gaps == [("2017-07-10", "2017-07-14")]
    assert found.advice == [
        "time: no event from 2017-07-10 to 2017-07-14: what is learned before a gap is judged behind it"
    ]
    outlooks = {prospect.part: prospect.outlook for prospect in found.prospects}
    assert outlooks == {
        "collaborative": "yes",
        "interest": "yes",
        "group": "little",
        "graph": "yes",
        "merge model": "little",
        "InterestGPT": "yes",
    }
    assert found.cost.minutes > 0
    assert json.loads(found.to_json())["recommended_level"] == 1


def test_a_survey_of_nothing_says_so(write_host: Callable[..., Path]) -> None:
    found = survey(write_host(items=[]), LogsConfig(), WANTED, NOW)
    assert (found.users, found.items, found.levels, found.recommended) == (0, 0, [], None)
    assert len(found.problems) == 6
    assert len(found.advice) == 2
