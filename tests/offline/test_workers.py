"""Steps that run at the same time, in processes that end with the build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch

from serendipity.offline.steps import Numbers, Outcome, Step, StepError, run_steps
from serendipity.offline.workers import Bar, StepContext, WorkerError, Workers

REPOSITORY = Path(__file__).parents[2]


class TwoPartError(Exception):
    """Cannot be made again of its message alone, as pickle would."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def meet(other: str, context: StepContext) -> Numbers:
    """End only when another step has begun."""
    began(context)
    wait_for((context.directory.parent / "began" / other).exists)
    (context.directory / "text.txt").write_text(f"met {other}")
    return {"threads": torch.get_num_threads(), "process": os.getpid()}


def join(context: StepContext) -> Numbers:
    """Read what the steps before made."""
    texts = [(context.directory.parent / name / "text.txt").read_text() for name in ("left", "right")]
    (context.directory / "text.txt").write_text("\n".join(texts))
    return {"process": os.getpid()}


def write_forever(context: StepContext) -> Numbers:
    """Append this process's number to a file until it ends, and tell of the progress."""
    task = context.progress.add_task("lines", total=10)
    while True:
        with (context.directory / "lines.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")
        began(context)
        context.progress.advance(task)
        time.sleep(0.01)


def fail(kind: type[Exception], arguments: tuple[str, ...], context: StepContext) -> Numbers:
    """Raise when another step is at work."""
    wait_for((context.directory.parent / "began" / "forever").exists)
    time.sleep(0.3)
    raise kind(*arguments)


def kill_itself(_: StepContext) -> Numbers:
    """End as for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def began(context: StepContext) -> None:
    """Let other steps know."""
    (context.directory.parent / "began" / context.directory.name.split(".")[1]).touch()


def make(name: str, run: Callable[[StepContext], Numbers], *after: Path) -> Step:
    """Make a step of what others make, or of nothing."""
    return Step(name, after, {}, ["serendipity.keys"], run)


@dataclass
class Seen:
    """A display that keeps how far steps were."""

    bars: list[tuple[str, Bar]] = field(default_factory=list)

    def started(self, step: str) -> None:
        """Keep nothing."""

    def progressed(self, step: str, bar: Bar) -> None:
        """Keep it."""
        self.bars.append((step, bar))

    def finished(self, outcome: Outcome) -> None:
        """Keep nothing."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out" / "began").mkdir(parents=True)
    return tmp_path / "out"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def process_writing(out: Path) -> int:
    (path,) = out.glob(".forever.*/lines.txt")
    return int(path.read_text().split()[0])


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_steps_that_do_not_wait_for_each_other_run_at_the_same_time(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    meeting = [
        make("left", partial(meet, "right")),
        make("right", partial(meet, "left")),
        make("both", join, out / "left", out / "right"),
    ]
    found = {outcome.step: outcome for outcome in run_steps(meeting, out, Seen(), workers=2)}
    assert list(found)[-1] == "both"
    assert (out / "both" / "text.txt").read_text() == "met right\nmet left"
    processes = {found[name].numbers["process"] for name in ("left", "right")}
    assert len(processes - {os.getpid()}) == 2
    assert found["both"].numbers["process"] in processes
    assert [found[name].numbers["threads"] for name in ("left", "right")] == [1, 1]
    # Once more there is nothing to do, and so no process to start.
    monkeypatch.setattr(Workers, "start", lambda *_: pytest.fail("a worker was started"))
    assert not any(outcome.ran for outcome in run_steps(meeting, out, Seen(), workers=2))


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        (StepError, ["disk: found it full"], "disk: found it full"),
        (TwoPartError, ["disk", "found it full"], "fails: TwoPartError: disk: found it full"),
    ],
)
def test_a_step_that_fails_ends_the_build_and_what_runs_beside_it(
    out: Path, kind: type[Exception], arguments: list[str], told: str
) -> None:
    plan = [make("forever", write_forever), make("fails", partial(fail, kind, tuple(arguments)))]
    seen = Seen()
    with pytest.raises((StepError, WorkerError)) as raised:
        run_steps(plan, out, seen, workers=2)
    assert str(raised.value) == told
    assert has_ended(process_writing(out))
    assert ("forever", Bar("lines", 1, 10)) in seen.bars
    assert len(seen.bars) > 1
    assert not (out / "forever").exists()


def test_a_worker_that_is_killed_is_told_of_by_its_step(out: Path) -> None:
    with pytest.raises(WorkerError, match="dies: its process was killed, expected it to end"):
        run_steps([make("dies", kill_itself)], out, Seen(), workers=2)


_FOREVER = """
import signal
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from serendipity.offline.steps import run_steps
from tests.offline.test_workers import Seen, make, write_forever

if __name__ == "__main__":
    # A shell's background jobs, such as tests may be, are deaf to it, and so is what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_steps([make("forever", write_forever)], Path(sys.argv[2]), Seen(), workers=2)
"""


@pytest.fixture
def build(out: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A build in a process group of its own, as in a terminal, whose step is at work."""
    script = tmp_path / "build.py"
    script.write_text(_FOREVER)
    with (tmp_path / "stderr").open("wb") as errors:
        process = subprocess.Popen([sys.executable, script, REPOSITORY, out], stderr=errors, start_new_session=True)
    wait_for((out / "began" / "forever").exists)
    return process


def test_no_worker_outlives_a_build_that_is_killed_and_the_lock_holds_until_then(
    out: Path, build: subprocess.Popen[bytes]
) -> None:
    worker = process_writing(out)
    os.kill(worker, signal.SIGSTOP)
    build.kill()
    build.wait()
    with pytest.raises(StepError, match="another build"):
        run_steps([], out, Seen())
    os.kill(worker, signal.SIGCONT)
    wait_for(partial(has_ended, worker))
    # The other worker, which waits for a step, ends too.
    wait_for(partial(_lock_is_free, out))


def _lock_is_free(out: Path) -> bool:
    try:
        run_steps([], out, Seen())
    except StepError:
        return False
    return True


def test_ctrl_c_ends_the_build_and_its_workers(out: Path, build: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.killpg(build.pid, signal.SIGINT)
    assert build.wait(10) == -signal.SIGINT
    assert has_ended(process_writing(out))
    assert (tmp_path / "stderr").read_text().rstrip().endswith("KeyboardInterrupt")
    run_steps([], out, Seen())
