"""Settings of the service around the pipeline, from arguments or from the environment (prefix SERENDIPITY_)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serendipity.triton import check_url


class ServerSettings(BaseSettings):
    """Where the service listens, what it reads and what it keeps. SERENDIPITY_WORKERS=4 sets that field."""

    model_config = SettingsConfigDict(
        env_prefix="SERENDIPITY_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    snapshots: Path
    """Directory of the snapshots, with the link `current` to the wanted one."""

    state: Path
    """Directory for what this host keeps: feedback, availability, serving log, workers' states. On a local disk."""

    address: str = "127.0.0.1:50051"
    """Address of the channel, host:port; port 0 chooses a free one. Beyond the loopback it needs TLS, or plaintext."""

    admin_address: str = "127.0.0.1:50052"
    """Address of the admin service, as that of the channel. Keep it on the loopback."""

    tls_certificate: Path | None = None
    """Certificate chain (PEM) that both show; read again when it changes, as key and CA are. Without one they listen in
    plain text."""

    tls_key: Path | None = None
    """Private key of the certificate (PEM, without a password)."""

    tls_client_ca: Path | None = None
    """CA certificates (PEM), one of which must have signed every caller's certificate; without it none is asked for."""

    health_address: str = "127.0.0.1:50053"
    """With TLS: address where the workers' health, and nothing else, is asked in plain text, for probes."""

    admin_health_address: str = "127.0.0.1:50054"
    """With TLS: the same for the supervisor's health."""

    callers: Path | None = None
    """File (TOML) of those who may call, by token or certificate, with their roles and limits: docs/security.md. It is
    read again when it changes. Without it whoever reaches a port may call."""

    plaintext: bool = False
    """Listen in plain text on other addresses than the loopback: behind a mesh that encrypts."""

    workers: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """Worker processes; one per core by default, since one process saturates one."""

    metrics_port: int = Field(default=9464, ge=0, le=65_535)
    """Prometheus port of worker 0; worker n has this port + n, the near-line process the next, the supervisor the last.
    0: each chooses a free one."""

    metrics_host: str = "127.0.0.1"
    """Address the metrics are served on."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line written. Calls and answers are logged at debug, refused calls at warning."""

    log_format: Literal["json", "console"] = "json"
    """JSON lines, or lines for a person."""

    shard: int = Field(default=0, ge=0)
    """Shard of users whose feedback this host owns."""

    num_shards: int = Field(default=1, ge=1)
    """Shards the users are split into; 1: this host owns all."""

    user_tower_path: Path | None = None
    """User tower (user_tower.onnx) to run in each worker, for hosts without Triton."""

    require_ready_model: bool = True
    """Refuse to publish, or to roll back to, a snapshot whose user tower does not answer on Triton."""

    batch_users: int = Field(default=32, ge=1, le=64)
    """Users of a RecallBatch answered at once; other callers wait meanwhile."""

    max_message_bytes: int = Field(default=32 << 20, ge=1 << 20)
    """Largest message received or sent: 256 users × 1,000 candidates are some 25 MB."""

    max_concurrent_calls: int = Field(default=512, ge=1)
    """Calls of hosts that one worker works on at a time; more are refused with RESOURCE_EXHAUSTED, as are those that
    cannot be answered in time. Health is asked beside them."""

    max_connection_age_seconds: float = Field(default=300.0, gt=0)
    """Age at which a connection is closed gracefully, so that clients spread over workers anew."""

    snapshot_poll_seconds: float = Field(default=1.0, gt=0)
    """Time between looks at the link `current`."""

    drain_seconds: float = Field(default=10.0, ge=0)
    """Time that calls in flight have to finish after SIGTERM."""

    hung_seconds: float = Field(default=3.0, ge=1.0)
    """Time without a beat after which a worker is killed and replaced; the near-line process has ten times it."""

    feedback_map_bytes: int = Field(default=16 << 30, ge=1 << 20)
    """Largest size of the feedback store (address space until it is used)."""

    feedback_retention_days: float = Field(default=30.0, gt=0)
    """How long feedback and its event ids are kept: longer than hosts repeat calls, and than snapshots are apart."""

    snapshot_retention_days: float = Field(default=30.0, ge=0)
    """How long a snapshot is kept after it was last written or wanted; 0: for ever. The wanted one always is."""

    serving_log_total_bytes: int = Field(default=8 << 30, ge=1 << 10)
    """Size of all serving-log files of the host; the oldest go first."""

    serving_log_retention_days: float = Field(default=30.0, gt=0)
    """Age at which a serving-log file goes."""

    nearline: bool = True
    """Run the near-line process, which generates what is wanted; without it requests only queue up."""

    nearline_triton_url: Annotated[str, AfterValidator(check_url)] | None = None
    """Address of the Triton that serves the near-line models and the text encoder; by default the user tower's."""

    nearline_batch: int = Field(default=64, ge=1, le=1_024)
    """Users or lists worked on at once; the calls of a model are as large as it allows."""

    nearline_timeout_seconds: float = Field(default=120.0, gt=0)
    """Time a model has for one batch."""

    nearline_poll_seconds: float = Field(default=1.0, gt=0)
    """Time between looks at an empty queue."""

    nearline_retry_seconds: float = Field(default=30.0, gt=0)
    """Longest time between tries while Triton does not answer; the first is tried after nearline_poll_seconds."""

    nearline_max_entries: int = Field(default=1_000_000, ge=1)
    """Entries queued at most, of each kind; then the least urgent are refused."""

    nearline_list_requests: int = Field(default=3, ge=1)
    """Requests, of one worker, for a missing novel-category list until it is queued."""

    nearline_commit_seconds: float = Field(default=0.1, ge=0)
    """Time between commits of what is wanted, and of ten times that for lists: each costs an fsync."""

    nearline_map_bytes: int = Field(default=16 << 30, ge=1 << 20)
    """Largest size of the near-line store; a user's interests and paths take about 2 KB, a list up to 0.5 KB."""

    @field_validator("address", "admin_address", "health_address", "admin_health_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        split_address(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate, tls_key: found one of them, expected both or none")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca: found no tls_certificate beside it, expected one")
        if self.metrics_port and (last := self.metrics_port + self.workers + 1) > 65_535:
            raise ValueError(f"metrics_port: found {self.metrics_port}, which leaves the supervisor {last}, no port")
        if self.shard >= self.num_shards:
            raise ValueError(f"shard: found {self.shard}, expected less than num_shards, which is {self.num_shards}")
        return self

    @property
    def feedback_path(self) -> Path:
        """Directory of the feedback store."""
        return self.state / "feedback"

    @property
    def nearline_path(self) -> Path:
        """Directory of the near-line store."""
        return self.state / "nearline"

    @property
    def erasures_path(self) -> Path:
        """Directory of the list of users to be forgotten."""
        return self.state / "erasures"

    @property
    def nearline_lock_path(self) -> Path:
        """File that the one near-line process holds."""
        return self.state / "nearline.lock"

    @property
    def availability_path(self) -> Path:
        """Directory of the availability store."""
        return self.state / "availability"

    @property
    def serving_log_path(self) -> Path:
        """Directory of the serving log."""
        return self.state / "serving_log"

    @property
    def clock_path(self) -> Path:
        """File of the host's clock."""
        return self.state / "clock.json"

    @property
    def workers_path(self) -> Path:
        """Directory of the workers' states."""
        return self.state / "workers"

    @property
    def endpoints_path(self) -> Path:
        """File that says where the service listens, written once it does."""
        return self.state / "endpoints.json"


def split_address(address: str) -> tuple[str, int]:
    """Split host:port; an IPv6 host stands in brackets. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or not int(port) <= 65_535:
        raise ValueError(f"found {address!r}, expected host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
