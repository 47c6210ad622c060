"""Hostile requests: bytes that are no message, and messages with values that nobody sends, at a running service.

    python -m benchmarks.hostile --build var/complete-journey --calls 100000 --out docs/results/hostile.md

Every call must be answered, or refused with a reason, and the service's processes must live on. Ends with status 1
otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from benchmarks.command import failed, made_by, options_of, publish, read_options
from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.service import admin, server
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools.service import Service, launch_service
from serendipity.v1 import admin_pb2, admin_pb2_grpc, channel_pb2

_NO_TRITON = "127.0.0.1:1"
_AT_ONCE = 8
_SECONDS = 60.0
"""Longer than any call may take: one that takes it hangs."""
_HARMLESS = frozenset({"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"})
"""Statuses that say what became of a call, or what is wrong with it."""

_TEXTS = [
    *("", " ", "a", "0", "-1", "null", "x" * 513, "y" * 70_000),
    *("\x00", "\x1b[2J", "\u202e", "\ufeff", "e\u0301" * 50, "\U0001f9ff" * 30, "\r\nSet: 1"),
    *("../../../etc/passwd", "/dev/zero", "current", "'; DROP TABLE users; --", "%n%s%x", "{{7*7}}", "[bold]"),
]
_WHOLES = [0, 1, -1, 2, 50, 1_000, 1_001, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1]
_NUMBERS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e-320, 3.4e38, 1e308, -1e308, math.inf, -math.inf, math.nan]
_LENGTHS = [0, 1, 2, 3, 300]


@dataclass
class Outcome:
    """How calls ended. statuses: by kind of request and status; faults: those that may not be; slowest: seconds."""

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def _values(rng: random.Random, kind: type[Message], depth: int = 0) -> Message:
    """Make a message of which any field may hold any value of its type."""
    message = kind()
    for described in kind.DESCRIPTOR.fields:
        if rng.random() < 0.3 or depth > 3:
            continue
        # Long lists of long lists would be refused by their size alone.
        for _ in range(rng.choice(_LENGTHS[: 3 if depth else None]) if described.is_repeated else 1):
            _put(rng, message, described, depth)
    return message


def _put(rng: random.Random, message: Message, described: Any, depth: int) -> None:
    if described.message_type is not None and described.message_type.GetOptions().map_entry:
        getattr(message, described.name)[rng.choice(_TEXTS)] = rng.choice(_TEXTS)
        return
    if described.message_type is not None:
        inner = _values(rng, GetMessageClass(described.message_type), depth + 1)
        target = getattr(message, described.name)
        (target.add() if described.is_repeated else target).CopyFrom(inner)
        return
    value = _scalar(rng, described)
    if described.is_repeated:
        getattr(message, described.name).append(value)
    else:
        setattr(message, described.name, value)


def _sound() -> list[Message]:
    """Requests as hosts send them, of one user, so that what was stored of a hostile one is read by the next."""
    event = channel_pb2.Event(item_id="item-1", type=channel_pb2.EVENT_TYPE_CLICK)
    recall = channel_pb2.RecallRequest(user_id="anyone", count=20, recent_events=[event], explain=True)
    feedback = channel_pb2.FeedbackEvent(user_id="anyone", item_id="item-1", type=channel_pb2.EVENT_TYPE_CLICK)
    return [
        recall,
        channel_pb2.RecallBatchRequest(requests=[recall] * 3),
        channel_pb2.RecordFeedbackRequest(events=[feedback] * 3),
        channel_pb2.UpdateItemsRequest(items=[channel_pb2.ItemAvailability(item_id="item-1", available=True)]),
    ]


def _slightly(rng: random.Random, kind: type[Message]) -> bytes:
    """Give one or two fields, of a request or of what it lists, any value: what validation lets through goes deep."""
    message = kind()
    for sound in _sound():
        if isinstance(sound, kind):
            message.CopyFrom(sound)
    for _ in range(rng.randint(1, 2)):
        target = message
        while (listed := _listed(target)) and rng.random() < 0.7:
            target = rng.choice(listed)
        if target.DESCRIPTOR.fields:
            _put(rng, target, rng.choice(list(target.DESCRIPTOR.fields)), 0)
    return message.SerializeToString()


def _listed(message: Message) -> list[Message]:
    """The messages that a message's lists hold; entries of maps are none."""
    lists = (values for field, values in message.ListFields() if field.is_repeated and field.message_type)
    return [value for values in lists for value in values if isinstance(value, Message)]


def _scalar(rng: random.Random, described: Any) -> Any:
    choices: dict[int, Sequence[Any]] = {
        FieldDescriptor.CPPTYPE_STRING: _TEXTS,
        FieldDescriptor.CPPTYPE_BOOL: [False, True],
        FieldDescriptor.CPPTYPE_FLOAT: _NUMBERS,
        FieldDescriptor.CPPTYPE_DOUBLE: _NUMBERS,
        # Numbers that the enumeration has no name for, too: it is open.
        FieldDescriptor.CPPTYPE_ENUM: [0, 1, 2, 3, 4, 99, -1, 2**31 - 1, -(2**31)],
        FieldDescriptor.CPPTYPE_INT32: [n for n in _WHOLES if -(2**31) <= n < 2**31],
        FieldDescriptor.CPPTYPE_UINT32: [n for n in _WHOLES if 0 <= n < 2**32],
        FieldDescriptor.CPPTYPE_INT64: [n for n in _WHOLES if -(2**63) <= n < 2**63],
        FieldDescriptor.CPPTYPE_UINT64: [n for n in _WHOLES if n >= 0],
    }
    return rng.choice(choices[described.cpp_type])


def _damaged(rng: random.Random, kind: type[Message]) -> bytes:
    content = bytearray(_values(rng, kind).SerializeToString()[:20_000] or b"\x0a\x01a")
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(content))
        content[at : at + rng.choice([0, 1, 1, 3])] = rng.randbytes(rng.choice([0, 1, 1, 3])) or b"\xff"
    return bytes(content[: rng.randint(1, len(content))] if rng.random() < 0.3 else content)


def _nested(rng: random.Random, kind: type[Message]) -> bytes:
    """Nest fields in fields, more deeply than any parser follows; of numbers that messages have, and that none has."""
    number = rng.choice([*(described.number for described in kind.DESCRIPTOR.fields), 1_000])
    tag, content = _varint(number << 3 | 2), b""
    for _ in range(rng.choice([10, 100, 101, 2_000])):
        content = tag + _varint(len(content)) + content
    # Groups are nested without lengths.
    return content if rng.random() < 0.5 else _varint(number << 3 | 3) * rng.choice([10, 100_000])


def _lying(rng: random.Random, kind: type[Message]) -> bytes:
    """Give lengths and numbers that are not so: beyond the end, of ten bytes and more, of every wire type."""
    number = rng.choice([*(described.number for described in kind.DESCRIPTOR.fields), 0, 2**29 - 1])
    length = _varint(rng.choice([2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1])) if rng.random() < 0.7 else b"\xff" * 11
    return _varint(number << 3 | rng.randrange(8)) + length + rng.randbytes(rng.randrange(64))


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])


KINDS: dict[str, Callable[[random.Random, type[Message]], bytes]] = {
    "any values": lambda rng, kind: _values(rng, kind).SerializeToString(),
    "some values": _slightly,
    "damaged": _damaged,
    "nested": _nested,
    "lying lengths": _lying,
    "random bytes": lambda rng, _: rng.randbytes(rng.choice([1, 8, 64, 1_024, 65_536])),
}
"""Contents of a request of a message type, by their name."""


async def attack(address: str, service: str, calls: int, seed: int = 0) -> Outcome:
    """Call every method of a service, given by its full name, with contents of every kind in turn."""
    methods = list(descriptor_pool.Default().FindServiceByName(service).methods)
    rng, outcome, turns = random.Random(seed), Outcome(), asyncio.Semaphore(_AT_ONCE)
    options = [("grpc.max_receive_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(address, options=options) as channel, asyncio.TaskGroup() as running:

        async def call(method: str, name: str, content: bytes) -> None:
            begun, status = time.monotonic(), "OK"
            try:
                await channel.unary_unary(f"/{service}/{method}")(content, timeout=_SECONDS)
            except grpc.aio.AioRpcError as error:
                status = error.code().name
                if status not in _HARMLESS:
                    outcome.faults.append(f"{method}, {name}, {content[:80]!r}: {status}: {error.details()}")
            finally:
                turns.release()
            outcome.statuses[name, status] += 1
            outcome.slowest = max(outcome.slowest, time.monotonic() - begun)

        for number in range(calls):
            method, name = rng.choice(methods), list(KINDS)[number % len(KINDS)]
            content = KINDS[name](rng, GetMessageClass(method.input_type))
            await turns.acquire()
            running.create_task(call(method.name, name, content))
    return outcome


def _pids(service: Service) -> list[int]:
    with grpc.insecure_channel(service.admin_address) as channel:
        stub = admin_pb2_grpc.SerendipityAdminStub(channel)  # type: ignore[no-untyped-call]
        workers = stub.GetSnapshot(admin_pb2.GetSnapshotRequest(), timeout=_SECONDS).workers
    return [service.pid, *(worker.pid for worker in workers)]


def report(outcomes: dict[str, Outcome], lost: int, args: argparse.Namespace) -> str:
    """Lay the outcomes, by service, out as a page."""
    tables = []
    for name, outcome in outcomes.items():
        statuses = sorted({status for _, status in outcome.statuses})
        rows = "\n".join(
            f"| {kind} | " + " | ".join(f"{outcome.statuses[kind, status]:,}" for status in statuses) + " |"
            for kind in KINDS
        )
        tables.append(
            f"`{name}`, {outcome.statuses.total():,} calls, the slowest {outcome.slowest:.2f} s:\n\n"
            f"| contents | {' | '.join(statuses)} |\n|---|{'---:|' * len(statuses)}\n{rows}\n"
        )
    return f"""# Hostile requests

{made_by(args)}; {args.workers} workers, {_AT_ONCE} calls at a time.

Contents of requests are made of a method's message type: with any value in all fields, or in some of a sound request
(texts with control characters and 70,000 letters, numbers at their bounds, NaN, unnamed enumerators), such messages
damaged, fields nested up to 100,000 deep, lengths that lie, random bytes. A fault is a call that is neither answered
nor refused with a reason in 60 s.

{chr(10).join(tables)}
Faults: {sum(len(outcome.faults) for outcome in outcomes.values())}. Processes lost: {lost}.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Attack a service of a build and report; returns 1 where a call or a process fared ill."""
    parser = options_of("hostile", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory: snapshots/current")
    parser.add_argument(
        "--calls", type=int, default=1_000, metavar="N", help="calls, a tenth of them to the admin service"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes of the service")
    parser.add_argument("--seed", type=int, default=0, help="of the contents")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here, too")
    args = read_options(parser, argv)
    source = (args.build / "snapshots" / layout.CURRENT).resolve()
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        # A copy: operators may roll back.
        try:
            version = layout.read_manifest(source).version
            shutil.copytree(source, Path(scratch) / "snapshots" / version)
            Publications(Path(scratch) / "snapshots").publish(version)
        except (layout.SnapshotError, PublicationRefused) as error:
            return failed(parser, error)
        options = {"clock": "snapshot", "nearline": "false", "require_ready_model": "false"}
        with launch_service(Path(scratch), _NO_TRITON, workers=args.workers, options=options) as service:
            before, outcomes = _pids(service), {}
            for name, address, calls in (
                (server.SERVICE, service.address, args.calls - args.calls // 10),
                (admin.SERVICE, service.admin_address, args.calls // 10),
            ):
                outcomes[name] = asyncio.run(attack(address, name, calls, args.seed))
            after = _pids(service)
    lost, faults = len(set(before) - set(after)), [fault for outcome in outcomes.values() for fault in outcome.faults]
    publish(report(outcomes, lost, args), args.out)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    return int(bool(faults or lost))


if __name__ == "__main__":
    sys.exit(main())
