"""Refuses to build where the links in protos/serendipity are no links: what is built would lack most of the package."""

import sys
from pathlib import Path

from setuptools import setup

for room in ("channel", "model_repo", "offline", "tools"):
    if not (Path("protos/serendipity") / room).is_dir():
        sys.exit(
            f"protos/serendipity/{room}: found no directory, expected a link to {room}/: check out with symbolic links "
            "(git config core.symlinks true && git checkout -- protos/serendipity), then build again"
        )

setup()
