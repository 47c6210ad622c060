"""Which host owns a user's mutable state: hash(user id) mod shards.

One definition for the service, which refuses feedback it does not own, and for clients, which route on it.
"""

from __future__ import annotations

import hashlib


def shard_of(user_id: str, num_shards: int) -> int:
    """Number of the shard, 0 … num_shards - 1, that owns a user.

    The hash is BLAKE2b (8 bytes, big-endian): stable across processes, machines and versions of Python.
    Raises ValueError if num_shards is not positive.
    """
    if num_shards < 1:
        raise ValueError(f"num_shards: found {num_shards}, expected at least 1")
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_shards
