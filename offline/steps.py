"""Runs steps, each when those before it are done and at most once for the same content.

A step makes one directory out of others. Its key is the content of its inputs, its configuration and the source of the
code it runs; the key is stamped into the directory, last, when the step is done. A step whose directory carries the
present key, and still holds what it was stamped with, is up to date, however old any file is.

    <out>/<step>/            what the step made; .stamp.json in it tells by what
    <out>/.<step>.<key>/     where it is being made: moved into place when it is whole, or continued by the next run
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from serendipity.layout import hash_of, sha256, write_atomically
from serendipity.offline.errors import BuilderError
from serendipity.offline.workers import Bar, Made, StepContext, Workers

STAMP = ".stamp.json"
"""Written into a step's directory when everything else is in it."""

_LOCK = ".build.lock"

Numbers = Mapping[str, float | int | str]
"""Key numbers of a step, for the summary."""


class StepError(BuilderError):
    """A step cannot run, or made nothing: names it, what was found and what was expected."""


@dataclass(frozen=True)
class Step:
    """One builder.

    name: of the step and of its directory, which may lie deeper (validation/towers). inputs: files and directories
    whose content it depends on, those of other steps too; directories count without hidden files. configuration: what
    else it depends on, JSON. code: modules and packages whose source it depends on. run: makes the directory, returns
    key numbers; picklable where workers run it. products: files and directories elsewhere that it also makes, told from
    the key numbers; if one is missing the step runs again. resumable: `run` continues what lies in its directory.
    """

    name: str
    inputs: Sequence[Path]
    configuration: Mapping[str, Any]
    code: Sequence[str]
    run: Callable[[StepContext], Numbers]
    products: Callable[[Numbers], Sequence[Path]] = field(default=lambda _: ())
    resumable: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a step. seconds: of this run if it ran, of the run that made it otherwise."""

    step: str
    ran: bool
    seconds: float
    numbers: Numbers


class Display(Protocol):
    """Shows how far a build is."""

    def started(self, step: str) -> None:
        """A step begins."""

    def progressed(self, step: str, bar: Bar) -> None:
        """A step that began tells how far it is."""

    def finished(self, outcome: Outcome) -> None:
        """A step is done, or was up to date."""


def run_steps(plan: Sequence[Step], out: Path, display: Display, *, workers: int = 1) -> list[Outcome]:
    """Run every step that is not up to date, and tell what became of each, in the order they were done.

    plan: a step waits for those whose directories are among its inputs; of several that could run the first does.
    workers: steps that run at the same time, each in a process of its own; 1: all run in this one. One build works in
    `out` at a time. A run that was killed at any point is continued by the next.
    Raises StepError when an input is missing, when another build is at work, and whatever a step raises; steps that
    run beside it are killed.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = {step.name: step.run for step in plan}
    with _exclusive(out) as lock, Workers(workers, jobs, display.progressed, lock) as pool:
        hashes = ContentHashes()
        outcomes = []
        waiting = {step.name: step for step in plan}
        running: dict[str, _Begun] = {}
        while waiting or running:
            to_come = [out / name for name in (*waiting, *running)]
            ready = [
                step
                for step in waiting.values()
                if not any(path.is_relative_to(place) for path in step.inputs for place in to_come)
            ]
            if ready and pool.idle:
                step = waiting.pop(ready[0].name)
                begun = _begin(step, out, hashes)
                if isinstance(begun, _Begun):
                    display.started(step.name)
                    running[step.name] = begun
                    pool.start(step.name, begun.working, begun.place if begun.place.exists() else None)
                    continue
                outcome = begun
            else:
                name, made = pool.next()
                outcome = running.pop(name).finish(made, hashes)
            outcomes.append(outcome)
            display.finished(outcome)
    return outcomes


def needed_for(name: str, plan: Sequence[Step], out: Path) -> list[Step]:
    """Of a plan, list a step and all that it is made of. Raises StepError for a name that is no step's."""
    wanted = [step for step in plan if step.name == name]
    if not wanted:
        listed = ", ".join(step.name for step in plan)
        raise StepError(f"step {name}: found none of that name, expected one of {listed}")
    needed: set[str] = set()
    while wanted:
        step = wanted.pop()
        needed.add(step.name)
        before = [other for other in plan if any(path.is_relative_to(out / other.name) for path in step.inputs)]
        wanted += [other for other in before if other.name not in needed]
    return [step for step in plan if step.name in needed]


def renew_step(out: Path, name: str, make: Callable[[Path], Numbers]) -> Outcome:
    """Replace what a step made by something that goes on from it, and keep it up to date for the next build.

    The step keeps its key, so that the next build takes the new directory for the step's and runs what depends on it.
    make: writes the new directory, empty at first, while <out>/<name> stays as it is. What is in place is whole at any
    moment but between two renamings, behind which the next run, or build, moves it into place.
    Raises StepError when no build made what is in place, or it was changed since, or a build is at work.
    """
    with _exclusive(out):
        hashes = ContentHashes()
        place = out / name
        _mend(place, hashes)
        stamp = _Stamp.read(place)
        if stamp is None or stamp.content != hashes.of(place):
            found = "nothing that a build made" if stamp is None else "other content than was stamped"
            raise StepError(f"{place}: found {found}, expected a step's whole directory; build it (anew)")
        working = _working(place, stamp.key)
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir()
        start = time.monotonic()
        made = Made(dict(make(working)), time.monotonic() - start)
        return _Begun(name, stamp.key, place, working).finish(made, hashes)


class ContentHashes:
    """SHA-256 of files and directories by content, computed once per file while it stays as it is."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int, int, int], str] = {}

    def of(self, path: Path) -> str:
        """Hash a file, or a directory: names and contents of everything in it that is not hidden.

        Raises StepError when there is nothing at `path`.
        """
        if path.is_file():
            return self._of_file(path)
        if not path.is_dir():
            raise StepError(f"{path}: missing; expected a file or a directory to build from")
        parts = []
        for file in sorted(_visible_files(path)):
            parts += [str(file.relative_to(path)).encode(), self._of_file(file).encode()]
        return hash_of(parts)

    def _of_file(self, path: Path) -> str:
        status = path.stat()
        # Only spares hashing twice within one run; between runs content alone counts.
        key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._files:
            self._files[key] = sha256(path)
        return self._files[key]


def step_key(step: Step, hashes: ContentHashes) -> str:
    """Hash everything the step's result depends on."""
    configuration = json.dumps(step.configuration, sort_keys=True, default=str)
    parts = [step.name.encode(), configuration.encode(), code_hash(step.code).encode()]
    return hash_of([*parts, *(hashes.of(path).encode() for path in step.inputs)])


def code_hash(modules: Sequence[str]) -> str:
    """Hash the source of modules and packages (with everything below them), without importing them."""
    parts = []
    for module in sorted(modules):
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise StepError(f"{module}: no such module; expected the source a step depends on")
        origin = Path(spec.origin)
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        for file in files:
            parts += [module.encode(), file.name.encode(), file.read_bytes()]
    return hash_of(parts)


@dataclass(frozen=True)
class _Stamp:
    key: str
    content: str
    seconds: float
    numbers: Numbers

    @classmethod
    def read(cls, directory: Path) -> _Stamp | None:
        try:
            return cls(**json.loads((directory / STAMP).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        write_atomically(directory / STAMP, json.dumps(self.__dict__, indent=2, sort_keys=True).encode())


@dataclass(frozen=True)
class _Begun:
    """A step that is being made in `working`."""

    name: str
    key: str
    place: Path
    working: Path

    def finish(self, made: Made, hashes: ContentHashes) -> Outcome:
        _Stamp(self.key, hashes.of(self.working), made.seconds, made.numbers).write(self.working)
        _move_into_place(self.working, self.place)
        return Outcome(self.name, True, made.seconds, made.numbers)


def _begin(step: Step, out: Path, hashes: ContentHashes) -> _Begun | Outcome:
    """Make the directory that the step is to run in, unless it is up to date."""
    place = out / step.name
    place.parent.mkdir(parents=True, exist_ok=True)
    key = step_key(step, hashes)
    working = _working(place, key)
    current = partial(_is_current, step, key, hashes=hashes)
    if not current(place) and current(working):
        # The last run was killed after it was done and before it was in place.
        _move_into_place(working, place)
    _clear(place, keep=working)
    if current(place):
        stamp = _Stamp.read(place)
        assert stamp is not None
        return Outcome(step.name, False, stamp.seconds, stamp.numbers)
    if not step.resumable:
        shutil.rmtree(working, ignore_errors=True)
    working.mkdir(exist_ok=True)
    return _Begun(step.name, key, place, working)


def _is_current(step: Step, key: str, directory: Path, *, hashes: ContentHashes) -> bool:
    stamp = _Stamp.read(directory)
    return (
        stamp is not None
        and stamp.key == key
        and all(path.exists() for path in step.products(stamp.numbers))
        and stamp.content == hashes.of(directory)
    )


def _working(place: Path, key: str) -> Path:
    return place.with_name(f".{place.name}.{key[:16]}")


def _mend(place: Path, hashes: ContentHashes) -> None:
    """Move into place what a killed run had no time to."""
    if place.exists():
        return
    for left in place.parent.glob(f".{place.name}.*"):
        stamp = _Stamp.read(left)
        if stamp is not None and left == _working(place, stamp.key) and stamp.content == hashes.of(left):
            left.rename(place)
            return


def _move_into_place(working: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    # Killed here, the step is whole in `working`, and the next run begins by moving it.
    working.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _clear(place: Path, *, keep: Path) -> None:
    """Remove what killed runs of this step left, but for what a resumable step may continue."""
    for left in place.parent.glob(f".{place.name}.*"):
        if left != keep and left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _visible_files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts):
            yield path


@contextmanager
def _exclusive(out: Path) -> Iterator[Connection]:
    # A Connection is a file that multiprocessing hands on: the lock is held until the last of the workers has ended.
    with Connection(os.open(out / _LOCK, os.O_RDWR | os.O_CREAT)) as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StepError(f"{out}: another build (or this one, still running) is at work there") from error
        yield lock
