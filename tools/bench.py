"""Measure speed: ratios within one run, since the milliseconds belong to the machine and the moment.

serendip bench channel --dataset complete-journey       Recall against its floor, category search against ANN
"""

from __future__ import annotations

import argparse

from serendipity.tools.subjects import add_subjects

SUBJECTS = {
    "channel": "serendipity.tools.bench_channel",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip bench`."""
    add_subjects(parser, SUBJECTS)


def run(args: argparse.Namespace) -> int:
    """Measure the subject chosen."""
    return int(args.run_subject(args))
