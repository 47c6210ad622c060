"""How long latent interests live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.life import expires_at

DAY = 86_400


@given(st.text(min_size=1), st.integers(0, 2**40))
def test_interests_live_seven_days_give_or_take_fifteen_per_cent(user_id: str, generated_at: int) -> None:
    life = expires_at(user_id, generated_at) - generated_at
    assert life + 1 >= 0.85 * 7 * DAY
    assert life - 1 <= 1.15 * 7 * DAY


def test_lives_are_spread_over_users() -> None:
    lives = np.array([expires_at(f"user-{i}", 0) for i in range(2000)]) / DAY
    assert lives.mean() == pytest.approx(7.0, abs=0.05)
    assert np.histogram(lives, bins=10, range=(5.95, 8.05))[0].min() > 120
