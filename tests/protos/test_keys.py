"""Keys of novel-category lists."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.keys import back_off_keys, novel_category_key

NAMES = st.lists(st.text(max_size=20), max_size=6)


def test_the_key_is_the_same_in_every_process_and_release() -> None:
    expected = "026731000000072668564bfa0e1d36"
    code = "from serendipity.keys import novel_category_key as k; print(k('g1', 7, ['TEA', 'BREAD']).hex())"
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert run.stdout.strip() == novel_category_key("g1", 7, ["BREAD", "TEA"]).hex() == expected


@given(NAMES)
def test_order_and_repetition_do_not_matter(names: list[str]) -> None:
    assert novel_category_key("g", 1, names) == novel_category_key("g", 1, [*reversed(names), *names])


def test_names_are_not_confused_by_where_they_are_cut() -> None:
    assert novel_category_key("g", 1, ["AB", "C"]) != novel_category_key("g", 1, ["A", "BC"])


def test_back_off_goes_from_the_three_latest_categories_to_none() -> None:
    keys = list(back_off_keys("g", 1, ["A", "B", "C", "D"]))
    assert [m for m, _ in keys] == [3, 2, 1, 0]
    assert keys[1][1] == novel_category_key("g", 1, ["B", "A"])


def test_a_short_history_starts_the_back_off_lower() -> None:
    assert [m for m, _ in back_off_keys("g", 1, ["A"])] == [1, 0]


def test_a_group_id_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="group_id: found -1"):
        novel_category_key("g", -1, [])
