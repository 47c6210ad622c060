"""Commands with a subject: `serendip evaluate channel`, `serendip evaluate towers` …"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module


def add_subjects(parser: argparse.ArgumentParser, subjects: Mapping[str, str]) -> None:
    """Declare a sub-command per subject; the one chosen is run by `args.run_subject(args)`.

    subjects: name → module with add_arguments(parser) and run(args), whose docstring describes it.
    """
    choices = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name, module in subjects.items():
        subject = import_module(module)
        below = choices.add_parser(
            name, help=(subject.__doc__ or "").splitlines()[0], description=subject.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        subject.add_arguments(below)
        below.set_defaults(run_subject=subject.run)
