"""Types of command-line options, for argparse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from serendipity.channel.client.credentials import Credentials
from serendipity.ids import id_fault


def natural(text: str, least: int = 0) -> int:
    """Read a whole number of at least zero. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least {least}")
    return int(text)


def positive(text: str) -> int:
    """Read a whole number of at least one. Raises argparse.ArgumentTypeError."""
    return natural(text, 1)


def share(text: str) -> float:
    """Read a number between 0 and 1, both excluded. Raises argparse.ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a share above 0 and below 1")
    return number


def existing_directory(text: str) -> Path:
    """Read the path of a directory that is there. Raises argparse.ArgumentTypeError."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: no such directory")
    return path


def add_build(parser: argparse._ActionsContainer, help: str = "build directory", **options: Any) -> None:
    """Declare --build, a directory that is there."""
    parser.add_argument("--build", type=existing_directory, metavar="DIR", help=help, **options)


def existing_file(text: str) -> Path:
    """Read the path of a file that is there. Raises argparse.ArgumentTypeError."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{path}: no such file")
    return path


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Declare what `read_credentials` takes."""
    group = parser.add_argument_group("credentials, where the service asks for them (PEM)")
    file: dict[str, Any] = {"type": existing_file, "metavar": "FILE"}
    group.add_argument("--ca", **file, help="certificates that the service's is signed by; without it in plain text")
    group.add_argument("--certificate", **file, help="certificate of the caller")
    group.add_argument("--key", **file, help="its private key")
    group.add_argument("--token", **file, help="file that holds the caller's token")


def read_credentials(ca: Path | None, certificate: Path | None, key: Path | None, token: Path | None) -> Credentials:
    """Make the credentials that files hold. Raises SystemExit for those that cannot be read or do not go together."""
    try:
        for file in (ca, certificate, key):
            if file:
                file.open("rb").close()
        read = token.read_text(encoding="ascii").strip() if token else ""
        if token and not read:
            raise ValueError(f"{token}: found nothing, expected a token")
        return Credentials(ca, certificate, key, read)
    except (OSError, ValueError) as error:
        raise SystemExit(f"credentials: {error}") from error


def new_directory(text: str) -> Path:
    """Read the path of a directory that is there or can be made. Raises argparse.ArgumentTypeError."""
    path = Path(text)
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise argparse.ArgumentTypeError(f"{part}: found a file, expected a directory")
    return path


def identifier(text: str) -> str:
    """Read the id of a user or an item, or the name of a category. Raises argparse.ArgumentTypeError."""
    if fault := id_fault(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def item_ids(text: str) -> list[str]:
    """Read a file of item ids, one a line. Raises argparse.ArgumentTypeError."""
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text}: cannot be read ({error}); expected item ids, one a line") from error
    ids = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            ids.append(line.removesuffix("\r"))
            if fault := id_fault(ids[-1]):
                raise argparse.ArgumentTypeError(f"{text}: line {number}: {fault}")
    return ids
