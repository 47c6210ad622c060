"""Measure what was built on time it has not seen.

    serendip evaluate channel --dataset complete-journey            the channel, its sources and tuned controls
    serendip evaluate interests --dataset complete-journey          interests against popularity and re-entry

The protocol: clicks are cut by time into 80 / 10 / 10 %; choices are made on the second part, figures come from the
third, every method refitted on the first 90 %.
"""

from __future__ import annotations

import argparse
from importlib import import_module

SUBJECTS = {
    "channel": "serendipity.tools.evaluate_channel",
    "interests": "serendipity.tools.evaluate_interests",
}
"""Subject → module with add_arguments(parser) and run(args), whose docstring describes it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate`."""
    choices = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name, module in SUBJECTS.items():
        subject = import_module(module)
        below = choices.add_parser(name, help=(subject.__doc__ or "").splitlines()[0], description=subject.__doc__)
        subject.add_arguments(below)
        below.set_defaults(run_subject=subject.run)


def run(args: argparse.Namespace) -> int:
    """Evaluate the subject chosen."""
    return int(args.run_subject(args))
