"""One thread writes for several: in order, within bounds, and all of it before the end."""

from __future__ import annotations

import threading

from serendipity.channel.state.batch_writer import BatchWriter


def test_what_waits_is_written_together_and_in_order() -> None:
    batches: list[list[int]] = []
    writer = BatchWriter("writer", batches.append, capacity=100, interval=60.0)
    assert all(writer.put(item) for item in range(5))
    assert writer.flush(10)
    assert batches == [[0, 1, 2, 3, 4]]
    writer.close()


def test_what_does_not_fit_is_refused_until_some_was_taken() -> None:
    taken, go_on = threading.Event(), threading.Event()
    written: list[int] = []

    def write(items: list[int]) -> None:
        taken.set()
        go_on.wait(10)
        written.extend(items)

    writer = BatchWriter("writer", write, capacity=2)
    assert writer.put(0)
    assert taken.wait(10)
    assert [writer.put(item) for item in (1, 2, 3)] == [True, True, False]
    assert not writer.flush(0.0)
    go_on.set()
    assert writer.flush(10)
    assert written == [0, 1, 2]
    writer.close()


def test_the_end_writes_what_waits_and_takes_no_more() -> None:
    written: list[int] = []
    writer = BatchWriter("writer", written.extend, capacity=10, interval=60.0)
    assert writer.put(1)
    writer.close()
    writer.close()
    assert written == [1]
    assert writer.closed
    assert not writer.put(2)
    assert writer.flush(0.0)
