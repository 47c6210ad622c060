"""What worker 0 removes for all workers: old feedback, snapshots and serving logs, availability that snapshots know."""

from __future__ import annotations

import asyncio

import structlog

from serendipity.channel.service.processes import logged_failures
from serendipity.channel.service.server import Parts
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.state.host_clock import HostClock
from serendipity.channel.state.serving_log_files import compact, remove_old

_SECONDS = 3_600.0
_COMPACTION_SECONDS = 60.0
_ROUNDS = 24
"""Hours in which the feedback of all users is looked at once."""
_DAY = 86_400.0

_log = structlog.stdlib.get_logger(__name__)


async def run_housekeeping(parts: Parts, publications: Publications, clock: HostClock) -> None:
    """Clean up once an hour, and compact serving logs each minute, until cancelled."""
    loop = asyncio.get_running_loop()
    next_time = loop.time()
    while True:
        with logged_failures("serving log"):
            await compact(parts.settings.serving_log_path, parts.settings.serving_log_total_bytes)
        if loop.time() >= next_time:
            next_time += _SECONDS
            with logged_failures("all"):
                await asyncio.to_thread(clean_up, parts, publications, clock)
        await asyncio.sleep(_COMPACTION_SECONDS)


def clean_up(parts: Parts, publications: Publications, clock: HostClock) -> None:
    """Clean up once; a part that fails is logged, and the others are done all the same.

    Nothing is deleted by a clock that disagrees with the disk (HostClock).
    """
    settings = parts.settings
    manifests = [listed.manifest for listed in publications.listed()]
    with logged_failures("availability"):
        # A snapshot that cannot be read now may be read later; nothing is known of its age.
        if manifests and None not in manifests:
            parts.availability.store().prune(min(m.events_until.seconds for m in manifests if m is not None))
    now = None
    with logged_failures("clock"):
        now = clock.agreed([m.created_at.ToMilliseconds() / 1e3 for m in manifests if m])
    if now is None:
        return
    with logged_failures("feedback"):
        before = now - settings.feedback_retention_days * _DAY
        events, users = parts.feedback.store().expire(before, now, _ROUNDS)
        _log.info("feedback expired", events=events, users=users)
    with logged_failures("serving log"):
        removed = remove_old(settings.serving_log_path, now - settings.serving_log_retention_days * _DAY, now)
        _log.info("old serving logs removed", files=removed)
    # A volume that is shared and read-only here is another's to clean.
    with logged_failures("snapshots"):
        if settings.snapshot_retention_days:
            deleted = publications.prune(now - settings.snapshot_retention_days * _DAY, now)
            _log.info("old snapshots deleted", versions=deleted)
