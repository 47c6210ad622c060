"""Types of command-line options, for argparse."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Read a whole number of at least one. Raises argparse.ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return number
