"""Settings of the pipeline, from arguments or from the environment (prefix SERENDIPITY_)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serendipity.triton import check_url


class ChannelSettings(BaseSettings):
    """Everything that may be tuned in a request's way. SERENDIPITY_SERVED_HORIZON_HOURS=12 sets that field."""

    model_config = SettingsConfigDict(
        env_prefix="SERENDIPITY_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    default_deadline_ms: float = Field(default=50.0, gt=0)
    """Time for a request whose caller set no deadline, milliseconds."""

    max_deadline_ms: float = Field(default=2_000.0, gt=0)
    """Longest time a request may take however generous its caller is, milliseconds: a hung part must not hold it."""

    clock: Literal["wall", "snapshot"] = "wall"
    """What "now" is: the wall clock, or the moment up to which the snapshot holds events. The second is for
    replays and for data sets of the past, whose ages would otherwise all be years."""

    triton_url: Annotated[str, AfterValidator(check_url)] = "127.0.0.1:8000"
    """Address of Triton's HTTP port: host:port, or https://host:port?ca=FILE&certificate=FILE&key=FILE."""

    tower_share: float = Field(default=0.6, gt=0, lt=1)
    """Part of the time left that the user tower may take; the rest is for the search, which a fallback needs too."""

    tower_max_batch: int = Field(default=64, ge=1)
    """Users in one call of the user tower at most: the model's max_batch_size. Larger batches are split."""

    sources_share: float = Field(default=0.85, gt=0, lt=1)
    """Part of the time left after that which the search may take; the rest is for ranking and the way back."""

    breaker_failures: int = Field(default=5, ge=1)
    """Failed calls of the user tower in a row after which it is not called for a while."""

    breaker_open_ms: float = Field(default=1_000.0, gt=0)
    """How long it is not called then, milliseconds; one call tries again after that."""

    gpu: bool = False
    """Search openly on a GPU (needs faiss-gpu); a process without one refuses to start rather than run slowly."""

    over_fetch: float = Field(default=2.0, ge=1.0)
    """Candidates asked of each source per candidate wanted, so that filters and caps leave enough."""

    interests_used: int = Field(default=10, ge=0)
    """Latent interests searched by at most; never more than the tower is fed."""

    novel_categories_used: int = Field(default=10, ge=0)
    """Categories of a group's list that are searched at most, best aligned first; 0 switches the group source off."""

    graph_source: bool = True
    """Search the snapshot's graph, where it has one, by the user as folded in from clicks and held interests."""

    interest_hard_age_days: float = Field(default=30.0, gt=0)
    """Age at which cached interests are no longer used at all, days. They turn stale before (`expires_at`)."""

    interest_feedback: bool = True
    """Let acknowledged clicks and exposures move the weights of interests, and the scores of what they lead to."""

    interest_exposures: int = Field(default=200, ge=0)
    """Latest exposures that are looked at for the weights; those within the served horizon are in any case. Reading
    200 and weighing 10 interests by them takes 0.25 ms of a core."""

    interest_want_seconds: float = Field(default=60.0, ge=0)
    """Time within which a worker does not ask again for a user's interests to be generated."""

    served_horizon_hours: float = Field(default=24.0, ge=0)
    """Items exposed to the user within so many hours are not recalled again; 0 switches that off."""

    dismissed_days: float = Field(default=30.0, gt=0)
    """Items that the user does not want are not recalled for so many days, nor are interests and categories of several.
    Feedback of a user who gives none for `feedback_retention_days` goes, dismissals included."""

    dismissed_interest_count: int = Field(default=2, ge=1)
    """Items of one latent interest that the user does not want from which on it is not searched by."""

    dismissed_category_count: int = Field(default=3, ge=1)
    """Items of one top-level category that the user does not want from which on none of it is recalled."""

    soft_novelty_weight: float = Field(default=0.5, ge=0, le=1)
    """Factor on the score of items that are not novel, under NOVELTY_POLICY_SOFT."""

    category_share: float = Field(default=0.3, gt=0, le=1)
    """Largest share of an answer from one top-level category. It gives way before the answer goes short."""

    surprise: float | None = Field(default=None, ge=0, le=1)
    """What unexpectedness counts beside relevance where a request does not say; none: what the snapshot's builder found
    to please most."""

    diversity: float = Field(default=0.0, ge=0, lt=1)
    """Weight of maximal marginal relevance: how much an item loses by being like one before it. 0: nothing."""

    explored_users: float = Field(default=0.25, gt=0, le=1)
    """Share of the users, others each day, with whom a source that has not earned its places is searched."""

    explored_share: float = Field(default=0.08, ge=0, le=1)
    """Share of their answers that such a source has then at least, its best items: 2 % of all places on average.
    0: it is never searched."""
