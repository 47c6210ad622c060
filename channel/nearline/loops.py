"""The loops of the near-line process, one for each kind, each with a model, a client and failures of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.channel.nearline.context import ReadFeedback
from serendipity.channel.nearline.group_assigner import GroupAssigner, GroupModel
from serendipity.channel.nearline.group_encoder import GroupEncoder
from serendipity.channel.nearline.interest_gpt import InterestGpt, TritonTextEncoder
from serendipity.channel.nearline.list_filler import ListFiller, ListModel
from serendipity.channel.nearline.loop import LoopObserver, NearlineLoop
from serendipity.channel.nearline.refresh_model import RefreshModel
from serendipity.channel.nearline.refresher import Refresher
from serendipity.channel.nearline.settlement import Erasures, Settlement
from serendipity.channel.nearline.snapshot_models import SnapshotModels
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class Opened:
    """What all loops share. observer: told of every batch."""

    store: NearlineStore
    erasures: Erasures
    feedback: ReadFeedback
    holder: SnapshotHolder
    observer: LoopObserver


def named_models(snapshot: Snapshot) -> dict[Kind, str]:
    """Name the model that a snapshot has of each kind, empty for none."""
    spec, groups = snapshot.coevolution, snapshot.group_spec
    return {
        Kind.INTERESTS: snapshot.interest_gpt,
        Kind.GROUPS: groups.model_name if groups else "",
        Kind.LISTS: f"{spec.novelty_model_name} and {spec.relevance_model_name}" if spec else "",
    }


def open_loops(
    stack: contextlib.AsyncExitStack, opened: Opened, settings: ServerSettings, channel_settings: ChannelSettings
) -> dict[Kind, NearlineLoop[Any, Any]]:
    """Make the loops and their clients of Triton, which the stack closes. Nothing is connected yet."""
    url = settings.nearline_triton_url or channel_settings.triton_url
    gpt, encoder = InterestGpt(url), TritonTextEncoder(url, timeout=settings.nearline_timeout_seconds)
    llms, group_encoder = CoevolutionLlms(url), GroupEncoder(url)
    for client in (gpt, encoder, llms, group_encoder):
        stack.push_async_callback(client.close)
    store, feedback = opened.store, opened.feedback
    settlements = {kind: Settlement(store, kind, opened.erasures, time.time) for kind in Kind}
    timeout, quiet = settings.nearline_timeout_seconds, settings.nearline_quiet_seconds
    refresher = Refresher(store, settlements[Kind.INTERESTS], gpt, encoder.encode, timeout=timeout, quiet_seconds=quiet)
    assigner = GroupAssigner(store, settlements[Kind.GROUPS], group_encoder, timeout=timeout, quiet_seconds=quiet)
    filler = ListFiller(store, settlements[Kind.LISTS], llms, timeout=timeout)
    works: list[tuple[Kind, Any, Callable[[Snapshot], Any]]] = [
        (Kind.INTERESTS, refresher.refresh, lambda snapshot: RefreshModel.open(snapshot, feedback)),
        (Kind.GROUPS, assigner.assign, lambda snapshot: GroupModel.open(snapshot, feedback)),
        (Kind.LISTS, filler.fill, ListModel.open),
    ]
    loops: dict[Kind, NearlineLoop[Any, Any]] = {}
    for kind, work, opens in works:
        models: SnapshotModels[Any] = SnapshotModels(opened.holder, opens)
        stack.callback(models.close)
        loops[kind] = NearlineLoop(
            store.queue(kind),
            work,
            models,
            channel_settings,
            opened.observer,
            batch=settings.nearline_batch,
            poll=settings.nearline_poll_seconds,
            longest_pause=settings.nearline_retry_seconds,
        )
    return loops
