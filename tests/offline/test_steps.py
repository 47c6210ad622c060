"""Steps that run at most once for the same content, whatever happens in between."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serendipity.offline.progress import build_display, describe, summary
from serendipity.offline.steps import STAMP, Outcome, Step, StepError, renew_step, run_steps
from serendipity.offline.workers import Bar, StepContext

REPOSITORY = Path(__file__).parents[2]


def _build(steps: list[Step], out: Path) -> list[Outcome]:
    with build_display(Console(file=io.StringIO()), len(steps)) as display:
        return run_steps(steps, out, display)


def _upper(source: Path, **changes: Any) -> Step:
    def run(context: StepContext) -> dict[str, int]:
        text = (source / "text.txt").read_text() if source.is_dir() else source.read_text()
        (context.directory / "text.txt").write_text(text.upper() + changes.get("suffix", ""))
        return {"characters": len(text)}

    return Step(
        name=changes.get("name", "upper"),
        inputs=[source],
        configuration={"suffix": changes.get("suffix", "")},
        code=["serendipity.keys"],
        run=run,
        products=changes.get("products", lambda _: ()),
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("some text")
    return path


def test_a_step_runs_once_for_the_same_content(source: Path, tmp_path: Path) -> None:
    first = _build([_upper(source)], tmp_path / "out")
    os.utime(source, (1, 1))
    second = _build([_upper(source)], tmp_path / "out")
    assert [o.ran for o in first + second] == [True, False]
    assert second[0].numbers == {"characters": 9}
    assert (tmp_path / "out" / "upper" / "text.txt").read_text() == "SOME TEXT"


@pytest.mark.parametrize("what", ["input", "configuration", "output", "output removed", "stamp removed", "product"])
def test_a_step_runs_again_when_content_changes(source: Path, tmp_path: Path, what: str) -> None:
    product = tmp_path / "product"
    product.touch()
    made = tmp_path / "out" / "upper"
    _build([_upper(source, products=lambda _: [product])], tmp_path / "out")
    suffix = ""
    if what == "input":
        status = source.stat()
        source.write_text("same size")
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif what == "configuration":
        suffix = "!"
    elif what == "output":
        (made / "text.txt").write_text("SOME TEXt")
    elif what == "output removed":
        (made / "text.txt").unlink()
    elif what == "stamp removed":
        (made / STAMP).unlink()
    else:
        product.unlink()
    again = _build([_upper(source, products=lambda _: [product], suffix=suffix)], tmp_path / "out")
    assert again[0].ran
    assert (made / "text.txt").read_text() == source.read_text().upper() + suffix


def test_a_change_of_code_runs_the_steps_that_depend_on_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "code" / "some_code"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("x = 1")
    monkeypatch.syspath_prepend(package.parent)

    def step() -> Step:
        made = _upper(source)
        return Step(made.name, made.inputs, made.configuration, ["some_code"], made.run)

    assert [_build([step()], tmp_path / "out")[0].ran for _ in range(2)] == [True, False]
    (package / "inner.py").write_text("x = 2")
    assert _build([step()], tmp_path / "out")[0].ran


def test_only_what_lies_behind_a_change_runs_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def steps(suffix: str = "") -> list[Step]:
        return [
            _upper(source, name="first"),
            _upper(out / "first", name="second", suffix=suffix),
            _upper(out / "second", name="deeper/third"),
        ]

    assert [o.ran for o in _build(steps(), out)] == [True, True, True]
    assert [o.ran for o in _build(steps(suffix="!"), out)] == [False, True, True]
    source.write_text("SOME text")
    # The first step's output comes out the same, so nothing behind it changes.
    assert [o.ran for o in _build(steps(suffix="!"), out)] == [True, False, False]
    assert (out / "deeper" / "third" / "text.txt").read_text() == "SOME TEXT!"


def test_a_step_that_fails_leaves_what_was_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _build([_upper(source)], out)
    source.write_text("other")

    def fail(context: StepContext) -> dict[str, int]:
        (context.directory / "text.txt").write_text("half")
        raise OSError("disk full")

    broken = Step("upper", [source], {}, ["serendipity.keys"], fail)
    with pytest.raises(OSError, match="disk full"):
        _build([broken], out)
    assert (out / "upper" / "text.txt").read_text() == "SOME TEXT"
    _build([_upper(source)], out)
    assert (out / "upper" / "text.txt").read_text() == "OTHER"
    assert sorted(path.name for path in out.iterdir()) == [".build.lock", "upper"]


def test_a_step_sees_what_its_last_run_made(source: Path, tmp_path: Path) -> None:
    seen: list[str | None] = []

    def run(context: StepContext) -> dict[str, int]:
        seen.append((context.previous / "text.txt").read_text() if context.previous else None)
        (context.directory / "text.txt").write_text(source.read_text())
        return {}

    for text in ("one", "two"):
        source.write_text(text)
        _build([Step("some", [source], {}, ["serendipity.keys"], run)], tmp_path / "out")
    assert seen == [None, "one"]


def test_a_resumable_step_continues_what_a_failed_run_of_the_same_content_left(source: Path, tmp_path: Path) -> None:
    def run(context: StepContext) -> dict[str, int]:
        found = sorted(path.name for path in context.directory.iterdir())
        (context.directory / f"part-{len(found)}").touch()
        if len(found) < 2:
            raise InterruptedError
        return {"found": len(found)}

    step = Step("some", [source], {}, ["serendipity.keys"], run, resumable=True)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            _build([step], tmp_path / "out")
    assert _build([step], tmp_path / "out")[0].numbers == {"found": 2}


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"nowhere: missing; expected a file or a directory to build from"):
        _build([_upper(tmp_path / "nowhere")], tmp_path / "out")


def test_two_builds_do_not_work_in_one_place(source: Path, tmp_path: Path) -> None:
    def run(context: StepContext) -> dict[str, int]:
        with pytest.raises(StepError, match="another build"):
            _build([_upper(source)], tmp_path / "out")
        return {}

    _build([Step("outer", [source], {}, ["serendipity.keys"], run)], tmp_path / "out")


_SLOW_BUILD = """
import io, sys, time
from pathlib import Path
from rich.console import Console
from serendipity.offline.progress import build_display
from serendipity.offline.steps import Step, run_steps

out, log = Path(sys.argv[1]), Path(sys.argv[2])

def slow(name, source):
    def run(context):
        with log.open("a") as file:
            file.write(name + "\\n")
        for part in range(4):
            time.sleep(0.01)
            text = "".join(sorted(path.read_text() for path in source.rglob("*.txt")))
            (context.directory / f"{part}.txt").write_text(f"{name} {part} {len(text)}")
        return {"parts": 4}
    return Step(name, [source], {}, ["serendipity.keys"], run)

names = ["a", "b", "c", "d"]
sources = [out.parent / "source", *(out / name for name in names)]
plan = [slow(name, source) for name, source in zip(names, sources)]
print("ready", flush=True)
with build_display(Console(file=io.StringIO()), len(plan)) as display:
    run_steps(plan, out, display)
"""


def test_a_build_killed_at_any_moment_is_finished_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "some.txt").write_text("text")
    arguments = [sys.executable, "-c", _SLOW_BUILD]
    whole = tmp_path / "whole"
    subprocess.run([*arguments, whole, tmp_path / "whole.log"], check=True, capture_output=True)
    expected = _contents(whole)
    rng = random.Random(0)
    out, log = tmp_path / "killed", tmp_path / "killed.log"
    killed = 0
    for _ in range(12):
        process = subprocess.Popen([*arguments, out, log], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.15))
        process.kill()
        process.wait()
        process.stdout.close()
        killed += process.returncode == -signal.SIGKILL
        for stamp in out.glob("*/" + STAMP):
            # Whatever is in place is whole.
            found = {name: text for name, text in _contents(out).items() if name.startswith(stamp.parent.name + "/")}
            wanted = {name: text for name, text in expected.items() if name.startswith(stamp.parent.name + "/")}
            assert found == wanted
    assert killed
    subprocess.run([*arguments, out, log], check=True, capture_output=True)
    assert _contents(out) == expected
    runs = log.read_text().split()
    subprocess.run([*arguments, out, log], check=True, capture_output=True)
    assert log.read_text().split() == runs
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_a_run_killed_between_done_and_in_place_is_moved_not_repeated(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _build([_upper(source)], out)
    key = json.loads((out / "upper" / STAMP).read_text())["key"]
    (out / "upper").rename(out / f".upper.{key[:16]}")
    (outcome,) = _build([_upper(source)], out)
    assert not outcome.ran
    assert (out / "upper" / "text.txt").read_text() == "SOME TEXT"


def _contents(out: Path) -> dict[str, str]:
    files = (
        path for path in out.rglob("*.txt") if not any(part.startswith(".") for part in path.relative_to(out).parts)
    )
    return {str(path.relative_to(out)): path.read_text() for path in files}


def _printed(show: Callable[[Console], None], *, terminal: bool) -> str:
    file = io.StringIO()
    show(Console(file=file, force_terminal=terminal, width=100))
    return file.getvalue()


def test_a_renewed_step_is_up_to_date_and_what_depends_on_it_runs(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps = [_upper(source, name="first"), _upper(out / "first", name="second")]
    _build(steps, out)

    def longer(directory: Path) -> dict[str, int]:
        text = (out / "first" / "text.txt").read_text() + ", and more"
        (directory / "text.txt").write_text(text)
        return {"characters": len(text)}

    assert renew_step(out, "first", longer).numbers == {"characters": 19}
    again = _build(steps, out)
    assert [(o.ran, o.numbers["characters"]) for o in again] == [(False, 19), (True, 19)]
    assert (out / "second" / "text.txt").read_text() == "SOME TEXT, AND MORE"
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["first", "second"]


def test_a_renewal_that_fails_leaves_the_step_and_the_next_begins_anew(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps = [_upper(source)]
    _build(steps, out)

    def fail(directory: Path) -> dict[str, int]:
        (directory / "text.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        renew_step(out, "upper", fail)
    assert (out / "upper" / "text.txt").read_text() == "SOME TEXT"
    assert not _build(steps, out)[0].ran

    def make(directory: Path) -> dict[str, int]:
        with (directory / "text.txt").open("a") as file:
            return {"characters": file.write("a text")}

    renew_step(out, "upper", make)
    assert (out / "upper" / "text.txt").read_text() == "a text"


def test_a_renewal_killed_between_two_renamings_is_in_place_for_whoever_comes_next(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str) -> Callable[[Path], dict[str, int]]:
        return lambda directory: {"characters": (directory / "text.txt").write_text(text)}

    rename = Path.rename

    def kill(path: Path, target: Path) -> Path:
        if not target.name.startswith("."):
            raise RuntimeError("killed")
        return rename(path, target)

    for name in ("a build", "a renewal"):
        out = tmp_path / name
        _build([_upper(source)], out)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", kill)
            with pytest.raises(RuntimeError, match="killed"):
                renew_step(out, "upper", write("new"))
        assert not (out / "upper").exists()
        if name == "a build":
            assert not _build([_upper(source)], out)[0].ran
            assert (out / "upper" / "text.txt").read_text() == "new"
        else:
            renew_step(out, "upper", lambda to, out=out: write((out / "upper" / "text.txt").read_text() + "er")(to))
            assert (out / "upper" / "text.txt").read_text() == "newer"
        assert not list(out.glob(".upper*"))


@pytest.mark.parametrize("what", ["nothing", "unstamped", "changed"])
def test_only_what_a_build_made_is_renewed(source: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    _build([_upper(source)], out)
    if what == "nothing":
        shutil.rmtree(out / "upper")
    elif what == "unstamped":
        (out / "upper" / STAMP).unlink()
    else:
        (out / "upper" / "text.txt").write_text("by hand")
    expected = "other content than was stamped" if what == "changed" else "nothing that a build made"
    with pytest.raises(StepError, match=f"upper: found {expected}"):
        renew_step(out, "upper", lambda _: pytest.fail("nothing to go on from"))


def test_without_a_terminal_there_is_a_plain_line_when_a_step_starts_and_ends(source: Path, tmp_path: Path) -> None:
    def show(console: Console) -> None:
        for _ in range(2):
            with build_display(console, 1) as display:
                run_steps([_upper(source)], tmp_path / "out", display)

    lines = _printed(show, terminal=False).splitlines()
    assert lines[0] == "[1/1] upper …"
    assert re.match(r"\[1/1\] upper: \d+\.\d s", lines[1])
    assert lines[2] == "[1/1] upper: up to date  characters 9"


def test_a_terminal_shows_every_step_that_runs_and_how_far_it_is() -> None:
    def show(console: Console) -> None:
        with build_display(console, 3) as display:
            for step in ("towers", "groups", "graph"):
                display.started(step)
            display.progressed("towers", Bar("rows", 2, 8))
            display.progressed("groups", Bar("CSIDs", 5, None))
            display.finished(Outcome("graph", True, 1.0, {}))
            console.print(display.progress.get_renderable())

    shown = _printed(show, terminal=True).split("[1/3] graph: 1.0 s")[1]
    assert re.search(r"build.*1/3", shown)
    assert re.search(r"towers: rows.*2/8", shown)
    assert "groups: CSIDs" in shown


def test_the_summary_names_every_step_and_its_numbers() -> None:
    outcomes = [
        Outcome("logs", False, 12.0, {"clicks": 1_234_567}),
        Outcome("towers", True, 60.25, {"recall": 0.123456}),
    ]
    text = _printed(lambda console: console.print(summary(outcomes)), terminal=False)
    assert "clicks 1,234,567" in text
    assert "recall 0.1235" in text
    assert text.splitlines()[-1].split() == ["total", "60.2"]
    assert describe({"name": "x", "n": 1}) == "name x, n 1"
