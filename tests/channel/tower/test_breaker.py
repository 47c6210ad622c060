from __future__ import annotations

from serendipity.channel.tower.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, open_seconds=10, clock=clock)
    for _ in range(3):
        assert breaker.admit()
        breaker.fail()
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = CircuitBreaker(failures=3, open_seconds=10, clock=Clock())
    for outcome in (breaker.fail, breaker.fail, breaker.succeed, breaker.fail, breaker.fail):
        assert breaker.admit()
        outcome()
    assert not breaker.is_open
    breaker.fail()
    assert breaker.is_open
    assert not breaker.admit()


def test_one_call_tries_after_a_while_and_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 9.9
    assert not breaker.admit()
    clock.now += 0.1
    assert breaker.admit()
    assert not breaker.admit()
    breaker.succeed()
    assert breaker.admit()
    assert breaker.admit()


def test_a_failed_try_opens_it_again() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.admit()
    breaker.fail()
    assert not breaker.admit()
    clock.now += 10
    assert breaker.admit()


def test_an_abandoned_try_lets_the_next_one_try() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.admit()
    breaker.abandon()
    assert breaker.is_open
    assert breaker.admit()
