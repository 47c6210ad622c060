"""One thread: the most urgent job gets the next step, and nothing is lost when it closes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from serendipity.channel.recall.search_thread import SearchThread


@pytest.fixture
def thread() -> Iterator[SearchThread]:
    opened = SearchThread()
    yield opened
    opened.close(wait=True)


def job(log: list[str], name: str, steps: int = 2, *, after: threading.Event | None = None) -> Iterator[None]:
    for step in range(steps):
        if after is not None:
            after.wait(60)
        log.append(f"{name}{step}")
        yield


def test_what_is_due_first_comes_first_at_the_next_step(thread: SearchThread) -> None:
    begun, release, log = threading.Event(), threading.Event(), list[str]()

    def first() -> Iterator[None]:
        begun.set()
        yield from job(log, "a", after=release)

    a = thread.submit(first(), due=2.0)
    assert begun.wait(60)
    later, sooner = thread.submit(job(log, "c"), due=3.0), thread.submit(job(log, "b"), due=1.0)
    release.set()
    for future in (a, later, sooner):
        future.result(60)
    assert log == ["a0", "b0", "b1", "a1", "c0", "c1"]


def test_a_job_that_fails_says_so_and_the_next_goes_on(thread: SearchThread) -> None:
    def failing() -> Iterator[None]:
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        thread.submit(failing(), due=0.0).result(60)
    assert thread.submit(job([], "a"), due=0.0).result(60) is None


def test_what_has_not_begun_can_be_cancelled(thread: SearchThread) -> None:
    release, log = threading.Event(), list[str]()
    busy = thread.submit(job(log, "a", 1, after=release), due=0.0)
    waiting = thread.submit(job(log, "b"), due=1.0)
    assert waiting.cancel()
    release.set()
    busy.result(60)
    assert thread.submit(job(log, "c", 1), due=2.0).result(60) is None
    assert log == ["a0", "c0"]


def test_closing_ends_every_job_one_way_or_another() -> None:
    thread, release, begun = SearchThread(), threading.Event(), threading.Event()

    def busy() -> Iterator[None]:
        begun.set()
        release.wait(60)
        yield

    running, waiting = thread.submit(busy(), due=0.0), thread.submit(job([], "b"), due=1.0)
    assert begun.wait(60)
    thread.close()
    release.set()
    thread.close(wait=True)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        running.result(60)
    with pytest.raises(RuntimeError, match="closed"):
        thread.submit(job([], "c"), due=0.0)
