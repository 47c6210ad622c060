import io

from rich.console import Console

from serendipity.offline.progress import BuildDisplay
from serendipity.offline.workers import Bar


def test_without_a_terminal_a_long_step_says_once_a_minute_how_far_it_is_and_what_is_left() -> None:
    written, now = io.StringIO(), [0.0]
    display = BuildDisplay(Console(file=written, width=120), 3, clock=lambda: now[0])
    display.started("towers")
    for second in range(0, 130, 10):
        now[0] = float(second)
        display.progressed("towers", Bar("epochs", second, 240))
    display.progressed("towers", Bar("rows", 5, None))
    assert written.getvalue().splitlines() == [
        "[1/3] towers …",
        "towers: epochs 60 of 240, 0:03:00 left",
        "towers: epochs 120 of 240, 0:02:00 left",
    ]
