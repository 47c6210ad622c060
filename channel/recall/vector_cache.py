"""User vectors that were asked for lately: a user who pages on has the same ones until something happens."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import UserVectors

_HOUR = 3_600
"""Seconds within which the ages of clicks are taken as unchanged."""


class VectorCache:
    """The latest `most` users' vectors; 0: none are kept. For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, UserVectors] = OrderedDict()

    def key(self, model_name: str, user: Hydrated) -> bytes:
        """Name what the tower is told of a user, the ages of clicks by the hour; empty where nothing is kept."""
        if not self._most:
            return b""
        inputs, now = user.inputs, user.query.now
        digest = hashlib.blake2b(f"{model_name} {now // _HOUR}".encode(), digest_size=16)
        for of, ages in ((inputs.history_items, inputs.history_ages), (inputs.long_categories, inputs.long_ages)):
            digest.update(of.data)
            # When it was, which stays as it is while the age grows.
            digest.update(np.where(of > 0, now - ages.astype(np.int64), 0).data)
        for column in (inputs.long_counts, inputs.profile, inputs.interests):
            digest.update(column.data)
        return digest.digest()

    def get(self, key: bytes) -> UserVectors | None:
        """Return the vectors of a key, or None."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, vectors: UserVectors) -> None:
        """Keep vectors; those asked for longest ago go."""
        if key:
            self._kept[key] = vectors
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
