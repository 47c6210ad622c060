"""Measure what was built on time it has not seen.

    serendip evaluate channel --dataset complete-journey            the real pipeline over the held-out period
    serendip evaluate channel --dataset complete-journey --target 127.0.0.1:50051      the same over gRPC
    serendip evaluate towers  --dataset ml-1m --seeds 0 1 2         towers against popularity, ALS and BPR
    serendip evaluate interests --dataset complete-journey          interests against popular unseen categories

The protocol: clicks are cut by time into 80 / 10 / 10 %; choices are made on the second part, figures come from the
third, every method refitted on the first 90 %.
"""

from __future__ import annotations

import argparse

from serendipity.tools.subjects import add_subjects

SUBJECTS = {
    "channel": "serendipity.tools.evaluate_channel",
    "interests": "serendipity.tools.evaluate_interests",
    "towers": "serendipity.tools.evaluate_towers",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate`."""
    add_subjects(parser, SUBJECTS)


def run(args: argparse.Namespace) -> int:
    """Evaluate the subject chosen."""
    return int(args.run_subject(args))
