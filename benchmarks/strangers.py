"""Sessions of users without a record: three clicks in the request are all there is; with the graph source and without.

    python -m benchmarks.strangers --build var/complete-journey-held-out

Reads a build that held its latest clicks out (`serendip evaluate channel` makes one).

The sessions are real: the latest three distinct items of judged users before the cut, sent under an id that nobody has.
Targets are what these users then turned to, of categories other than those of the three.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import failed, made_by, options_of, publish, read_options
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.methods_report import number, table
from serendipity.offline.evaluate.replay import Advance, Recall, ReplayRequests, replay
from serendipity.offline.evaluate.significance import Estimate, bootstrap_difference
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.tools.arguments import natural
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2

DEPTHS = (20, 100)
"""K of recall."""

_CLICKS = 3
_FLOOR = 0.2
"""Share of the answer kept for the graph source where it is on, as by default."""


@dataclass(frozen=True)
class Strangers:
    """Sessions of users without a record. on, off: K → recall with the graph source or without; difference: theirs."""

    users: int
    on: Mapping[int, float]
    off: Mapping[int, float]
    difference: Mapping[int, Estimate]


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a build's sessions and publish the page; returns 1 when nothing was held out or there is no target."""
    parser = options_of("strangers", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with held-out clicks")
    parser.add_argument("--seed", type=natural, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    try:
        histories, catalogue, cut, until = held_out_of(args.build)
        held_out = HeldOut.between(histories, catalogue, cut, until)
        rng = np.random.default_rng(args.seed)
        with open_pipeline(snapshot_of(args.build), args.build / "towers" / "user_tower.onnx") as recall:
            found = evaluate_strangers(recall, histories, catalogue, held_out, held_out.novel.users, DEPTHS, rng)
    except BuilderError as error:
        return failed(parser, error)
    if found is None:
        return failed(parser, f"{args.build}: found no session with a target, expected some")
    return publish(f"# Sessions without a record\n\n{made_by(args)}\n\n{_table(found)}\n", args.out)


def evaluate_strangers(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    held_out: HeldOut,
    users: NDArray[np.int64],
    depths: Sequence[int],
    rng: np.random.Generator,
    advance: Advance = lambda _: None,
) -> Strangers | None:
    """Ask for the sessions of users (numbers, ascending), with the graph source and without. None without targets."""
    sessions = {user: session_of(histories, user, held_out.cut) for user in users.tolist()}
    targets = session_targets(held_out, sessions)
    if not len(targets):
        return None
    requests = ReplayRequests(max(depths), exclude_own=False)
    found = []
    for floor in (int(_FLOOR * max(depths)), 0):
        asked = as_strangers(recall, histories, catalogue, sessions, held_out.cut, floor)
        answers = replay(asked, histories, catalogue, targets.users, held_out.cut, requests, advance=advance)
        found.append({k: targets.recall(answers.rows, k) for k in depths})
    on, off = found
    return Strangers(
        users=len(targets),
        on={k: float(on[k].mean()) for k in depths},
        off={k: float(off[k].mean()) for k in depths},
        difference={k: bootstrap_difference(on[k], off[k], rng) for k in depths},
    )


def session_of(histories: Histories, user: int, cut: int) -> list[int]:
    """Rows of the latest three distinct items that a user (number) clicked before a moment, newest first."""
    items = histories.clicks_before(user, cut).items
    return [item - 1 for item in dict.fromkeys(items.tolist()) if item][:_CLICKS]


def session_targets(held_out: HeldOut, sessions: Mapping[int, Sequence[int]]) -> Targets:
    """Keep the targets of users with a session that are of no category of the session."""
    all_targets = held_out.targets
    owners = all_targets.users[all_targets.owners]
    categories = held_out.item_categories
    kept = [
        user in sessions and categories[row] not in {categories[clicked] for clicked in sessions[user]}
        for user, row in zip(owners.tolist(), all_targets.rows.tolist(), strict=True)
    ]
    return Targets.from_pairs(owners[kept], all_targets.rows[kept])


def as_strangers(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    sessions: Mapping[int, Sequence[int]],
    now: int,
    floor: int,
) -> Recall:
    """Send each user's session under an id that nobody has. floor: least places of the graph source; 0: it is off."""

    def recall_as_stranger(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        user = histories.user_numbers[request.user_id]
        request.user_id = f"stranger {user}"
        for place, row in enumerate(sessions[user]):
            event = request.recent_events.add(item_id=catalogue.item_ids[row], type=channel_pb2.EVENT_TYPE_CLICK)
            event.time.seconds = now - 1 - place
        request.source_quotas.add(source=channel_pb2.SOURCE_GRAPH, min_count=floor)
        return recall(request)

    return recall_as_stranger


def _table(found: Strangers) -> str:
    rows = [
        (f"{k}", number(found.on[k]), number(found.off[k]), f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
        for k, gain in found.difference.items()
    ]
    return f"{found.users:,} users.\n\n" + table(("recall @", "with the graph source", "without", "difference"), rows)


if __name__ == "__main__":
    sys.exit(main())
