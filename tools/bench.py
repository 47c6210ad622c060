"""Measure speed: ratios within one run, since the milliseconds belong to the machine and the moment.

serendip bench channel --dataset complete-journey       Recall against its floor, category search against ANN
serendip bench interest-gpt --build var/complete-journey --launch      users refreshed a second, machines for 10 M
serendip bench coevolution --build var/complete-journey --launch       missing novel-category lists filled a second
"""

from __future__ import annotations

import argparse

from serendipity.tools.subjects import add_subjects

SUBJECTS = {
    "channel": "serendipity.tools.bench_channel",
    "interest-gpt": "serendipity.tools.bench_interest_gpt",
    "coevolution": "serendipity.tools.bench_coevolution",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip bench`."""
    add_subjects(parser, SUBJECTS)


def run(args: argparse.Namespace) -> int:
    """Measure the subject chosen."""
    return int(args.run_subject(args))
