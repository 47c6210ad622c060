"""Ownership by hash: stable, in range, and even."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.sharding import shard_of


@given(st.text(min_size=1), st.integers(1, 1_000))
def test_every_user_has_one_owner(user_id: str, num_shards: int) -> None:
    assert 0 <= shard_of(user_id, num_shards) < num_shards
    assert shard_of(user_id, num_shards) == shard_of(user_id, num_shards)


def test_owners_never_change_between_versions() -> None:
    # Last hexadecimal digits of `b2sum -l 64`. Changing these would separate users from their feedback.
    assert [shard_of(user, 16) for user in ("anna", "bob", "42", "ü")] == [12, 2, 10, 7]


def test_users_spread_evenly() -> None:
    counts = Counter(shard_of(f"user-{i}", 8) for i in range(8_000))
    assert max(counts.values()) - min(counts.values()) < 200


def test_no_shards_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_shards: found 0"):
        shard_of("anna", 0)
