"""What is kept of a graph: vectors of items, parts that users are folded in from, who holds what and by which items."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.layout import write_atomically
from serendipity.offline.errors import BuilderError

VECTORS = "vectors.npz"
INTERESTS = "interests.json"

MAX_HELD = 5
"""Interests that a user holds at most (CIKG, arXiv 2412.13544: top five interests are asked for)."""

NONE_HELD = -1


class ServedGraphError(BuilderError):
    """A graph directory cannot be read: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class ServedGraph:
    """Graph vectors of n items, h interests and what U users hold.

    item_vectors: [n, d] float32, by item row, searched; item_parts: [n, d], interest_parts: [h, d] float32, what each
    neighbour adds to a user; interests: names of the h; held: [U, MAX_HELD] int32 by user number, what each user holds,
    strongest first, item_interests: [n, m] int32, what each item speaks for; NONE_HELD where there are fewer.
    """

    item_vectors: NDArray[np.float32]
    item_parts: NDArray[np.float32]
    interest_parts: NDArray[np.float32]
    interests: tuple[str, ...]
    held: NDArray[np.int32]
    item_interests: NDArray[np.int32]

    def held_by(self, user: int) -> list[int]:
        """List the interests of a user (number), strongest first."""
        row = self.held[user]
        ids: list[int] = row[row != NONE_HELD].tolist()
        return ids

    def write(self, directory: Path) -> None:
        """Write vectors.npz and interests.json below a directory."""
        np.savez(
            directory / VECTORS,
            item_vectors=self.item_vectors,
            item_parts=self.item_parts,
            interest_parts=self.interest_parts,
            held=self.held,
            item_interests=self.item_interests,
        )
        text = json.dumps(self.interests, ensure_ascii=False, indent=0)
        write_atomically(directory / INTERESTS, text.encode("utf-8"))

    @classmethod
    def read(cls, directory: Path) -> ServedGraph:
        """Read them. Raises ServedGraphError when one is missing or cannot be read."""
        try:
            names = tuple(json.loads((directory / INTERESTS).read_text(encoding="utf-8")))
            # Opened here: NumPy leaves its own handle open where it finds no archive.
            with (directory / VECTORS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise ServedGraphError(
                f"{directory}: cannot be read ({error}); expected {VECTORS} and {INTERESTS} of the graph's builder"
            ) from error
        expected = {field.name for field in fields(cls)} - {"interests"}
        if arrays.keys() != expected:
            raise ServedGraphError(
                f"{directory / VECTORS}: found arrays {', '.join(sorted(arrays))}, expected "
                f"{', '.join(sorted(expected))}; build it anew"
            )
        return cls(**arrays, interests=names)
