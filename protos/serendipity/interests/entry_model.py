"""P(a user newly enters a top-level category within the next H days): what a build estimated, applied.

"Entering": the category is not among the user's latest 200 clicks and the user clicks in it within the horizon.
A logistic regression over a handful of terms (TERMS) whose parts are counted, not learned:

    entry rate   of the users to whom c was novel at the start of earlier windows, the share that entered it
                 (recent windows weigh more; smoothed), as log-odds
    own past     log(1 + clicks ever in c): clicked long ago, not among the latest 200
    age          log(1 + days since the last of them)
    activity     log(1 + recent clicks)
    co-interest  Σ_s evidence(u, s) · W[s, c]; W has a closed form (EASE: Steck, "Embarrassingly Shallow
                 Autoencoders for Sparse Data", WWW 2019, eq. 8), so that a category that merely goes with everything
                 gets no credit
    profile      mean over the user's attributes of the smoothed log lift of entries into c
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.behaviour import Behaviour

TERMS = ("entry rate", "own past", "age", "activity", "co-interest", "profile")


@dataclass(frozen=True)
class EntryModel:
    """The estimated model, as of one moment.

    rates: [C + 1] float64, entry rate. shares: [C + 1] float64, share of a window's active users who click in the
    category: what is known of a user of whom nothing is known. co_interest: [C + 1, C + 1] float32, W[s, c]. lifts:
    (attribute, value) → [C + 1] float32 log lift. coefficients: [1 + len(TERMS)] float64.
    """

    rates: NDArray[np.float64]
    shares: NDArray[np.float64]
    co_interest: NDArray[np.float32]
    lifts: Mapping[tuple[str, str], NDArray[np.float32]]
    coefficients: NDArray[np.float64]

    def terms(self, behaviour: Behaviour, profiles: Sequence[Mapping[str, str]]) -> NDArray[np.float32]:
        """Compute the terms of every user and category, [len(TERMS), B, C + 1] float32."""
        shape = behaviour.counts.shape
        rates = np.log(self.rates / (1 - self.rates)).astype(np.float32)
        return np.stack(
            [
                np.broadcast_to(rates, shape),
                np.log1p(behaviour.counts),
                np.log1p(behaviour.ages),
                np.broadcast_to(np.log1p(behaviour.activity)[:, None], shape),
                behaviour.evidence @ self.co_interest,
                self.profile_lift(profiles),
            ]
        )

    def probabilities(self, behaviour: Behaviour, profiles: Sequence[Mapping[str, str]]) -> NDArray[np.float32]:
        """P(enter) of every user and category, [B, C + 1] float32; 0 where the category is not novel to the user.

        For users of whom nothing is known: the share of active users who click in the category, moved by their profile.
        """
        terms = self.terms(behaviour, profiles)
        logits = np.tensordot(self.coefficients[1:].astype(np.float32), terms, 1) + np.float32(self.coefficients[0])
        # A lift is meant to count once; a fitted coefficient outside 0 … 1 tells of users with a history.
        cold = np.log(self.shares / (1 - self.shares)) + np.clip(self.coefficients[-1], 0, 1) * terms[-1]
        logits = np.clip(np.where(behaviour.known[:, None], logits, cold), -30, 30)
        return np.where(behaviour.unseen, 1 / (1 + np.exp(-logits)), 0).astype(np.float32)

    def profile_lift(self, profiles: Sequence[Mapping[str, str]]) -> NDArray[np.float32]:
        """Mean log lift over each user's known attribute values, [B, C + 1]; 0 without any."""
        found = np.zeros((len(profiles), len(self.rates)), np.float32)
        for row, profile in enumerate(profiles):
            lifts = [self.lifts[value] for value in profile.items() if value in self.lifts]
            if lifts:
                found[row] = np.mean(lifts, axis=0)
        return found
