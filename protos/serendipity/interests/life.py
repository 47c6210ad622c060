"""How long a user's latent interests live: one definition for snapshots and near-line records."""

from __future__ import annotations

import hashlib

LIFE_DAYS = 7.0
"""Days after which interests turn stale, ± LIFE_SPREAD by user, so that not all turn stale at once."""
LIFE_SPREAD = 0.15


def expires_at(user_id: str, generated_at: int) -> int:
    """Moment (Unix seconds) interests turn stale: 7 days after they were generated, ± 15 % by hash of the user."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    spread = LIFE_SPREAD * (2 * int.from_bytes(digest, "big") / (2**64 - 1) - 1)
    return generated_at + round(LIFE_DAYS * (1 + spread) * 86_400)
